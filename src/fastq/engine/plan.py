"""Deciding how a product is computed. Pure: shapes, types and a machine go in, a :class:`Plan` comes out."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fastq.kernels.table import ISAS, Unit, matmul, unit_for
from fastq.layout.tiles import BLOCK, DEPTH, TILE_ROWS, Segments, ceil_div, tile_bytes
from fastq.machine import cpu, threads

# A call shorter than this stays on its thread: waking a parked worker takes about as long.
WORTH_SHARING = 50e-6  # seconds
BYTES_PER_SECOND = 20e9  # one core reading weights from memory
LEFT_CHUNK = 512 << 10  # bytes of left tiles that stay in a core's L2 cache beside a panel of the right operand
SHARES = 4  # tickets per thread, so that a slow core holds nobody up


class Machine(NamedTuple):
    """What a plan depends on."""

    isa: str
    threads: int


def this_machine() -> Machine:
    """The machine as it is set up now."""
    return Machine(cpu.chosen(ISAS), threads.num_threads())


class Plan(NamedTuple):
    """How one product runs."""

    unit: Unit | None  # None: the reference
    shape: str  # "gemm" or "gemv"
    bits: int
    output: str
    threads: int
    row_chunk: int
    block_chunk: int
    scratch: int  # bytes per thread

    @property
    def kernel(self) -> str:
        """Name of the kernel, or "reference"."""
        return "reference" if self.unit is None else matmul(self.unit, self.shape, self.bits, self.output).name


@lru_cache(maxsize=1024)
def plan_matmul(m: int, n: int, cuts: Segments, bits: int, output: str, machine: Machine) -> Plan:
    """Plan the product of m rows with n columns, the right codes having `bits` bits."""
    if machine.isa == "reference":
        return Plan(None, "gemm", bits, output, 1, m, 1, 0)
    unit, shape = unit_for(machine.isa, bits, m, cuts.step_size if cuts.segments > 1 else None)
    blocks, tiles = ceil_div(n, BLOCK), cuts.tiles
    weights = blocks * tiles * tile_bytes(bits)
    seconds = max(2 * m * n * cuts.k / (unit.rate * 1e9), weights / BYTES_PER_SECOND)
    workers = machine.threads if seconds > WORTH_SHARING else 1
    row_chunk, block_chunk = m, 1
    if shape == "gemv":
        block_chunk = max(1, blocks // (2 * SHARES * workers))
        panel = 1
    else:
        panel = unit.blocks
        rows = LEFT_CHUNK // max(1, tiles * DEPTH * unit.left_bytes)
        panels = ceil_div(blocks, panel)
        row_chunk = max(TILE_ROWS, rows // TILE_ROWS * TILE_ROWS)
        while workers > 1 and row_chunk > 4 * TILE_ROWS and panels * ceil_div(m, row_chunk) < SHARES * workers:
            row_chunk = max(TILE_ROWS, row_chunk // 2 // TILE_ROWS * TILE_ROWS)
    scratch = panel * tiles * tile_bytes(8) if bits < 8 else 0
    return Plan(unit, shape, bits, output, workers, row_chunk, block_chunk, scratch)


def share(nbytes: int, machine: Machine) -> int:
    """Threads for a pass over so many bytes."""
    return machine.threads if nbytes / BYTES_PER_SECOND > WORTH_SHARING else 1
