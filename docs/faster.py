"""The picture of README: times faster than float32 NumPy, drawn from static/faster.json.

``python docs/faster.py`` draws it again. It has a ground of its own, so that it can be read wherever it is shown.
"""

import json
from pathlib import Path

STATIC = Path(__file__).parent / "static"
SERIES = {"fastq8": "fastq, 8 bits", "fastq3": "fastq, 3 bits", "other": "fastest other library, 8 bits"}
WIDTH, LEFT, STEP, BAR = 720, 112, 18, 13  # STEP from bar to bar; BAR is the height of one
UNIT = 25  # of length, for once as fast as NumPy

STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2328 } .small { font-size: 12px; fill: #59636e }
.ground { fill: #ffffff; stroke: #d1d9e0 } .task { font-weight: 600 } .line { stroke: #59636e; stroke-dasharray: 3 3 }
.fastq8 { fill: #1f77b4 } .fastq3 { fill: #1b9e77 } .other { fill: #9aa4ae }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .small { fill: #9198a1 } .ground { fill: #0d1117; stroke: #3d444d } .line { stroke: #9198a1 }
.fastq8 { fill: #6baed6 } .fastq3 { fill: #66c2a5 } .other { fill: #656d76 } }
"""


def draw(data):
    """The picture as SVG: a group of bars for each task."""
    parts, y = [_text(16, 30, "Times faster than float32 NumPy (longer is better)", "task")], 58
    x = 16
    for kind, name in SERIES.items():
        parts += [f'<rect class="{kind}" x="{x}" y="{y - 12}" width="14" height="14" rx="2"/>', _text(x + 20, y, name)]
        x += 150
    y += 22
    top = y
    for group in data["groups"]:
        parts.append(_text(16, y + STEP + 11, group["task"], "task"))
        for kind in SERIES:
            value, name = group[kind], f" {group['name']}" if kind == "other" else ""
            end = LEFT + round(value * UNIT, 1)
            parts.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{end - LEFT:g}" height="{BAR}" rx="2"/>')
            parts.append(_text(end + 6, y + 11, f"{value:.1f}{name}"))
            y += STEP
        y += 10
    one = LEFT + UNIT
    parts.append(f'<line class="line" x1="{one}" x2="{one}" y1="{top - 4}" y2="{y - 8}"/>')
    parts.append(_text(one - 3, y + 8, "1: NumPy", "small"))
    parts.append(_text(16, y + 32, data["machine"], "small"))
    parts.append(_text(16, y + 50, data["about"], "small"))
    height = y + 66
    ground = f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>'
    label = "Bars: times faster than float32 NumPy, for fastq and the fastest other library"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'
    return "\n".join([head, f"<style>{STYLE}</style>", ground, *parts, "</svg>"]) + "\n"


def _text(x, y, words, kind=""):
    return f'<text x="{x:g}" y="{y:g}"{f" class={kind!r}" if kind else ""}>{words}</text>'.replace("'", '"')


if __name__ == "__main__":
    data = json.loads((STATIC / "faster.json").read_text(encoding="utf-8"))
    (STATIC / "faster.svg").write_text(draw(data), encoding="utf-8")
