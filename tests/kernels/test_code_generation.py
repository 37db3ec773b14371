"""What LLVM makes of micro-kernels for CPUs that need not be here: a later one that spills is noticed."""

from __future__ import annotations

import re
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from fastq.kernels.dot import micro, packed, unpack
from fastq.kernels.dot.micro import Shape
from fastq.kernels.jobs import LEFT_ROWS
from fastq.kernels.quantize import codes, extremes, search, symmetric
from fastq.kernels.table import UNITS
from fastq.layout.tiles import DEPTH, LeftFormat, TileFormat
from fastq.machine import cpu
from tests.kernels import cross
from tests.kernels.cross import ARM, X86, Count

RESULTS = Path(__file__).parents[2] / "docs" / "results.md"

NEON = {unit.name: unit for unit in UNITS if unit.name.startswith("neon")}
PRODUCTS = {"neon_i8mm": "usdot", "neon_dot": "sdot", "neon": "smull"}

pytestmark = pytest.mark.skipif(not cross.has_target(ARM), reason="LLVM without this target")


@pytest.fixture(autouse=True)
def not_for_numba(monkeypatch):
    for module in (micro, packed, unpack, codes, extremes, search, symmetric):
        monkeypatch.setattr(module, "ir_function", cross.Function)


def longest(function, unit, passes=1, product=None):
    loops = cross.loops(cross.assembly(function, ARM))[:passes]
    return [cross.counted(body, product or PRODUCTS[unit.isa]) for body in loops]


# LLVM 20 allots registers otherwise: 10 to 11 spills per 64 k in blocks of neon_dot, and where three bits are unpacked.
counted = pytest.mark.skipif(llvm.llvm_version_info[0] < 22, reason="instructions are counted as LLVM 22 emits them")


@counted
@pytest.mark.parametrize(
    ("name", "most", "products", "loads", "spills"),
    [
        # 13.6 multiplications and additions per instruction.
        ("neon_i8mm", 301, 256, 80, 0),
        ("neon_dotnarrow", 301, 256, 80, 0),
        # 10.75, for several segments; the sums of left codes take 0.45 of it: four more products per four steps.
        ("neon_dot", 381, 272, 80, 0),
        # 3.2 and 2.8, in two passes over 8 columns each.
        ("neonnarrow", 638, 256, 48, 0),
        ("neon", 730, 256, 48, 20),
    ],
)
def test_the_block_for_many_rows(name, most, products, loads, spills):
    """Per 64 k: no more instructions than counted, and every product and load that must be there."""
    unit = NEON[name]
    isa = unit.micro_kernel()
    shape = Shape(unit.rows, unit.blocks, 1, isa.gemm_passes)
    for count in longest(micro.dense(isa, (shape,), 16), unit, isa.gemm_passes):
        assert (count.products, count.loads) == (products, loads)
        assert count.spills <= spills
        assert count.all <= most
    macs = unit.rows * 16 * DEPTH
    least = {"neon_i8mm": 13.5, "neon_dotnarrow": 13.5, "neon_dot": 10.7}.get(name, 2.8)
    assert macs / (isa.gemm_passes * most) >= least


@counted
@pytest.mark.parametrize(
    ("name", "product", "most", "products", "loads", "spills"),
    [
        ("neon_i8mm", "usmmla", 189, 128, 80, 0),  # 21.7 multiplications and additions per instruction
        ("neon_dot", "sdot", 317, 272, 80, 0),  # 12.9
        ("neon", "smull", 690, 256, 48, 17),  # 3.0
    ],
)
def test_the_block_of_copied_tiles(name, product, most, products, loads, spills):
    unit = NEON[name]
    isa = unit.micro_kernel().on_copies
    shape = Shape(unit.rows, 1, 1, isa.gemm_passes)
    for count in longest(micro.dense(isa, (shape,), 16), unit, isa.gemm_passes, product):
        assert (count.products, count.loads) == (products, loads)
        assert count.spills <= spills
        assert count.all <= most


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_table_knows_who_copies_tiles(unit):
    """The planner makes room for copies by the table; a micro-kernel that copied without it would write elsewhere."""
    assert unit.copying == (unit.micro_kernel().on_copies is not None)


