"""The table of kernels: dispatch, tests and benchmarks all read it.

A *unit* is what an instruction set has for some widths of the right codes. From each unit come a GEMM and a GEMV kernel
per width and output type. A new CPU is one file of micro-kernel differences and a few rows here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from fastq.kernels import jobs
from fastq.kernels.epilogue.outputs import Output
from fastq.layout.tiles import GROUPED, LeftFormat, TileFormat
from fastq.machine.job import Job
from fastq.scheme import GROUP, TWO_PLANE


class Unit(NamedTuple):
    """A row of the table."""

    name: str
    isa: str
    bits: range  # widths of the right codes that it multiplies exactly
    left: LeftFormat  # of the left tiles that it reads
    rows: int  # register block for many rows: rows x (16 * blocks) columns
    blocks: int
    few: int  # up to so many rows the GEMV kernel takes over; 0: there is none
    k_block: int  # tiles per block of K, for a GEMM that is blocked along K where that is one segment; 0: it is not
    rate: float  # 10^9 operations per second and core, roughly; the planner weighs threads with it
    where: str  # module:class of the micro-kernel's differences
    copying: bool = False  # whether the GEMM of one segment copies all tiles, in the form that its instruction wants

    @property
    def left_bytes(self) -> int:
        """Bytes per code in a left tile."""
        return self.left.bytes

    def copies(self, bits: int, segmented: bool) -> bool:
        """Whether its GEMM copies tiles of this width into scratch."""
        return bits < 8 or (self.copying and not segmented)

    def micro_kernel(self) -> Any:
        """The :class:`fastq.kernels.dot.micro.MicroKernel`."""
        return _function(self.where)(self)


INT8, PAIRED = LeftFormat(), LeftFormat(2, (0, 2, 1, 3))

UNITS = (
    Unit("amx", "amx", range(2, 9), INT8, 32, 2, 0, 8, 3000.0, "dot.amx:Amx"),
    Unit("avx512vnni", "avx512vnni", range(2, 9), INT8, 8, 3, 8, 0, 500.0, "dot.avx512vnni:Avx512Vnni"),
    Unit("avxvnni", "avxvnni", range(2, 9), INT8, 4, 1, 4, 0, 250.0, "dot.avxvnni:AvxVnni"),
    Unit("avx2", "avx2", range(8, 9), PAIRED, 8, 1, 4, 0, 100.0, "dot.avx2:Avx2"),
    Unit("avx2narrow", "avx2", range(2, 8), INT8, 4, 1, 4, 0, 120.0, "dot.avx2:Avx2Narrow"),
    Unit("neon_i8mm", "neon_i8mm", range(2, 9), INT8, 4, 1, 4, 0, 250.0, "dot.neon:NeonI8mm", True),
    Unit("neon_dot", "neon_dot", range(8, 9), INT8, 4, 1, 4, 0, 150.0, "dot.neon:NeonDot", True),
    Unit("neon_dotnarrow", "neon_dot", range(2, 8), INT8, 4, 1, 4, 0, 150.0, "dot.neon:NeonDotNarrow"),
    Unit("neon", "neon", range(8, 9), INT8, 4, 1, 4, 0, 30.0, "dot.neon:Neon", True),
    Unit("neonnarrow", "neon", range(2, 8), INT8, 4, 1, 4, 0, 30.0, "dot.neon:NeonNarrow"),
    Unit("portable", "portable", range(2, 9), INT8, 4, 1, 4, 0, 20.0, "dot.portable:Portable"),
)

# What a CPU must have for each instruction set, best first. The reference needs nothing, not even a compiler.
ISAS: dict[str, tuple[str, ...]] = {
    "amx": ("amx-tile", "amx-int8", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"),
    "avx512vnni": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"),
    "avxvnni": ("avx2", "avxvnni"),
    "avx2": ("avx2",),
    "neon_i8mm": ("neon", "dotprod", "i8mm"),
    "neon_dot": ("neon", "dotprod"),
    "neon": ("neon",),
    "portable": (),
    "reference": (),
}


# Where an instruction set has no GEMV, that of another one, which its CPUs have too, takes over. Milliseconds of
# m x 4096 x 4096 on two cores, GEMV of avx512vnni (m <= 8) against tiles: 8 bits 0.33 to 0.41 either way, which is the
# memory's time; 4 bits 0.21 to 0.25 against 0.39 to 0.41; 3 bits 0.16 to 0.28 against 0.38. From 9 rows on GEMV would
# have to read the weights twice.
FALLBACK = {"amx": "avx512vnni"}


def unit_for(isa: str, bits: int, m: int) -> tuple[Unit, str]:
    """The unit, and ``"gemm"`` or ``"gemv"``, for m rows and right codes of this width on an instruction set."""
    unit = next(unit for unit in UNITS if unit.isa == isa and bits in unit.bits)
    if isa in FALLBACK:
        few = unit_for(FALLBACK[isa], bits, m)
        if few[1] == "gemv":
            return few
    return unit, "gemv" if m <= unit.few else "gemm"


class Entry(NamedTuple):
    """A kernel as :func:`fastq.machine.jit.kernel` takes it."""

    name: str
    make: Callable[[], tuple[Any, type[Job]]]
    kept: bool = True  # on disk
    ours: bool = True  # it holds no user's function


def matmul(unit: Unit, shape: str, form: TileFormat, output: Output, segmented: bool = False) -> Entry:
    """The kernel of a unit; `shape` is ``"gemm"`` or ``"gemv"``, `segmented` for several segments of K."""

    def make() -> tuple[Any, type[Job]]:
        # A unit that is blocked along K has a loop of its own beside its micro-kernel, for one segment.
        loops = "dot.loops" if segmented or not unit.k_block else unit.where.split(":")[0]
        made = _function(f"{loops}:{shape}")(unit.micro_kernel(), form, output, *(segmented,) * segmented)
        return made, jobs.MatmulJob

    name = f"{shape}{'_segmented' * segmented}_{unit.name}_{form.tag}_{output.tag}"
    return Entry(name, make, output.kept, output.function is None)


def _function(where: str) -> Any:
    """What ``"module:name"`` stands for."""
    module, name = where.split(":")
    return getattr(import_module(f"fastq.kernels.{module}"), name)


def _entry(name: str, where: str, job: type[Job], *options: Any) -> Entry:
    """The kernel that a function, ``"module:name"``, makes of these options."""
    return Entry(name, lambda: (_function(where)(*options), job))


def left_floats(kind: str, left: LeftFormat, balanced: bool = False, planes: int = 1) -> Entry:
    """Quantize rows of floats (``"f16"``, ``"bf16"``, ``"f32"``, ``"f64"``) into left tiles, in one plane or two."""
    name = f"left_{kind}_{left.tag}" + "_balanced" * balanced + "_planes" * (planes > 1)
    return _entry(name, "pack.left:floats", jobs.LeftJob, kind, left, balanced, planes)


def left_codes(left: LeftFormat) -> Entry:
    """Copy rows of codes into left tiles."""
    return _entry(f"left_codes_{left.tag}", "pack.left:codes", jobs.LeftJob, left)


def right_pack(bits: int) -> Entry:
    """Pack codes into right tiles."""
    return _entry(f"right_pack_{bits}bit", "pack.right:pack", jobs.RightJob, bits)


def right_floats(kind: str, bits: int) -> Entry:
    """Quantize floats (``"f32"``, ``"f64"``) by column into right tiles."""
    return _entry(f"right_{kind}_{bits}bit", "pack.floats:pack", jobs.RightFloatsJob, kind, bits)


@cache
def unpack(which: str, bits: int) -> Entry:
    """Unpack right tiles: ``"rows"`` of codes, all of them, or some ``"columns"``."""
    return _entry(f"unpack_{which}_{bits}bit", f"pack.unpack:{which}", jobs.UnpackJob, bits)


def quantize(which: str, kind: str) -> Entry:
    """A quantization kernel: ``"rows"`` or ``"columns"``."""
    return _entry(f"quantize_{which}_{kind}", f"quantize.loops:{which}", jobs.QuantizeJob, kind)


def shared(kind: str) -> Entry:
    """Choose integer scales of groups together with the scale that they share."""
    return _entry(f"search_shared_{kind}", "quantize.search:shared", jobs.SharedJob, kind)


def search(kind: str) -> Entry:
    """Search the parameters with the smallest squared error."""
    return _entry(f"search_{kind}", "quantize.search:runs", jobs.SearchJob, kind)


def top_finish(kind: str) -> Entry:
    """Join and sort the best of rows that threads have kept; `kind` is the type of the values."""
    return _entry(f"top_finish_{kind}", "epilogue.top:finish", jobs.TopJob, kind)


def compensate(kind: str) -> Entry:
    """Round rows to codes, each row's error carried on to the next."""
    return _entry(f"compensate_{kind}", "quantize.compensate:compensate", jobs.CompensateJob, kind)


