"""Deciding how a product is computed. Pure: shapes, types and a machine go in, a :class:`Plan` comes out."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fastq.kernels.epilogue.outputs import Output
from fastq.kernels.table import ISAS, Entry, Unit, matmul, unit_for
from fastq.layout.tiles import BLOCK, DEPTH, TILE_ROWS, Segments, TileFormat, ceil_div, tile_bytes
from fastq.machine import cpu, pool

# A call shorter than this stays on its thread: waking a parked worker takes about as long.
WORTH_SHARING = 50e-6  # seconds
WORTH_SHARING_LEFT = 128 << 10  # bytes; 16 x 4096 float32 takes 21 us on one thread
BYTES_PER_SECOND = 20e9  # one core reading weights from memory
LEFT_CHUNK = 512 << 10  # bytes of left tiles that stay in a core's L2 cache beside a panel of the right operand
BLOCKED_ROWS, BLOCKED_COLUMNS = 512, 256  # of a ticket of the blocked GEMM
SHARES = 4  # tickets per thread, so that a slow core holds nobody up
# Tickets that bring their own rows into tiles read all of the right operand: at most so many bytes, which for tile
# registers must lie in a core's L2 cache. They have from so many to so many rows; more where codes must be unpacked.
OWN_RIGHT, OWN_RIGHT_TILES = 16 << 20, 1 << 20
OWN_ROWS, OWN_ROWS_PACKED = (16, 64), (64, 128)
OWN_TILES = 16  # along K, for tile registers: rows and right tiles of more leave the L1 cache


class Machine(NamedTuple):
    """What a plan depends on."""

    isa: str
    threads: int


def this_machine() -> Machine:
    """The machine as it is set up now."""
    return Machine(cpu.chosen(ISAS), pool.num_threads())


class Plan(NamedTuple):
    """How one product runs."""

    unit: Unit
    shape: str  # "gemm" or "gemv"
    form: TileFormat
    output: Output
    threads: int
    row_chunk: int
    block_chunk: int
    scratch: int  # bytes per thread
    segmented: bool = False  # whether K has several segments
    own_rows: int = 0  # of a ticket that brings its rows into tiles and multiplies all columns; 0: it had better not

    @property
    def kernel(self) -> Entry:
        """The kernel, as the table has it."""
        return matmul(self.unit, self.shape, self.form, self.output, self.segmented)


@lru_cache(maxsize=1024)
def plan_matmul(m: int, n: int, k_segments: Segments, form: TileFormat, output: Output, machine: Machine) -> Plan:
    """Plan the product of m rows with n columns, the right codes being stored as `form` says."""
    unit, shape = unit_for(machine.isa, form.multiplied, m)
    blocks, tiles = ceil_div(n, BLOCK), k_segments.tiles
    weights = blocks * tiles * tile_bytes(form.bits)
    seconds = max(2 * m * n * k_segments.k / (unit.rate * 1e9), weights / BYTES_PER_SECOND)
    workers = machine.threads if seconds > WORTH_SHARING else 1
    row_chunk, block_chunk, own_rows = m, 1, 0
    segmented = k_segments.segments > 1
    if unit.k_block and not segmented:
        return _plan_blocked(unit, m, n, k_segments, form, output, workers)
    if shape == "gemv":
        block_chunk = max(1, blocks // (2 * SHARES * workers))
        panel = 1
    else:
        panel, grain = unit.blocks, max(TILE_ROWS, unit.rows)
        left_chunk = LEFT_CHUNK * (2 if unit.k_block else 1)  # CPUs with tiles have 2 MiB of L2
        rows = left_chunk // max(1, tiles * DEPTH * unit.left_bytes)
        panels, block_chunk = ceil_div(blocks, panel), panel
        row_chunk = max(grain, rows // grain * grain)
        if weights <= OWN_RIGHT:
            least, most = OWN_ROWS_PACKED if unit.copies(form.bits, segmented) else OWN_ROWS
            own_rows = _own_rows(m, max(least, grain), min(most, row_chunk), SHARES * workers)
        while workers > 1 and row_chunk > 4 * TILE_ROWS and panels * ceil_div(m, row_chunk) < SHARES * workers:
            row_chunk = max(grain, row_chunk // 2 // grain * grain)
    copies = form.bits < 8 if shape == "gemv" else unit.copies(form.bits, segmented)
    scratch = panel * tiles * tile_bytes(8) if copies else 0
    return Plan(unit, shape, form, output, workers, row_chunk, block_chunk, scratch, segmented, own_rows)


def _own_rows(m: int, least: int, most: int, tickets: int) -> int:
    """Multiples of the least, as many as leave so many tickets; 0 if there are too few."""
    rows = most // least * least
    while rows >= 2 * least and ceil_div(m, rows) < tickets:
        rows = rows // 2 // least * least
    return rows if rows >= least and ceil_div(m, rows) >= tickets else 0


def _plan_blocked(
    unit: Unit, m: int, n: int, k_segments: Segments, form: TileFormat, output: Output, workers: int
) -> Plan:
    """A plan for :func:`fastq.kernels.dot.amx.gemm`: per ticket, accumulators and a K block of both operands fit L2."""
    panel = unit.rows
    row_chunk, column_chunk = (
        min(size, ceil_div(length, panel) * panel) for size, length in ((BLOCKED_ROWS, m), (BLOCKED_COLUMNS, n))
    )
    while ceil_div(m, row_chunk) * ceil_div(n, column_chunk) < SHARES * workers:
        if column_chunk >= max(row_chunk, 2 * panel):
            column_chunk = ceil_div(column_chunk // 2, panel) * panel
        elif row_chunk >= 2 * panel:
            row_chunk = ceil_div(row_chunk // 2, panel) * panel
        else:
            break
    dense = column_chunk // BLOCK * unit.k_block * tile_bytes(8) if form.bits < 8 else 0
    scratch = 4 * row_chunk * column_chunk + dense
    own_rows = 0
    if form.bits == 8 and k_segments.tiles <= OWN_TILES and n * k_segments.tiles * DEPTH <= OWN_RIGHT_TILES:
        own_rows = _own_rows(m, panel, panel, 2 * workers)  # a panel at a time, whose two accumulators are in use
        scratch = max(scratch, 2 * 4 * panel * panel)
    return Plan(unit, "gemm", form, output, workers, row_chunk, column_chunk // BLOCK, scratch, own_rows=own_rows)


def share(nbytes: int, machine: Machine) -> int:
    """Threads for a pass over so many bytes."""
    return machine.threads if nbytes / BYTES_PER_SECOND > WORTH_SHARING else 1


def left_threads(nbytes: int, plan: Plan) -> int:
    """Threads for bringing a left operand of so many bytes into tiles.

    The product needs the same threads a moment later, so waking them pays off earlier than for other passes.
    """
    return plan.threads if nbytes >= WORTH_SHARING_LEFT else 1