@counted
@pytest.mark.parametrize(("name", "bits", "most"), [("neon_i8mm", 8, 213), ("neon_i8mm", 3, 459), ("neon_dot", 8, 213)])
def test_what_copies_tiles(name, bits, most):
    """64 more instructions per tile than without zipping, or flipping bits."""
    unit = NEON[name]
    (count,) = longest(unpack.unpack(unit.micro_kernel().on_copies, TileFormat(bits)), unit)
    assert count.all <= most
    assert count.spills == 0


@pytest.mark.parametrize("name", NEON)
def test_blocks_for_few_rows_stay_in_registers(name):
    """But for the block of four rows, which is the one for many."""
    unit = NEON[name]
    isa = unit.micro_kernel()
    for shape in isa.gemv_shapes[:-1]:
        (count,) = longest(micro.dense(isa, (shape,), 16), unit)
        assert count.spills == 0


@counted
@pytest.mark.parametrize(
    ("name", "bits", "rows", "most"),
    [("neon_i8mm", 4, 4, 389), ("neon_dotnarrow", 2, 4, 393), ("neonnarrow", 4, 2, 737)],
)
def test_bits_of_one_plane_abreast(name, bits, rows, most):
    unit = NEON[name]
    isa = unit.micro_kernel()
    (shape,) = (shape for shape in isa.gemv_shapes if shape.rows == rows)
    (count,) = longest(packed.packed(isa, TileFormat(bits), (shape,), 16), unit)
    assert (count.all, count.spills) <= (most, 0)


@counted
@pytest.mark.parametrize(("name", "most"), [("neon_i8mm", 385), ("neon_dotnarrow", 385), ("neonnarrow", 672)])
def test_three_bits_unpacked_in_registers(name, most):
    """One row, a tile of 384 bytes; the same instructions for usdot and sdot."""
    unit = NEON[name]
    isa = unit.micro_kernel()
    (count,) = longest(packed.packed(isa, TileFormat(3), isa.gemv_shapes[:1], 16), unit)
    assert count.all <= most
    assert count.spills == 0 or name == "neonnarrow"


LEFT = LeftFormat()
FLOAT_LOOPS = {
    "largest of a row": lambda kind: extremes.row_top(kind),
    "largest of eight rows": lambda kind: extremes.row_top(kind, LEFT_ROWS),
    "largest, balanced": lambda kind: extremes.row_top(kind, 1, True),
    "largest of eight, balanced": lambda kind: extremes.row_top(kind, LEFT_ROWS, True),
    "left codes": lambda kind: symmetric.symmetric_codes(kind, LEFT),
    "other left codes": lambda kind: codes.row_codes(kind, LEFT),
    "planes": lambda kind: codes.plane_codes(kind, LEFT),
    "codes of a row": lambda kind: codes.row_codes(kind),
    "symmetric codes of a row": lambda kind: symmetric.symmetric_codes(kind),
    "codes of columns": lambda kind: codes.column_codes(kind),
    "extremes of a row": lambda kind: extremes.row_extremes(kind),
    "extremes of columns": lambda kind: extremes.column_extremes(kind),
    "a trial of the search": lambda kind: search._trial(kind),
}
OF_HALVES = list(FLOAT_LOOPS)[:7]


