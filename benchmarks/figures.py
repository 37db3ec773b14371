"""The figures that fastq is held to: what a full run found, next to a bar and to what would be better still.

All are ratios within one run, or costs of a call, a process or a product that are small on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from fastq.bench.run import Run

# Names of contenders, as the benchmarks give them.
FLOAT32, CODES, INT8, INT4, INT3, TWO = (
    "float32 np.matmul", "int8 codes", "int8 weights", "int4 weights", "int3 weights", "two floats",
)  # fmt: skip
NBITS = "ONNX Runtime MatMulNBits, 4 bits"

UNITS: dict[str, Callable[[float], str]] = {
    "share": lambda value: f"{value:.0%}",
    "times": lambda value: f"{value:.2f}x",
    "seconds": lambda value: f"{value:.2f} s",
    "microseconds": lambda value: f"{1e6 * value:.1f} us",
    "bytes": lambda value: f"{value / 2**20:.1f} MiB",
    "decibels": lambda value: f"{value:.2f} dB",
    "bits": lambda value: f"{value:.3f} bits",
    "points": lambda value: f"{value:.2f} points",
}
LESS_IS_BETTER = {"seconds", "microseconds", "bytes", "bits", "points"}


class Value(NamedTuple):
    """What was found, and with whom it was compared where the report has to tell."""

    number: float
    rival: str = ""


class Figure(NamedTuple):
    """Something that a run must show."""

    what: str
    unit: str
    bar: float
    stretch: float | None
    find: Callable[[Run], Value]  # raises KeyError if the run does not have it
    less: bool = False  # less is better, whatever the unit

    def reached(self, number: float) -> str:
        """How far a number gets."""
        less = self.less or self.unit in LESS_IS_BETTER

        def met(goal: float) -> bool:
            return number <= goal if less else number >= goal

        if self.stretch is not None and met(self.stretch):
            return "stretch"
        return "bar" if met(self.bar) else "**below**"


def faster(group: str, name: str, than: str, group_of_other: str | None = None) -> Callable[[Run], Value]:
    """How many times faster a contender is than another."""
    return lambda run: Value(run.row(group_of_other or group, than).best / run.row(group, name).best)


def faster_than_peers(group: str, name: str) -> Callable[[Run], Value]:
    """How many times faster a contender is than the fastest peer of its kind."""

    def find(run: Run) -> Value:
        peer = run.fastest_peer(group, name)
        return Value(peer.best / run.row(group, name).best, peer.name)

    return find


def share_of_peak(group: str, name: str, isa: str | None = None) -> Callable[[Run], Value]:
    """A contender's operations per second, as a share of what its instruction set multiplies out of registers."""

    def find(run: Run) -> Value:
        row = run.row(group, name, isa)
        peak = run.peak(row)
        if not peak:
            raise KeyError("the peaks of the instruction sets")
        return Value(row.operations / row.best / peak, str(row.isa))

    return find


def rate_of(group: str, name: str, than: str) -> Callable[[Run], Value]:
    """A contender's operations per second, as a multiple of another's."""
    return lambda run: Value(run.row(group, name).rate / run.row(group, than).rate)


def share_of_bandwidth(group: str, name: str) -> Callable[[Run], Value]:
    """The bytes per second that a contender reads, as a share of what was measured in this run."""

    def find(run: Run) -> Value:
        row = run.row(group, name)
        if not run.roofs:
            raise KeyError("the bandwidth of memory")
        return Value(row.nbytes / row.best / run.roofs["bandwidth"]["all"])

    return find


def beyond(group: str, name: str, baseline: str) -> Callable[[Run], Value]:
    """The seconds that a contender takes beyond another."""
    return lambda run: Value(run.row(group, name).best - run.row(group, baseline).best)


def measure(name: str) -> Callable[[Run], Value]:
    """A measure that is not a time."""
    return lambda run: Value(run.measures[name])


