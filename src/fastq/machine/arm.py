"""What an ARM CPU can do, as the operating system tells it.

LLVM's guess is no help: it reads some of /proc/cpuinfo on Linux, and elsewhere goes by the name of a CPU that it knows.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from fastq.machine import sysctl

# Each system's own number, or name, of an extension, by LLVM's name of it. Linux: asm/hwcap.h; the first number is that
# of the auxiliary vector's entry (AT_HWCAP, AT_HWCAP2), the second that of the bit. macOS: names below hw.optional.arm.
# Windows: PF_ARM_..._INSTRUCTIONS_AVAILABLE of winnt.h.
LINUX = {"neon": (16, 1), "dotprod": (16, 20), "i8mm": (26, 13)}
MACOS = {"dotprod": "FEAT_DotProd", "i8mm": "FEAT_I8MM"}
WINDOWS = {"dotprod": 43, "i8mm": 66}

# Names of CPUs for which LLVM (20 and 22) cannot compile any loop: it ends the process, "incomplete machine model".
ABORTING = frozenset({"oryon-1"})


def is_arm() -> bool:
    """Whether this process, not just its machine, is a 64-bit ARM one."""
    import llvmlite.binding as llvm

    triple: str = llvm.get_process_triple()
    return triple.startswith(("aarch64", "arm64"))


def features() -> frozenset[str]:
    """The extensions that kernels may need, by LLVM's names; without a system that tells, what all CPUs have."""
    system: str = sys.platform
    if system in ("linux", "android"):
        return frozenset(_linux())
    always = {"neon"}
    if system == "darwin":
        return frozenset(always | _macos())
    return frozenset(always | (_windows() if system == "win32" else set()))


def _linux() -> set[str]:
    ask = ctypes.CDLL(None).getauxval
    ask.restype, ask.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return {name for name, (entry, bit) in LINUX.items() if ask(entry) >> bit & 1}


def _macos() -> set[str]:
    return {feature for feature, name in MACOS.items() if sysctl.number(f"hw.optional.arm.{name}")}


def _windows() -> set[str]:
    library: Any = ctypes
    ask = library.windll.kernel32.IsProcessorFeaturePresent
    return {name for name, number in WINDOWS.items() if ask(number)}
