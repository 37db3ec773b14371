"""What this CPU can do, and which instruction set is in use."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import cache

from fastq.errors import IsaError
from fastq.lock import Lock
from fastq.machine import arm, sysctl

# Bytes. No result depends on it: it aligns memory and spaces prefetches. Where lines are longer, some of the prefetches
# are superfluous.
CACHE_LINE = 64


@cache
def features() -> frozenset[str]:
    """Names of the instruction set extensions that CPU and operating system support.

    On x86, LLVM reads them from CPUID and XGETBV. AMX also needs the permission of the operating system. On ARM, the
    system tells them.
    """
    import llvmlite.binding as llvm

    if arm.is_arm():
        return arm.features()
    names = {name for name, there in llvm.get_host_cpu_features().items() if there}
    if "amx-tile" in names and not _tiles_permitted():
        names -= {name for name in names if name.startswith("amx")}
    return frozenset(names)


def wide() -> bool:
    """Whether the vector registers hold 2 KiB in all, as those of AVX-512 do, rather than 512 bytes (AVX2, NEON)."""
    return "avx512f" in features()


def short_vectors() -> bool:
    """Whether vector registers have 128 bits, as NEON's do."""
    return arm.is_arm()


def _tiles_permitted() -> bool:
    """Ask Linux to let this process use the tile registers (ARCH_REQ_XCOMP_PERM).

    The permission holds for all threads and forked children. Without it (an old kernel, a sandbox, a signal stack that
    is too small), the first AMX instruction would end the process.
    """
    import ctypes
    import sys

    if not sys.platform.startswith("linux"):
        return False
    arch_prctl, request, tile_data = 158, 0x1023, 18
    granted: int = ctypes.CDLL(None, use_errno=True).syscall(arch_prctl, request, tile_data)
    return granted == 0


def cpu_name() -> str:
    """The name of the CPU, as its maker sells it."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    # On macOS, processor() is "arm" or "i386".
    return sysctl.text("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def available(needs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The instruction sets of a table ``{name: features needed}`` that this CPU has, in the order of the table."""
    return tuple(isa for isa, needed in needs.items() if features().issuperset(needed))


_forced: str | None = None


def force(isa: str | None) -> None:
    """Use this instruction set from now on; None: the one in ``FASTQ_ISA``, or else the best."""
    chosen.force(isa)


def _choose(needs: Mapping[str, tuple[str, ...]]) -> str:
    have = available(needs)
    wanted = _forced or os.environ.get("FASTQ_ISA")
    if not wanted:
        return have[0]
    if wanted not in have:
        known = "is not one that fastq knows" if wanted not in needs else "needs what this CPU lacks"
        source = "the forced instruction set" if _forced else "FASTQ_ISA"
        raise IsaError(
            f"{source} must be an instruction set that this CPU has, one of {', '.join(have)}; "
            f"got {wanted!r}, which {known}"
        )
    return wanted


class _Chosen:
    """The instruction set in use, looked up once."""

    def __init__(self) -> None:
        self._isa: str | None = None
        self._lock = Lock()  # nothing is put here that was chosen before another one was forced

    def __call__(self, needs: Mapping[str, tuple[str, ...]]) -> str:
        isa = self._isa  # read once: another thread may clear it
        if isa is None:
            with self._lock:
                isa = self._isa = _choose(needs)
        return isa

    def force(self, isa: str | None) -> None:
        global _forced
        with self._lock:
            _forced, self._isa = isa, None


chosen = _Chosen()
