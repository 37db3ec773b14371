"""What LLVM makes of micro-kernels for CPUs that need not be here: a later one that spills is noticed."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest

from fastq.kernels.dot import micro, packed
from fastq.kernels.dot.micro import Shape
from fastq.kernels.table import UNITS
from fastq.layout.tiles import DEPTH, TileFormat
from tests.kernels import cross
from tests.kernels.cross import ARM, Count

NEON = {unit.name: unit for unit in UNITS if unit.name.startswith("neon")}
PRODUCTS = {"neon_i8mm": "usdot", "neon_dot": "sdot", "neon": "smull"}

pytestmark = pytest.mark.skipif(not cross.has_target(ARM), reason="LLVM without this target")


@pytest.fixture(autouse=True)
def not_for_numba(monkeypatch):
    for module in (micro, packed):
        monkeypatch.setattr(module, "ir_function", cross.Function)


def longest(function, unit, passes=1):
    loops = cross.loops(cross.assembly(function, ARM))[:passes]
    return [cross.counted(body, PRODUCTS[unit.isa]) for body in loops]


# LLVM 20 allots registers otherwise: 10 to 11 spills per 64 k in blocks of neon_dot, and where three bits are unpacked.
counted = pytest.mark.skipif(llvm.llvm_version_info[0] < 22, reason="instructions are counted as LLVM 22 emits them")


@counted
@pytest.mark.parametrize(
    ("name", "most", "products", "loads", "spills"),
    [
        # 13.6 multiplications and additions per instruction.
        ("neon_i8mm", 301, 256, 80, 0),
        ("neon_dotnarrow", 301, 256, 80, 0),
        # 10.75, of which the sums of left codes take 0.45: four more products per four steps.
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


@pytest.mark.parametrize("name", NEON)
def test_blocks_for_few_rows_stay_in_registers(name):
    """But for the block of four rows, which is the one for many."""
    unit = NEON[name]
    isa = unit.micro_kernel()
    for shape in isa.gemv_shapes[:-1]:
        (count,) = longest(micro.dense(isa, (shape,), 16), unit)
        assert count.spills == 0


@counted
@pytest.mark.parametrize(("name", "most"), [("neon_i8mm", 385), ("neon_dotnarrow", 385), ("neonnarrow", 672)])
def test_three_bits_unpacked_in_registers(name, most):
    """One row, a tile of 384 bytes; the same instructions for usdot and sdot."""
    unit = NEON[name]
    isa = unit.micro_kernel()
    (count,) = longest(packed.packed(isa, TileFormat(3), isa.gemv_shapes[:1], 16), unit)
    assert count.all <= most
    assert count.spills == 0 or name == "neonnarrow"


def test_a_spill_is_seen():
    """A block of 6 x 16 of usdot has one."""
    unit = NEON["neon_i8mm"]._replace(rows=6)
    (count,) = longest(micro.dense(unit.micro_kernel(), (Shape(6, 1, 1),), 16), unit)
    assert count.spills > 0
    assert isinstance(count, Count)