@counted
@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in FLOAT_LOOPS for kind in ("f32", "f64", *("f16", "bf16") * (name in OF_HALVES))],
)
def test_loops_over_floats_stay_in_registers(name, kind, monkeypatch):
    """Quantizing, the left pass and the search, on 32 registers of 128 bits: loops over vectors spill nothing."""
    monkeypatch.setattr(cpu, "wide", lambda: False)
    monkeypatch.setattr(cpu, "short_vectors", lambda: True)
    bodies = cross.loops(cross.assembly(FLOAT_LOOPS[name](kind), ARM))
    # Those over scalars, for what vectors leave over, load no whole register, nor, of 16 bits, half of one.
    load = re.compile(r"ld[rp]\s+[qd]" if kind in ("f16", "bf16") else r"ld[rp]\s+q")
    vectors = [body for body in bodies if any(load.match(line) and "[sp" not in line for line in body)]
    assert vectors
    for body in vectors:
        # The search holds the sums of lanes that have passed, and reloads a constant.
        most = {"f32": 1, "f64": 4}[kind] if "search" in name else 0
        assert cross.counted(body, "f").spills <= most


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_sixteen_lanes_are_too_many(kind, monkeypatch):
    """For such registers; so the test above can fail."""
    monkeypatch.setattr(cpu, "short_vectors", lambda: False)
    bodies = cross.loops(cross.assembly(extremes.row_top(kind, LEFT_ROWS), ARM))
    assert max(cross.counted(body, "f").spills for body in bodies) > 100


# What adds and multiplies, by unit, and multiply-adds per instruction as docs/results.md tells them, with their column.
ARITHMETIC = {
    "avx512vnni": (("vpdpbusd",), "64", 8),
    "avxvnni": (("vpdpbusd",), "32", 8),
    "avx2": (("vpmaddwd", "vpaddd", "vpand", "vpsrlw"), "7.53", 8),
    "avx2narrow": (("vpmaddubsw", "vpmaddwd", "vpaddd"), "10.7", 7),
    "neon_i8mm": (("usmmla", "zip1", "zip2"), "28.4", 8),
    "neon_dot": (("sdot",), "15.1", 8),
    "neon_dotnarrow": (("sdot",), "16", 7),
    "neon": (("smull", "sadalp", "saddlp", "dup", "ext", "eor"), "3.2", 8),
    "neonnarrow": (("smull", "sadalp", "dup", "ext"), "3.37", 7),
}
UNIT = {unit.name: unit for unit in UNITS}


@counted
@pytest.mark.parametrize("name", ARITHMETIC)
def test_multiplications_and_additions_per_instruction(name):
    """Per 64 k of the block for many rows, without loads and branches: the figures of the page of results."""
    arithmetic, told, bits = ARITHMETIC[name]
    unit, triple = UNIT[name], X86 if "avx" in name else ARM
    if not cross.has_target(triple):
        pytest.skip("LLVM without this target")
    isa = unit.micro_kernel().on_copies or unit.micro_kernel()
    shape = Shape(unit.rows, unit.blocks, 1, isa.gemm_passes)
    bodies = cross.loops(cross.assembly(micro.dense(isa, (shape,), 16 * unit.blocks), triple))[: isa.gemm_passes]
    words = [line.removeprefix("{vex}").split()[0] for body in bodies for line in body]
    count = sum(word in arithmetic for word in words)
    assert f"{unit.rows * 16 * unit.blocks * DEPTH / count:.3g}" == told
    rest = {word for word in words if word not in arithmetic}
    assert not {
        word for word in rest if re.match(r"v?p(add|mul|madd|dpb|and|srl|shuf)|[us]dot|s?m(ul|la)|dup|eor", word)
    }
    (row,) = re.findall(rf"^\| `{unit.isa}` \| .*", RESULTS.read_text(), re.MULTILINE)
    assert row.split(" | ")[3 if bits == 8 else 4] == told


def test_a_spill_is_seen():
    """A block of 6 x 16 of usdot has one."""
    unit = NEON["neon_i8mm"]._replace(rows=6)
    (count,) = longest(micro.dense(unit.micro_kernel(), (Shape(6, 1, 1),), 16), unit)
    assert count.spills > 0
    assert isinstance(count, Count)
