"""The lessons as pages: the programs of examples/, cut into steps, each with what it prints.

``write_all`` runs every program when the documentation is built. A page is the program's docstring, then its steps in
order. A step is what stands between empty lines at the margin; steps that print nothing go with the next one. A comment
at the margin is prose.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import re
import subprocess
import sys
import types
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fastq

THEMES = ("light", "dark")
HEADING = re.compile(r"\s*\d+\. ([^.:?\n]+)")  # what a step prints first, where a lesson numbers its steps
PICTURE = re.compile(r"^The picture is (\S+)$", re.MULTILINE)
PICTURES = {"03_symmetric_and_asymmetric": "codes"}  # of the guide, where a lesson draws none of its own


class Step:
    """Some lines of a program: the comment above them, and where they begin."""

    def __init__(self, first: int, lines: Sequence[str]):
        comments = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        self.prose = "\n".join(line.strip("# ") for line in lines[:comments])
        self.code = "\n".join(lines[comments:])
        self.first = first + comments


def write_all(examples: Path, folder: Path) -> None:
    """Run the lessons, and write a page for each. A page stays if neither its program nor fastq has changed."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    sources = {program: program.read_text(encoding="utf-8") for program in sorted(examples.glob("*.py"))}
    stamps = {program: f"% {_stamp(source)}\n" for program, source in sources.items()}
    new = [program for program in sources if stamps[program] not in _read(folder / f"{program.stem}.md")]

    def write(program: Path) -> None:
        page = to_page(program.stem, sources[program], run(program, folder))
        (folder / f"{program.stem}.md").write_text(f"{page}\n{stamps[program]}", encoding="utf-8")

    timed = [program for program in new if "perf_counter" in sources[program]]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, [program for program in new if program not in timed]))
    for program in timed:  # alone, so that the others take no time from it
        write(program)


def _stamp(source: str) -> str:
    """A hash of a program and of what runs it."""
    files = [Path(__file__), *sorted(Path(fastq.__file__).parent.rglob("*.py"))]
    return hashlib.sha256(b"\0".join([source.encode(), *(file.read_bytes() for file in files)])).hexdigest()


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8") if page.exists() else ""


def run(program: Path, folder: Path) -> list[str]:
    """What each step of a program prints, in a process of its own; its pictures go to folder/pictures."""
    command = [sys.executable, __file__, str(program.resolve())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{program.name} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def steps(source: str) -> list[Step]:
    """The parts of a program between empty lines at the margin, without its docstring."""
    docstring, *body = ast.parse(source).body
    inside = {line for node in body for line in range(node.lineno, node.end_lineno + 1)}
    found, part = [], []
    lines = source.splitlines()
    for number, line in enumerate([*lines[docstring.end_lineno :], ""], start=docstring.end_lineno + 1):
        outside = number not in inside
        after_code = part and not part[-1].startswith("#")
        if part and outside and (not line or (line.startswith("#") and after_code)):
            found.append(Step(number - len(part), part))
            part = []
        if line or part:
            part.append(line)
    return found


def printed(program: Path) -> list[str]:
    """Run a program in this process, step by step."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = str(program)
    sys.argv, told = [str(program), "pictures"], []
    for step in steps(program.read_text(encoding="utf-8")):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:  # under the numbers of its lines, by which Numba finds the source of functions
                exec(compile("\n" * (step.first - 1) + step.code, program, "exec"), main.__dict__)
            except SystemExit as end:  # what the lesson needs is not installed
                return [*told, output.getvalue() + (end.code if isinstance(end.code, str) else "")]
        told.append(output.getvalue())
    return told


def to_page(name: str, source: str, outputs: Sequence[str]) -> str:
    """The page of a lesson in Markdown."""
    title, _, about = ast.get_docstring(ast.parse(source)).partition("\n\n")
    number, _, title = title.removeprefix("Lesson ").rstrip(".").partition(": ")
    parts = [f"# {number}. {as_prose(title[0].upper() + title[1:])}", as_prose(about)]
    if name in PICTURES:
        picture = f"../guide/pictures/{PICTURES[name]}"
        image = "```{{image}} {0}-{1}.png\n:class: only-{1}\n:alt: Many numbers, and the few that codes stand for.\n```"
        parts += [image.format(picture, theme) for theme in THEMES]
    waiting: list[str] = []
    for step, output in zip(steps(source), outputs):
        if step.prose:
            parts += [*as_code(waiting), as_prose(step.prose)]
            waiting = []
        waiting.append(re.sub("  # fmt: skip$", "", step.code, flags=re.MULTILINE))
        if heading := HEADING.match(output):
            parts += [*as_code(waiting[:-1]), f"## {as_prose(heading[1])}"]
            waiting = waiting[-1:]
        if output:
            parts += [*as_code(waiting), *as_output(output)]
            waiting = []
    parts += as_code(waiting)
    parts.append(f"The program is `examples/{name}.py`. Times are those of the machine that made this page.")
    return "\n\n".join(parts) + "\n"


def as_prose(text: str) -> str:
    """A docstring or a comment as Markdown: code in it stays as it is, and signs of Markdown are only signs."""
    parts = re.split("(``?[^`]+``?)", text)
    parts[::2] = (re.sub(r"([*_<>|\[\]\\])", r"\\\1", part) for part in parts[::2])
    return "".join(parts)


def as_code(waiting: Sequence[str]) -> list[str]:
    code = "\n\n".join(waiting).strip("\n")
    return [f"```{{code-block}} python\n{code}\n```"] if code else []


def as_output(text: str) -> list[str]:
    """What was printed; a picture is shown in place of the line that says where it is."""
    found = PICTURE.search(text)
    text = PICTURE.sub("", text).strip("\n")
    parts = [f":::{{container}} output\n```text\n{text}\n```\n:::"] if text else []
    return parts + ([f"![The picture that this step draws]({Path(found[1]).as_posix()})"] if found else [])


if __name__ == "__main__":
    told = printed(Path(sys.argv[1]))
    sys.stdout.write(json.dumps(told))
