"""Mistakes to plant, so that attacks are seen to find something: a test that cannot fail is a defect."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fastq.engine import memory, prepared, store
from fastq.machine import pool
from fastq.products import operands, repeated
from fastq.qarray import parts
from fastq.qarray.array import QArray
from fastq.storage import out_of_core

from . import damage, storms


class Mistake(NamedTuple):
    """Something that fastq could do wrong."""

    attack: str
    cases: range  # that find it
    finding: str  # words in what they say
    make: Callable[[], None]


def _scale_is_off() -> None:
    real = operands.column_parameters

    def off(*arguments: Any) -> Any:
        columns = real(*arguments)
        return replace(columns, scale=columns.scale * columns.scale.dtype.type(1.01))

    operands.column_parameters = off


def _a_set_rounds_otherwise() -> None:
    """Within the error bound, but not on every instruction set."""
    if os.environ["FASTQ_ISA"] != "portable":
        return
    real = operands.column_parameters

    def otherwise(*arguments: Any) -> Any:
        columns = real(*arguments)
        return replace(columns, scale=np.nextafter(columns.scale, np.inf, dtype=columns.scale.dtype))

    operands.column_parameters = otherwise


def _bias_is_rounded() -> None:
    from fastq.products import task

    real = task.check_bias
    task.check_bias = lambda bias, n, dtype: real(bias, n, dtype).astype(np.float16).astype(dtype)


def _an_element_further() -> None:
    """Left operands are read from the second number on, so the last one lies beyond the array."""
    rows, address_if = prepared.rows, prepared.address_if

    def further(array: Any) -> int:
        return 4 if array.dtype == np.float32 else 0

    def off_address(array: Any, *rest: Any) -> int | None:
        address = address_if(array, *rest)
        return None if address is None else address + further(array)

    def off_rows(array: Any, *rest: Any) -> tuple[int, int]:
        address, pitch = rows(array, *rest)
        return address + further(array), pitch

    prepared.rows = off_rows
    prepared.address_if = off_address


def _memory_is_let_go() -> None:
    """A call's workspace goes before the call ends."""

    def take(self: memory.Workspace, nbytes: int) -> int:
        return int(np.empty(nbytes, np.uint8).ctypes.data)

    memory.Workspace.take = take


def _types_are_forgotten() -> None:
    """Column parameters are kept for one type, and used for the other."""
    real = QArray.columns

    def columns(self: Any, index: Any, packed: Any, k_segments: Any, dtype: Any, affine: bool) -> Any:
        key = index, k_segments
        if key not in self._cache:
            self._cache[key] = real(self, index, packed, k_segments, dtype, affine)
        return self._cache[key]

    QArray.columns = columns


def _bias_is_forgotten() -> None:
    """In products that repeat."""
    real = repeated.again
    repeated.again = lambda a, b, out, bias, *rest: real(a, b, out, None, *rest)


def _later_blocks_are_off() -> None:
    real = out_of_core.Source.read

    def read(self: out_of_core.Source, box: Any) -> Any:
        return real(self, box) * (1.5 if any(s.start for s in box) else 1)

    out_of_core.Source.read = read


def _shapes_are_not_checked() -> None:
    parts._checked = lambda name, array, shape, types: array


def _kernels_are_not_checked() -> None:
    damage.PROGRAM = (
        """
from fastq.machine.cache import Cache
def load(self, name):
    head, checksum, symbol, code = (self.folder / f"{name}.kernel").read_bytes().split(b"\\n", 3)
    return symbol.decode(), code
Cache.load = load
"""
        + damage.PROGRAM
    )


def _workspace_is_shared() -> None:
    """A handler's call takes the workspace of the call that it interrupts."""
    mine = memory.Workspace()

    def workspace() -> memory.Workspace:
        return mine

    for module in (memory, prepared):
        module.workspace = workspace


def _interrupts_leave_workers() -> None:
    """A call that is interrupted does not wait for those that write its output."""
    real = pool.ThreadPool.run

    def run(*call: Any) -> None:
        worker = threading.Thread(target=real, args=call, daemon=True)
        worker.start()
        while worker.is_alive():
            time.sleep(0.0001)

    pool.ThreadPool.run = run


def _a_lock_stays_locked() -> None:
    """In children."""
    storms.LAST = 1

    def locked() -> None:
        store._packing = threading.Lock()
        store._packing.acquire()

    os.register_at_fork(after_in_child=locked)


MISTAKES = {
    "scale is off": Mistake("programs", range(1), "beyond the bound", _scale_is_off),
    "a set rounds otherwise": Mistake("programs", range(1), "instruction sets differ", _a_set_rounds_otherwise),
    "bias is rounded": Mistake("programs", range(6, 7), "a bias", _bias_is_rounded),
    "an element further": Mistake("guard", range(1), "ends the process", _an_element_further),
    "memory is let go": Mistake("guard", range(2), "ends the process", _memory_is_let_go),
    "types are forgotten": Mistake("history", range(1), "operands of a product", _types_are_forgotten),
    "bias is forgotten": Mistake("history", range(6, 7), "a product after", _bias_is_forgotten),
    "later blocks are off": Mistake("blocks", range(1), "in blocks", _later_blocks_are_off),
    "shapes are not checked": Mistake("damage", range(4, 5), "", _shapes_are_not_checked),
    "kernels are not checked": Mistake("damage", range(39, 40), "kernels", _kernels_are_not_checked),
    "workspace is shared": Mistake("storms", range(2), "", _workspace_is_shared),
    "interrupts leave workers": Mistake("storms", range(2, 4), "", _interrupts_leave_workers),
    "a lock stays locked": Mistake("storms", range(1), "a child", _a_lock_stays_locked),
}