def entries(
    isa: str,
    bits: Sequence[int],
    epilogues: Sequence[str] = (),
    activations: Sequence[str] = (),
    float16: bool = False,
    top: bool = False,
) -> Iterator[Entry]:
    """Every kernel that an instruction set uses for right codes of these widths, whatever shapes and types are.

    `epilogues` are those that float32 products are wanted with, besides none, `activations` the ways of quantizing
    floats besides by row; `float16` says whether there are products in float16, `top` whether the best of rows are
    wanted.
    """
    two_plane = TWO_PLANE in activations
    if isa == "reference":
        return
    for kind in ("f32", "f64"):
        yield from (quantize(which, kind) for which in ("rows", "columns"))
        yield search(kind)
        yield shared(kind)
        yield compensate(kind)
    # One row or many, one segment of K or more: between them they meet every unit.
    many = 1 + max(unit.few for unit in UNITS)
    forms = [
        TileFormat(width, grouped) for width in bits for grouped in (False, True) if not grouped or width in GROUPED
    ]
    cases = [
        (f, *unit_for(isa, f.multiplied, m), segmented) for f in forms for m in (1, many) for segmented in (False, True)
    ]
    for left in sorted({unit.left for _, unit, _, _ in cases}):
        kinds = ("f32", "f64", "f16", "bf16")
        for planes in (1, 2)[: 1 + two_plane]:
            yield from (left_floats(kind, left, balanced, planes) for balanced in (False, True) for kind in kinds)
        yield left_codes(left)
    yield from map(top_finish, ("float32", "float64", "int32") * top)
    yield from map(right_pack, bits)
    yield from (right_floats(kind, width) for kind in ("f32", "f64") for width in bits)
    yield from (unpack(which, width) for which in ("rows", "columns") for width in bits)
    for form, unit, shape, segmented in cases:
        # Products of 8-bit arrays alone come in integers. Those with a quantized left operand are turned.
        names = ("float32", "float64", *("float16",) * float16)
        outputs = [Output(name, turned=turned) for name in names for turned in (False, True)]
        outputs += [Output("float32", name) for name in epilogues]
        outputs += [Output(name, top=True) for name in names] * top
        outputs += [o._replace(planes=2) for o in outputs] * two_plane
        outputs += [o._replace(row_groups=True) for o in outputs if o.planes == 1] * (
            GROUP in activations and segmented
        )
        outputs += [Output("int32"), *[Output("int32", top=True)] * top] * (form.bits == 8 and not segmented)
        yield from (matmul(unit, shape, form, output, segmented) for output in outputs)
