"""The table of kernels: dispatch, tests and benchmarks all read it.

A *unit* is what an instruction set has for some widths of the right codes. From each unit come a GEMM and a GEMV kernel
per width and output type. A new CPU is one file of micro-kernel differences and a few rows here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from fastq.kernels import jobs
from fastq.kernels.outputs import Output
from fastq.layout.tiles import GROUPED, Form
from fastq.machine.job import Job


class Unit(NamedTuple):
    """A row of the table."""

    name: str
    isa: str
    bits: range  # widths of the right codes that it multiplies exactly
    left_bytes: int  # 1: left tiles of int8; 2: of int16, in the order k0 k2 k1 k3
    rows: int  # register block for many rows: rows x (16 * blocks) columns
    blocks: int
    few: int  # up to so many rows the GEMV kernel takes over; 0: there is none
    k_block: int  # tiles per block of K, for a GEMM that is blocked along K and takes one segment; 0: it is not
    rate: float  # 10^9 operations per second and core, roughly; the planner weighs threads with it
    where: str  # module:class of the micro-kernel's differences


UNITS = (
    Unit("amx", "amx", range(2, 9), 1, 32, 2, 0, 8, 3000.0, "amx:Amx"),
    Unit("avx512vnni", "avx512vnni", range(2, 9), 1, 8, 3, 8, 0, 500.0, "avx512vnni:Avx512Vnni"),
    Unit("avxvnni", "avxvnni", range(2, 9), 1, 4, 1, 4, 0, 250.0, "avxvnni:AvxVnni"),
    Unit("avx2", "avx2", range(8, 9), 2, 8, 1, 4, 0, 100.0, "avx2:Avx2"),
    Unit("avx2narrow", "avx2", range(2, 8), 1, 4, 1, 4, 0, 120.0, "avx2:Avx2Narrow"),
    Unit("portable", "portable", range(2, 9), 1, 4, 1, 4, 0, 20.0, "portable:Portable"),
)

# What a CPU must have for each instruction set, best first. The reference needs nothing, not even a compiler.
ISAS: dict[str, tuple[str, ...]] = {
    "amx": ("amx-tile", "amx-int8", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"),
    "avx512vnni": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"),
    "avxvnni": ("avx2", "avxvnni"),
    "avx2": ("avx2",),
    "portable": (),
    "reference": (),
}


# Where an instruction set has no kernel for a case, that of another one, which its CPUs have too, takes over: for up to
# `few` of its rows, and for several segments. Milliseconds of m x 4096 x 4096 on two cores, GEMV of avx512vnni (m <= 8)
# against tiles: 8 bits 0.33 to 0.41 either way, which is the memory's time; 4 bits 0.21 to 0.25 against 0.39 to 0.41;
# 3 bits 0.16 to 0.28 against 0.38. From 9 rows on GEMV would have to read the weights twice.
FALLBACK = {"amx": "avx512vnni"}


def unit_for(isa: str, bits: int, m: int, segments: int = 1) -> tuple[Unit, str]:
    """The unit, and ``"gemm"`` or ``"gemv"``, for m rows and right codes of this width on an instruction set.

    `segments` is the number of runs of K over which parameters are constant.
    """
    unit = next(unit for unit in UNITS if unit.isa == isa and bits in unit.bits)
    other = FALLBACK.get(isa)
    if other is not None:
        small = unit_for(other, bits, m)[0].few
        if m <= small or (unit.k_block and segments > 1):
            return unit_for(other, bits, m, segments)
    return unit, "gemv" if m <= unit.few else "gemm"


class Entry(NamedTuple):
    """A kernel as :func:`fastq.machine.jit.kernel` takes it."""

    name: str
    make: Callable[[], tuple[Any, type[Job]]]
    kept: bool = True  # on disk
    own: bool = True  # it holds no user's function


def matmul(unit: Unit, shape: str, form: Form, output: Output) -> Entry:
    """The kernel of a unit; `shape` is ``"gemm"`` or ``"gemv"``."""

    def make() -> tuple[Any, type[Job]]:
        from fastq.kernels import skeleton

        module, name = unit.where.split(":")
        isa = getattr(import_module(f"fastq.kernels.{module}"), name)(unit.rows, unit.blocks, unit.k_block)
        loops = import_module("fastq.kernels.amx") if shape == "gemm" and unit.k_block else skeleton
        return getattr(loops, shape)(isa, form, output), jobs.MatmulJob

    return Entry(f"{shape}_{unit.name}_{form.tag}_{output.tag}", make, output.kept, output.function is None)


def left_floats(kind: str, left_bytes: int, balanced: bool = False) -> Entry:
    """Quantize rows of floats (``"f16"``, ``"bf16"``, ``"f32"``, ``"f64"``) into left tiles."""

    def make() -> tuple[Any, type[Job]]:
        from fastq.kernels import left

        return left.floats(kind, left_bytes == 2, balanced), jobs.LeftJob

    return Entry(f"left_{kind}_{8 * left_bytes}bit" + "_balanced" * balanced, make)


def left_codes(left_bytes: int) -> Entry:
    """Copy rows of codes into left tiles."""

    def make() -> tuple[Any, type[Job]]:
        from fastq.kernels import left

        return left.codes(left_bytes == 2), jobs.LeftJob

    return Entry(f"left_codes_{8 * left_bytes}bit", make)


def right_pack(bits: int) -> Entry:
    """Pack codes into right tiles."""

    def make() -> tuple[Any, type[Job]]:
        from fastq.kernels import right

        return right.pack(bits), jobs.RightJob

    return Entry(f"right_pack_{bits}bit", make)


def quantize(which: str, kind: str) -> Entry:
    """A quantization kernel: ``"rows"``, ``"columns"`` or ``"choices"``."""

    def make() -> tuple[Any, type[Job]]:
        from fastq.kernels import quantize

        return getattr(quantize, which)(kind), jobs.QuantizeJob

    return Entry(f"quantize_{which}_{kind}", make)


def shared(kind: str) -> Entry:
    """Choose integer scales of groups together with the scale that they share."""

    def make() -> tuple[Any, type[Job]]:
        from fastq.kernels import search

        return search.shared(kind), jobs.SharedJob

    return Entry(f"search_shared_{kind}", make)


def search(kind: str) -> Entry:
    """Search the parameters with the smallest squared error."""

    def make() -> tuple[Any, type[Job]]:
        from fastq.kernels import search

        return search.runs(kind), jobs.SearchJob

    return Entry(f"search_{kind}", make)


def compensate(kind: str) -> Entry:
    """Round rows to codes, each row's error carried on to the next."""

    def make() -> tuple[Any, type[Job]]:
        from fastq.kernels import compensate

        return compensate.compensate(kind), jobs.CompensateJob

    return Entry(f"compensate_{kind}", make)


