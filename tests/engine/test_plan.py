"""Plans, for machines that need not be here."""

from __future__ import annotations

import pytest

from fastq.engine.backend import NATIVE, REFERENCE, backend
from fastq.engine.plan import Machine, plan_matmul
from fastq.kernels.epilogue.outputs import ACTIVATIONS, COMPUTED, Output
from fastq.kernels.table import FALLBACK, ISAS, UNITS, unit_for
from fastq.layout.tiles import TILE_ROWS, TileFormat, segments

LONG, SHORT = segments(4096), segments(64)
FLOAT32 = Output("float32")


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.name)
def test_few_rows_go_to_gemv_and_more_to_gemm(unit):
    for m, shape in ((1, "gemv"), (unit.few, "gemv"), (unit.few + 1, "gemm"), (1000, "gemm")):
        if unit.isa in FALLBACK and m <= 1:
            continue  # another unit's matter, see below
        plan = plan_matmul(m, 4096, LONG, TileFormat(unit.bits[0]), FLOAT32, Machine(unit.isa, 2))
        assert (plan.unit, plan.shape) == (unit, shape)


def test_amx_leaves_few_rows_to_vnni():
    machine = Machine("amx", 2)

    def chosen(m, k_segments):
        plan = plan_matmul(m, 4096, k_segments, TileFormat(8), FLOAT32, machine)
        return plan.unit.name, plan.shape

    assert chosen(8, LONG) == ("avx512vnni", "gemv")
    assert chosen(9, LONG) == ("amx", "gemm")
    assert chosen(9, segments(100)) == ("amx", "gemm")  # one segment may end anywhere
    assert chosen(8, segments(4096, 64)) == ("avx512vnni", "gemv")
    assert chosen(9, segments(4096, 64)) == ("amx", "gemm")


def test_small_work_stays_on_its_thread_and_large_work_is_shared():
    machine = Machine("avx512vnni", 8)
    assert plan_matmul(64, 64, SHORT, TileFormat(8), FLOAT32, machine).threads == 1
    assert plan_matmul(1, 4096, LONG, TileFormat(3), FLOAT32, machine).threads == 8
    assert plan_matmul(2048, 2048, segments(2048), TileFormat(8), FLOAT32, machine).threads == 8


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "reference"])
@pytest.mark.parametrize("m", [1, 9, 17, 100, 1000, 5000])
@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("group", [None, 64])
def test_chunks_are_whole_tiles_and_give_every_thread_work(isa, m, bits, group):
    plan = plan_matmul(m, 2048, segments(2048, group), TileFormat(bits), FLOAT32, Machine(isa, 4))
    blocked = plan.unit.k_block > 0 and not plan.segmented
    if plan.shape == "gemm":
        assert plan.row_chunk % max(TILE_ROWS, plan.unit.rows) == 0 or plan.row_chunk >= m
        if blocked:  # two column blocks are worked on together
            assert plan.block_chunk % 2 == 0
    else:
        assert 128 / plan.block_chunk >= 4
    copied = bits < 8 or (plan.shape == "gemm" and plan.unit.copying and not plan.segmented)
    assert (plan.scratch > 0) == (copied or blocked)


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "reference"])
@pytest.mark.parametrize("bits", [3, 8])
def test_tickets_bring_their_own_rows_where_there_are_enough_of_them(isa, bits):
    def own_rows(m, n, k, threads=2):
        plan = plan_matmul(m, n, segments(k), TileFormat(bits), FLOAT32, Machine(isa, threads))
        assert plan.own_rows % TILE_ROWS == 0
        assert plan.own_rows == 0 or -(-m // plan.own_rows) >= 2 * plan.threads
        return plan.own_rows

    tiles = isa == "amx"
    assert (own_rows(4096, 384, 384) > 0) == (bits == 8 or not tiles)
    assert own_rows(1, 384, 384) == own_rows(32, 768, 768) == 0
    assert own_rows(1000, 200_000, 384) == 0  # where each ticket would read more than the caches hold
    assert own_rows(512, 1024, 1024, 64) == 0
    if tiles:
        assert own_rows(4096, 1024, 4096) == 0  # rows of so many tiles leave the L1 cache
    elif bits == 8 and not unit_for(isa, bits, 4096)[0].copies(bits, segmented=False):
        assert own_rows(4096, 384, 384) == 64
        assert own_rows(128, 384, 1536) == 16


def test_the_reference_needs_no_kernel(isa):
    """And takes what is empty, on every instruction set."""
    assert backend() is (REFERENCE if isa == "reference" else NATIVE)
    assert backend(0) is REFERENCE


def test_kernel_names_tell_everything_apart():
    outputs = [Output(t, a) for t in COMPUTED for a in ("", *(ACTIVATIONS if t != "int32" else ()))]
    names = {
        plan_matmul(m, 64, SHORT, TileFormat(bits), output, Machine(isa, 1)).kernel.name
        for m in (1, 100)
        for bits in range(2, 9)
        for output in outputs
        for isa in ISAS
        if isa != "reference"
    }
    gemv_of_its_own = [isa for isa in ISAS if isa not in FALLBACK and isa != "reference"]
    assert len(names) == 7 * len(outputs) * (len(ISAS) - 1 + len(gemv_of_its_own))