def _slowdown(group: str) -> Callable[[Run], Value]:
    """Medians: a call in a hundred that gets through undisturbed would hide the others."""

    def find(run: Run) -> Value:
        return Value(run.row(group, "all threads, one core taken").median / run.row(group, "one thread").median)

    return find


def _figures() -> Iterator[Figure]:
    wide, cube = "{}x4096x4096".format, "{0}x{0}x{0}".format

    for side, bar, stretch in ((4096, 0.45, 0.60), (2048, 0.40, 0.55)):
        yield Figure(f"{cube(side)} int8 codes, share of the peak", "share", bar, stretch,
                     share_of_peak(cube(side), CODES))  # fmt: skip
    for shape, bar, stretch in ((cube(2048), 11, 16), (cube(4096), 11, 16), (wide(128), 12, 16)):
        yield Figure(f"{shape} int8 weights, against np.matmul", "times", bar, stretch, faster(shape, INT8, FLOAT32))
    yield Figure(f"{cube(2048)} two floats, against np.matmul", "times", 7, 10, faster(cube(2048), TWO, FLOAT32))
    for shape in (wide(128), cube(1024), cube(2048), cube(4096)):
        for name in (CODES, INT8):
            yield Figure(f"{shape} {name}, against the fastest peer", "times", 1.15, 1.5,
                         faster_than_peers(shape, name))  # fmt: skip

    for m, bar, stretch, peer_stretch in ((1, 3, 3.5, 1.2), (16, 12, 16, 1.3)):
        yield Figure(
            f"{wide(m)} int8 weights, against np.matmul", "times", bar, stretch, faster(wide(m), INT8, FLOAT32)
        )
        for name in (CODES, INT8):
            yield Figure(f"{wide(m)} {name}, against the fastest peer", "times", 1.0, peer_stretch,
                         faster_than_peers(wide(m), name))  # fmt: skip
    yield Figure(f"{wide(1)} int3 weights, against np.matmul", "times", 6, 8, faster(wide(1), INT3, FLOAT32))
    for name in (INT3, INT4):
        yield Figure(f"{wide(1)} {name}, against ONNX Runtime's 4 bits", "times", 1.5, 2, faster(wide(1), name, NBITS))
    yield Figure(f"{wide(1024)} int3 weights, share of the rate of int8 weights", "share", 0.85, 0.95,
                 faster(wide(1024), INT3, INT8))  # fmt: skip
    for name in (INT3, INT4):
        yield Figure(f"{wide(1024)} {name}, against ONNX Runtime's 4 bits", "times", 10, 18,
                     faster(wide(1024), name, NBITS))  # fmt: skip

    yield Figure(f"{cube(2048)} int8 codes on AVX512-VNNI, share of its peak", "share", 0.75, 0.88,
                 share_of_peak(f"{cube(2048)} by instruction set", CODES, "avx512vnni"))  # fmt: skip
    yield Figure(f"{cube(1024)} int8 weights with AVX2 only, against np.matmul", "times", 1.3, 1.8,
                 faster(f"{cube(1024)}, AVX2 only", INT8, FLOAT32))  # fmt: skip

    rows = "quantize by row 4096x4096"
    yield Figure("quantizing 4096x4096 by row, against the NumPy expression", "times", 25, 35,
                 faster(rows, "fastq", "NumPy expression"))  # fmt: skip
    yield Figure("quantizing 4096x4096 by row, bytes read per second against np.max", "share", 0.5, 0.8,
                 faster(rows, "fastq", "np.max"))  # fmt: skip

    for shape, bar, stretch in ((cube(2048), 1.75, 1.9), (wide(1), 1.5, 1.75)):
        yield Figure(f"{shape} int8 weights, all threads against one", "times", bar, stretch,
                     faster(f"{shape}, one thread", f"{INT8}, all threads", INT8))  # fmt: skip
    for shape in (wide(1), cube(1024)):
        yield Figure(f"{shape} int8 weights, one core taken by another process, against one thread, medians", "times",
                     1.3, None, _slowdown(f"{shape} beside a busy process"), less=True)  # fmt: skip

    yield Figure("a call: 64x64 @ 64x64, int8 weights", "microseconds", 15e-6, 8e-6,
                 lambda run: Value(run.row("call: product 64x64", INT8).best))  # fmt: skip
    yield Figure("np.matmul(x, q), 64x64, beyond x @ q", "microseconds", 3e-6, None,
                 beyond("call: ways to a product 64x64", "np.matmul", "x @ q"))  # fmt: skip
    for state, bar, stretch in (("warm", 1.0, 0.6), ("cold", 5.0, 2.5)):
        yield Figure(f"the first product of a new process beyond NumPy's, {state} cache", "seconds", bar, stretch,
                     beyond("start", f"fastq: import and product, {state}", "NumPy: import and product"))  # fmt: skip
    yield Figure("peak memory of 4096x4096 @ int8 weights beyond operands, result and packed codes of the left one",
                 "bytes", 8 << 20, None, measure("memory"))  # fmt: skip

    yield Figure("encoder layer, batch 32, against float32 NumPy", "times", 3, 4,
                 faster("encoder layer, batch 32", "fastq", "NumPy"))  # fmt: skip
    for name in ("query, key, value", "attention output", "MLP in", "MLP out"):
        yield Figure(f"encoder: {name}, batch 32, amid other work against a loop of its own", "times", 1.3, None,
                     faster(f"encoder: {name}, batch 32", "fastq", "fastq, amid other work"), less=True)  # fmt: skip

    yield from _search()
    for name in ("q @ v", "v @ q.T"):
        yield Figure(f"{name}, 200000x384, packed for v @ q.T, against float32 NumPy", "times", 8, 15,
                     faster("search: 200000x384 with a vector", name, "NumPy"))  # fmt: skip
    for name in ("8 bits", "4 bits, group 64"):
        yield Figure(f"q[ids], 256 rows of 49152x576, {name}: packed, against not packed", "times", 1.5, 1,
                     faster(f"search: 256 rows of 49152x576, {name}", "not packed", "packed"), less=True)  # fmt: skip

    for way, bar, stretch in (("group", 4, 2), ("two-plane", 2.2, 1.9)):
        name = "int4 weights, group 32"
        yield Figure(f"256x4096x4096 {name}: {way} activations, time against row", "times", bar, stretch,
                     faster("256x4096x4096 by activations", name, f"{name}, {way} activations"), less=True)  # fmt: skip

    yield from _low_bits()


