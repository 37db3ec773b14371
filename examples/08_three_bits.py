"""Lesson 8: three bits worth using: groups, calibration, and what they cost.

A layer of 512 inputs and 512 outputs, whose inputs are correlated (neighbouring channels are alike) and in which four
channels are 30 times larger than the others, as activations of transformers are. Its weights go to 2, 3, 4 and 6 bits:

- by column, or in groups of 64 under small integer scales, which cost next to no time and a quarter of a bit;
- by "minmax"; by "mse", the least squared error of the weights; by "mse" with calibration data, which weighs the errors
  of each channel by the size of its input; by "gptq", where each rounding makes up for the errors of those before it.

What counts is the error of products. The part that comes from quantizing x is the same for all of them; fq.balance
and a rotation make that one smaller.

The picture goes into the folder that is given as an argument, or into examples/pictures.
"""

import pathlib
import sys
import time

import numpy as np

import fastq as fq

BITS = (2, 3, 4, 6)
GROUPS = (None, 64)
METHODS = {"minmax": "minmax", "mse": "mse", "mse, calibrated": "mse", "gptq": "gptq"}
K = N = 512
LARGE = 4096  # rows and columns of the weights whose products are timed


def inputs(random, rows):
    """Each channel is 0.9 times the one before it, and something new."""
    x = random.standard_normal((rows, K)).astype(np.float32)
    for i in range(1, K):
        x[:, i] = 0.9 * x[:, i - 1] + np.sqrt(1 - 0.9**2).astype(np.float32) * x[:, i]
    x[:, ::128] *= 30
    return x


def best_time(function):
    times = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(20):
            function()
        times.append((time.perf_counter() - start) / 20)
    return min(times)


def draw(errors, times, folder):
    try:
        import matplotlib
    except ModuleNotFoundError:
        print('The picture is left out: pip install ".[plot]" in a clone of fastq brings what draws it.')
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for color, method in enumerate(METHODS):
        for group, style in zip(GROUPS, ("--", "-")):
            values = [errors[bits, group, method] for bits in BITS]
            name = method if group else None
            left.plot(BITS, values, style, color=f"C{color}", marker="o", label=name)
    left.set(
        xlabel="bits", ylabel="SQNR of x @ w in dB (higher is better)", title="Dashed: by column; solid: groups of 64"
    )
    left.legend()
    for group, marker in zip(GROUPS, "os"):
        points = [(1e6 * times[bits, group], errors[bits, group, "gptq"]) for bits in BITS]
        right.plot(*zip(*points), marker, label="by column" if group is None else f"groups of {group}")
        for bits, point in zip(BITS, points):
            right.annotate(f" {bits} bits", point)
    right.set(
        xlabel=f"x @ q, 1 x {LARGE} x {LARGE}, in microseconds", ylabel="SQNR in dB", title="gptq: error against time"
    )
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "08_three_bits.png", dpi=120)
    print(f"The picture is {folder / '08_three_bits.png'}")


random = np.random.default_rng(0)
w = random.standard_normal((K, N)).astype(np.float32)
seen, unseen = fq.SecondMoment.of(inputs(random, 8192)), inputs(random, 1024)
exact = unseen @ w
large = random.standard_normal((LARGE, LARGE), dtype=np.float32)
one_row = random.standard_normal((1, LARGE), dtype=np.float32)

errors, times = {}, {}
print("SQNR of the products with the weights alone, in dB; memory and time of 1 x 4096 x 4096")
for bits in BITS:
    for group in GROUPS:
        for name, method in METHODS.items():
            calibration = seen if name in ("mse, calibrated", "gptq") else None
            q = fq.quantize(w, bits, axis=0, group_size=group, method=method, calibration=calibration)
            errors[bits, group, name] = fq.error(exact, unseen @ q.dequantize()).sqnr_db
        q = fq.quantize(large, bits, axis=0, group_size=group)
        times[bits, group] = best_time(lambda q=q: one_row @ q)
        found = "  ".join(f"{name} {errors[bits, group, name]:5.1f}" for name in METHODS)
        where = "by column" if group is None else f"group {group} "
        cost = f"{8 * q.nbytes / q.size:.2f} bits/weight {1e6 * times[bits, group]:5.0f} us"
        print(f"{bits} bits, {where}  {found}   {cost}")

assert errors[3, 64, "gptq"] > errors[3, 64, "mse, calibrated"] > errors[3, 64, "minmax"]
print(f"\nthree bits, groups of 64: gptq gains {errors[3, 64, 'gptq'] - errors[3, 64, 'mse']:.1f} dB over mse")

print("\nThe whole product, with the rows of x in 8 bits, and where its error comes from:")
plain = fq.quantize(w, 3, axis=0, group_size=64, method="gptq", calibration=seen)
print(fq.error_matmul(unseen, w, plain))
d = fq.balance(unseen, w)
turned = fq.quantize(w, 3, axis=0, group_size=64, method="gptq", calibration=seen, balance=d, rotate=True)
print("\nthe same, balanced and rotated:")
print(fq.error_matmul(unseen, w, turned))
gain = fq.error(exact, unseen @ turned).sqnr_db - fq.error(exact, unseen @ plain).sqnr_db
print(f"balance and rotation gain {gain:.1f} dB")

print("\nThe fewest bits that keep 20 dB of the products:")
print(fq.choose_bits(w, sqnr=20, calibration=seen))

draw(errors, times, pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "pictures"))
