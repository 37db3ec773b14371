"""Jobs: the one argument of every kernel.

A kernel takes the address of a C struct, its *job*. Python fills the struct (``ctypes``), kernels read it by field name
(``job.m``). All threads that work on one call share one job and draw block numbers from its ticket.

This module knows nothing of Numba, so that a program whose kernels come out of the cache never imports it; the view
from inside a kernel is in :mod:`fastq.machine.ir`.
"""

from __future__ import annotations

import ctypes
from typing import ClassVar

INT = "int"  # a field kind: a 64-bit integer; all others are pointers, named by their elements: "u8*", "f32*", ...


class Job(ctypes.Structure):
    """Base of all jobs: a struct of 64-bit fields, of which the first two serve every kernel.

    ``ticket`` is the number of the next block of work; ``status`` collects what kernels have to say (0: nothing).
    """

    KINDS: ClassVar[dict[str, str]] = {}

    @classmethod
    def place_of(cls, field: str) -> int:
        """Byte offset of a field."""
        return int(getattr(cls, field).offset)


def job(name: str, doc: str, **kinds: str) -> type[Job]:
    """Declare a job: a subclass of :class:`Job` with the given fields after the common two."""
    kinds = {"ticket": INT, "status": INT, **kinds}
    fields = [(field, ctypes.c_int64 if kind == INT else ctypes.c_void_p) for field, kind in kinds.items()]
    return type(name, (Job,), {"_fields_": fields, "KINDS": kinds, "__doc__": doc})
