"""Lesson 5: bits, granularity, and how the scale is chosen.

Three things decide how close codes come to the numbers:

- bits: each one halves the step, worth 6 dB;
- granularity: how many numbers share a scale. The largest of them sets it for all, so fewer are better;
- method: "minmax" makes the scale reach the largest number; "mse" searches for the one with the smallest squared error,
  which cuts off a few large numbers so that the many small ones are finer.

The picture goes into the folder that is given as an argument, or into examples/pictures.
"""

import pathlib
import sys

import numpy as np

import fastq as fq

GRANULARITIES = {
    "matrix": {"axis": None},
    "column": {"axis": 0},
    "group of 64": {"axis": 0, "group_size": 64},
}
METHODS = ("minmax", "mse")
BITS = range(2, 9)


def weights():
    """Like those of a trained layer: columns of different size, and a few large numbers in each."""
    random = np.random.default_rng(0)
    columns = np.exp(0.5 * random.standard_normal(256))
    return (random.standard_t(5, (512, 256)) * columns).astype(np.float32)


def draw(sqnr, folder):
    try:
        import matplotlib
    except ModuleNotFoundError:
        print('The picture is left out: pip install ".[plot]" in a clone of fastq brings what draws it.')
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for color, granularity in enumerate(GRANULARITIES):
        for method, style in zip(METHODS, ("--", "-")):
            values = [sqnr[granularity, method, bits] for bits in BITS]
            axes.plot(BITS, values, style, color=f"C{color}", marker="o", label=f"{granularity}, {method}")
    axes.set(xlabel="bits", ylabel="SQNR in dB (higher is better)", title="Bits, granularity and method")
    axes.grid(alpha=0.3)
    axes.legend()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "05_bits_scales_and_methods.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    print(f"The picture is {path}")


w = weights()
sqnr = {}
print("SQNR in dB of 512 x 256 weights")
print(f"{'one scale per':<13} {'method':<7}" + "".join(f"{bits:>6} b" for bits in BITS))
for granularity, sharing in GRANULARITIES.items():
    for method in METHODS:
        for bits in BITS:
            q = fq.quantize(w, bits=bits, method=method, **sharing)
            sqnr[granularity, method, bits] = fq.error(w, q).sqnr_db
        row = "".join(f"{sqnr[granularity, method, bits]:8.1f}" for bits in BITS)
        print(f"{granularity:<13} {method:<7}{row}")

for granularity in GRANULARITIES:
    assert all(sqnr[granularity, "mse", bits] >= sqnr[granularity, "minmax", bits] for bits in BITS)
gain = sqnr["group of 64", "mse", 3] - sqnr["matrix", "minmax", 3]
print(f"At 3 bits, small groups and a searched scale are worth {gain:.1f} dB, as much as {gain / 6.02:.1f} more bits.")
draw(sqnr, pathlib.Path(sys.argv[1]) if sys.argv[1:] else pathlib.Path(__file__).parent / "pictures")
