"""Pages and pictures read back by the parsers of the standard library."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = {"meta", "link", "wbr"}
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """The elements of a page, each with its attributes; whether every one that was opened is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def all(self, tag):
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def pictures(text):
    """The outermost SVGs of a text, as trees: XML is stricter than HTML."""
    found, depth, start = [], 0, 0
    for match in re.finditer(r"<(/?)svg\b", text):
        if not match[1]:
            start = match.start() if depth == 0 else start
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                found.append(ElementTree.fromstring(text[start : match.end() + 1]))
    assert depth == 0
    return found


def lengths(tree):
    """All numbers along x of a picture: they must lie on it."""
    for element in tree.iter():
        for name in ("x", "x1", "x2", "width"):
            if element.get(name, "").endswith("%"):
                yield float(element.get(name)[:-1])