def _search() -> Iterator[Figure]:
    """The best ten of 200,000 items of 384 elements."""
    best = "top_k, int8"
    yield Figure("top_k, 1000 queries, int8: against x @ q.T and argpartition", "times", 10, 25,
                 faster("search: 1000 queries, 200000x384", best, "x @ q.T, argpartition"))  # fmt: skip
    for other, bar, stretch in (
        ("faiss SQ8", 20, 50),
        ("usearch exact int8", 10, 25),
        ("NumKong, argpartition", 5, 15),
    ):
        yield Figure(f"top_k, 32 queries, int8: against {other}", "times", bar, stretch,
                     faster("search: 32 queries, 200000x384", best, other))  # fmt: skip
    group, product = "search: 1000 queries, 200000x384", "a product of codes, 1024x4096x4096"
    yield Figure("top_k, 1000 queries, int8: time against its operations at the rate of 1024x4096x4096", "times",
                 1.5, 1.2, rate_of(group, product, best), less=True)  # fmt: skip
    yield Figure("top_k, 1 query, int8: share of the bandwidth of memory", "share", 0.7, 0.85,
                 share_of_bandwidth("search: 1 queries, 200000x384", best))  # fmt: skip
    for items in (200_000, 1_000_000):
        what, group = f"top_k, 1 query of {items}, int3, rescored", f"search: 1 queries, {items}x384"
        yield Figure(f"{what}: against float32 NumPy and argpartition", "times", 12, 20,
                     faster(group, "top_k, int3, rescored", "x @ w.T, argpartition"))  # fmt: skip
    yield Figure("peak memory of top_k, 1000 queries of 1000000x384, beyond operands and answers", "bytes",
                 32 << 20, 8 << 20, measure("memory of top_k"))  # fmt: skip


