"""The pictures of the guide, each computed by fastq and drawn twice: for the light and for the dark theme."""

from pathlib import Path

import matplotlib
import numpy as np

import fastq as fq

matplotlib.use("Agg")
import matplotlib.pyplot as plt

THEMES = {
    "light": {"ink": "0.2", "colours": ["#1f77b4", "#d95f02", "#1b9e77", "#7570b3"]},
    "dark": {"ink": "0.8", "colours": ["#6baed6", "#fd8d3c", "#66c2a5", "#a6a1d8"]},
}


def draw_all(folder):
    """Draw every picture in every theme; some seconds."""
    folder.mkdir(exist_ok=True)
    for picture in (codes, bits, methods, bound):
        data = picture.data()
        for theme in THEMES:
            _draw(picture, data, theme, folder / f"{picture.__name__}-{theme}.png")


def _draw(picture, data, theme, path: Path):
    ink, colours = THEMES[theme]["ink"], THEMES[theme]["colours"]
    style = {f"{part}.color": ink for part in ("text", "xtick", "ytick")}
    style |= {"axes.labelcolor": ink, "axes.edgecolor": ink, "axes.titlecolor": ink, "legend.frameon": False}
    style |= {"axes.prop_cycle": plt.cycler(color=colours), "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context({**style, "font.size": 10, "figure.constrained_layout.use": True, "grid.alpha": 0.25}):
        figure = picture(data)
        figure.savefig(path, dpi=150, transparent=True)
        plt.close(figure)


def _with(data):
    """Attach what computes a picture's numbers to what draws them."""

    def attach(function):
        function.data = data
        return function

    return attach


def _skewed():
    """Numbers like those after an activation: most of them near 0, a tail to one side; and what 3 bits make of them."""
    x = np.random.default_rng(0).standard_normal(20_000)
    x = np.where(x > 0, x, 0.2 * x)
    x = x[(x > -0.55) & (x < 3)]
    levels = {}
    for scheme in ("affine", "asymmetric", "symmetric"):
        q = fq.quantize(x, bits=3, scheme=scheme)
        codes = np.arange(-4, 4) if scheme == "symmetric" else np.arange(8)
        zero, offset = (0 if p is None else p[0] for p in (q.zero_point, q.offset))
        levels[scheme] = q.scale[0] * (codes - zero) + offset, fq.error(x, q).sqnr_db
    return x, levels


@_with(_skewed)
def codes(data):
    """Where the numbers that codes stand for lie."""
    x, levels = data
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 3.6), sharex=True, height_ratios=[1, 1])
    top.hist(x, bins=120, color="C0", alpha=0.6)
    top.set(yticks=[], ylabel="how many")
    for row, (values, sqnr) in enumerate(levels.values()):
        bottom.plot(values, [row] * 8, "|", markersize=16, markeredgewidth=2.5, color=f"C{row + 1}")
        bottom.annotate(f"{sqnr:.1f} dB", (3.15, row), verticalalignment="center", color=f"C{row + 1}")
    bottom.set(yticks=range(3), yticklabels=list(levels), ylim=(-0.7, 2.7), xlabel="the eight values that 3 bits allow")
    bottom.axvline(0, linewidth=0.8, linestyle=":", color="0.5")
    bottom.spines["left"].set_visible(False)
    bottom.tick_params(axis="y", length=0)
    bottom.set_xlim(-4.3, 3.8)
    return figure


GRANULARITIES = {
    "one for the matrix": {"axis": None},
    "one per column": {"axis": 0},
    "one per 64 of a column": {"axis": 0, "group_size": 64},
}
BITS = range(2, 9)


def weights():
    """Weights like those of a trained layer: columns of different size, and a few large numbers in each."""
    random = np.random.default_rng(0)
    return (random.standard_t(5, (1024, 256)) * np.exp(0.5 * random.standard_normal(256))).astype(np.float32)


def _sqnr():
    w = weights()
    return {
        (name, method): [fq.error(w, fq.quantize(w, b, method=method, **sharing)).sqnr_db for b in BITS]
        for name, sharing in GRANULARITIES.items()
        for method in ("minmax", "mse")
    }


@_with(_sqnr)
def bits(data):
    """How close codes come, by bits, granularity and method."""
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for colour, name in enumerate(GRANULARITIES):
        axes.plot(BITS, data[name, "mse"], "o-", color=f"C{colour}", label=f"{name}, mse")
        axes.plot(
            BITS, data[name, "minmax"], "o--", color=f"C{colour}", label=f"{name}, minmax", markerfacecolor="none"
        )
    axes.set(xlabel="bits", ylabel="SQNR in dB (higher is better)")
    axes.grid()
    axes.legend(title="scales")
    return figure


def _outputs():
    """SQNR of x @ q at 3 bits and groups of 64, for inputs that are correlated and have four large channels."""
    random = np.random.default_rng(0)
    k = 256
    w = random.standard_normal((k, k)).astype(np.float32)
    x = random.standard_normal((4096 + 512, k)).astype(np.float32)
    for i in range(1, k):
        x[:, i] = 0.9 * x[:, i - 1] + np.float32(0.436) * x[:, i]
    x[:, ::64] *= 30
    seen, unseen = fq.SecondMoment.of(x[:4096]), x[4096:]
    form = {"bits": 3, "axis": 0, "group_size": 64}
    forms = {
        '"minmax"': {},
        '"mse"': {"method": "mse"},
        '"mse" with calibration': {"method": "mse", "calibration": seen},
        '"gptq"': {"method": "gptq", "calibration": seen},
        '"gptq", balance and rotation': {
            "method": "gptq", "calibration": seen, "balance": fq.balance(x[:4096], w), "rotate": True,
        },
    }  # fmt: skip
    return {name: fq.error(unseen @ w, unseen @ fq.quantize(w, **form, **more)).sqnr_db for name, more in forms.items()}


@_with(_outputs)
def methods(data):
    """What ways to choose scales and codes are worth in a product."""
    figure, axes = plt.subplots(figsize=(7, 2.4))
    bars = axes.barh(list(data), list(data.values()), color="C0", height=0.6)
    axes.bar_label(bars, fmt="%.1f dB", padding=4)
    axes.invert_yaxis()
    axes.set(xlabel="SQNR of x @ q in dB, 3 bits in groups of 64 (higher is better)")
    axes.margins(x=0.15)
    axes.tick_params(axis="y", length=0)
    return figure


def _shares():
    """Errors of products of floats, as shares of what bounds them."""
    random = np.random.default_rng(0)
    shares = {}
    for k in (4096, 256, 16):
        a, b = (random.standard_normal(shape, dtype=np.float32) for shape in ((200, k), (k, 300)))
        shares[k] = np.abs(fq.matmul(a, b) - a.astype(np.float64) @ b) / fq.matmul_error_bound(a, b)
    return shares


@_with(_shares)
def bound(data):
    """How far errors stay below their bounds."""
    figure, axes = plt.subplots(figsize=(7, 2.8))
    edges = np.geomspace(1e-4, 2, 90)
    for k, shares in data.items():
        axes.hist(shares.ravel(), bins=edges, alpha=0.6, label=f"K = {k}")
    axes.axvline(1, color=plt.rcParams["text.color"], linewidth=1.2)
    axes.annotate(" the bound", (1, 0.9), xycoords=("data", "axes fraction"))
    axes.set(xscale="log", xlim=(1e-4, 4), yticks=[], ylabel="how many", xlabel="error of an element, over its bound")
    axes.legend(loc="upper left")
    return figure