def entries(isa: str, bits: Sequence[int], activations: Sequence[str] = ()) -> Iterator[Entry]:
    """Every kernel that an instruction set uses for right codes of these widths, whatever shapes and types are.

    `activations` are those that float32 products are wanted with, besides none. Products in float16 are left out.
    """
    if isa == "reference":
        return
    for kind in ("f32", "f64"):
        yield from (quantize(which, kind) for which in ("rows", "columns", "choices"))
        yield search(kind)
        yield shared(kind)
        yield compensate(kind)
    # One row or many, one segment of K or more: between them they meet every unit.
    many = 1 + max(unit.few for unit in UNITS)
    forms = [Form(width, grouped) for width in bits for grouped in (False, True) if not grouped or width in GROUPED]
    cases = [(f, *unit_for(isa, f.multiplied, m, segments)) for f in forms for m in (1, many) for segments in (1, 2)]
    for left_bytes in sorted({unit.left_bytes for _, unit, _ in cases}):
        kinds = ("f32", "f64", "f16", "bf16")
        yield from (left_floats(kind, left_bytes, balanced) for balanced in (False, True) for kind in kinds)
        yield left_codes(left_bytes)
    yield from map(right_pack, bits)
    for form, unit, shape in dict.fromkeys(cases):
        # Products of 8-bit arrays alone come in integers.
        outputs = [Output("float32"), Output("float64"), *(Output("float32", name) for name in activations)]
        yield from (matmul(unit, shape, form, output) for output in outputs + [Output("int32")] * (form.bits == 8))