def _low_bits() -> Iterator[Figure]:
    """What low-bit weights cost, and how close they come."""
    yield Figure("1x4096x4096 int3 group 64, time against int3 by column", "times", 1.15, 1.05,
                 faster("1x4096x4096 by bits and group", INT3, f"{INT3}, group 64"), less=True)  # fmt: skip
    group = "1024x4096x4096 by bits and group"
    for bits in (2, 3, 4, 5, 6):
        yield Figure(f"1024x4096x4096 int{bits} group 64, share of the rate of int8 weights", "share", 0.80, 0.92,
                     faster(group, f"int{bits} weights, group 64", INT8))  # fmt: skip
    for m, size, scheme, bar, stretch in (
        (256, 128, "symmetric", 2.5, 1.5),
        (256, 32, "asymmetric", 5, 3),
        (256, 32, "affine", 5, 3),
        (1, 128, "symmetric", 1.6, 1.2),
        (1, 32, "asymmetric", 1.6, 1.2),
        (1, 32, "affine", 1.6, 1.2),
    ):
        contest, name = (
            f"{m}x4096x4096 by groups with float scales",
            f"int4 weights, group {size}, float scales, {scheme}",
        )
        yield Figure(f"{m}x4096x4096 int4, float groups of {size}, {scheme}, against integer groups of 64", "times",
                     bar, stretch, faster(contest, "int4 weights, group 64", name), less=True)  # fmt: skip
    for name, bar in (("3 bits", 3.1), ("3 bits, group 64", 3.3)):
        yield Figure(f"memory per weight after use, {name}", "bits", bar, None, measure(f"bits per weight, {name}"))
    for scheme, bar, stretch in (("symmetric", 13.8, 13.88), ("affine", 14.1, 14.24)):
        yield Figure(f"3 bits by column, Gaussian weights, mse, {scheme}: SQNR", "decibels", bar, stretch,
                     measure(f"gaussian 3 {scheme}"))  # fmt: skip
    yield Figure("3 bits, heavy tails, groups of 64 against columns", "decibels", 1.6, 1.9, measure("heavy 3 group 64"))
    yield Figure("3 bits, groups of 64, integer against float scales", "decibels", -0.05, -0.02,
                 measure("heavy 3 integer"))  # fmt: skip
    for name, what in (("digits", "digits layer, groups of 16"), ("ar1", "AR(1) inputs, groups of 64")):
        yield Figure(f"3 bits, {what}, gptq against mse: output error", "decibels", -6, -8, measure(f"{name} 3 gptq"),
                     less=True)  # fmt: skip
    yield Figure("3 bits, groups of 64, K/16 to 16 K rows of every kind, the least that gptq gains on calibrated mse",
                 "decibels", -0.1, 0, measure("gptq gain, least"))  # fmt: skip
    yield Figure("digits network, all layers 3 bits, gptq: accuracy lost", "points", 0.5, 0,
                 measure("digits accuracy lost"))  # fmt: skip
    yield Figure("gptq of 4096x4096, 3 bits, groups of 64", "seconds", 10, 5, measure("gptq seconds"))
    yield Figure("memory that it takes beyond weights and moment", "bytes", 1 << 30, None, measure("gptq bytes"))


FIGURES = tuple(_figures())


def figures(run: Run) -> str:
    """The figures that a run has, as Markdown; empty if it has none."""
    lines = []
    for figure in FIGURES:
        show = UNITS[figure.unit]
        goals = [show(figure.bar), "" if figure.stretch is None else show(figure.stretch)]
        try:
            value = figure.find(run)
        except KeyError:
            continue
        cells = [figure.what, show(value.number), value.rival, *goals, figure.reached(value.number)]
        lines.append(f"| {' | '.join(cells)} |")
    heads = ["| | found | against | bar | stretch | reached |", "|---|--:|---|--:|--:|---|"]
    return "\n".join(heads + lines) if lines else ""
