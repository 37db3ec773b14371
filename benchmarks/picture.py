"""The roofline picture: what each product reaches, under what the machine can do."""

from __future__ import annotations

from math import atan, degrees, sqrt
from pathlib import Path
from typing import Any

from fastq.bench.run import CODES, FLOAT32, FLOATS, LOW_BITS, NUMPY, TITLES, Row, Run

COLOURS = {None: "C3", NUMPY: "0.35", "onnxruntime": "C0", "torch": "C1", "numkong": "C2", "mkl": "C4"}
MARKS = {CODES: "o", FLOATS: "s", LOW_BITS: "D", FLOAT32: "P"}  # kinds that pack or quantize all in a call are left out
SMALL = 2 * 256**3  # operations: below it a product is all overhead


def roofline(run: Run, groups: list[str], file: str | Path) -> None:
    """Draw rates over operational intensity, both logarithmic, for the products of these groups on all threads."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for group in groups for row in run.groups[group] if row.kind in MARKS and row.operations >= SMALL]
    if not rows or not run.roofs:
        raise ValueError("there is nothing to plot: no products large enough, or the machine's roofs were not measured")
    rows.sort(key=lambda row: row.library is None)  # fastq last, so that it lies on top
    libraries = [name for name in COLOURS if any(row.library == name for row in rows)]

    figure, axes = plt.subplots(figsize=(10, 8), layout="constrained")
    low, high = _ends(rows)
    floor = min(row.rate for row in rows) / 2.5
    _draw_roofs(axes, run, low, high, floor)
    for row in rows:
        ours, colour = row.library is None, COLOURS.get(row.library, "C5")
        axes.plot(_intensity(row), row.rate, MARKS[row.kind], color=colour, markerfacecolor=colour if ours else "none",
                  markersize=7 if ours else 6, markeredgewidth=1.2)  # fmt: skip
        if ours and row.kind == CODES:
            axes.axvline(_intensity(row), color="0.85", linewidth=0.8, linestyle=":", zorder=0)
            axes.text(_intensity(row), floor * 1.1, f" {row.group}", rotation=90, fontsize=8, color="0.4",
                      horizontalalignment="right", verticalalignment="bottom")  # fmt: skip
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(low, high),
        ylim=(floor, None),
        xlabel="operations per byte of the operands",
        ylabel="10⁹ operations per second",
        title=f"Quantized products on {run.machine.get('CPU', 'this machine')}, {run.roofs['threads']} threads",
    )
    axes.grid(alpha=0.25, which="major")
    axes.spines[["top", "right"]].set_visible(False)
    handles = [_handle(TITLES[name], "o", COLOURS[name], filled=name is None) for name in libraries]
    handles += [_handle(kind, mark, "0.35") for kind, mark in MARKS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def _handle(label: str, mark: str, colour: str, filled: bool = False) -> Any:
    """An entry of the legend."""
    from matplotlib.lines import Line2D

    face = colour if filled else "none"
    return Line2D([], [], marker=mark, linestyle="", color=colour, markerfacecolor=face, label=label)


def _intensity(row: Row) -> float:
    return row.operations / row.nbytes


def _ends(rows: list[Row]) -> tuple[float, float]:
    found = [_intensity(row) for row in rows]
    return min(found) / 1.7, max(found) * 1.7


def _draw_roofs(axes: Any, run: Run, low: float, high: float, floor: float) -> None:
    """The sloping roof, reading, and a flat one per instruction set."""
    bandwidth = run.roofs["bandwidth"]["all"]
    peaks: dict[str, float] = {}
    for unit in run.roofs["peaks"].values():
        if 8 in unit["bits"]:
            peaks[unit["isa"]] = max(peaks.get(unit["isa"], 0), unit["all"])
    for isa, peak in peaks.items():
        corner = peak / bandwidth
        axes.plot([corner, high], [peak / 1e9] * 2, color="0.6", linewidth=1, zorder=0)
        axes.annotate(f"{isa} {_thousands(peak)}", (high, peak / 1e9), xytext=(-4, 3), textcoords="offset points",
                      fontsize=8, color="0.4", horizontalalignment="right")  # fmt: skip
    top = max(peaks.values())
    axes.plot([low, top / bandwidth], [low * bandwidth / 1e9, top / 1e9], color="0.6", linewidth=1, zorder=0)
    # The text lies along the roof, whose direction matplotlib takes in the units of the data.
    slope = degrees(atan(bandwidth / 1e9))
    start = sqrt(max(low, floor * 1e9 / bandwidth) * top / bandwidth)  # half-way up
    axes.text(start, start * 1.1 * bandwidth / 1e9, f"reading {bandwidth / 1e9:.0f} GB/s", fontsize=8, color="0.4",
              rotation=slope, rotation_mode="anchor", transform_rotates_text=True)  # fmt: skip


def _thousands(peak: float) -> str:
    return f"{peak / 1e12:.1f}·10¹²" if peak >= 1e12 else f"{peak / 1e9:.0f}·10⁹"
