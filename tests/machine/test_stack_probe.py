"""Kernels with large frames on Windows: seen in the code that LLVM writes, found in an invented system, or refused."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import llvmlite.binding as llvm
import pytest

from fastq.machine import jit, stack_probe

FRAME = """
target triple = "{triple}"
declare void @fill(i8*)
define void @kernel() {{
  %frame = alloca [{size} x i8], align 16
  %first = getelementptr [{size} x i8], [{size} x i8]* %frame, i64 0, i64 0
  call void @fill(i8* %first)
  ret void
}}
"""


def object_code(triple, size):
    if triple.startswith(("aarch64-pc-windows", "arm64-pc-windows")) and llvm.llvm_version_info[0] < 22:
        # "Incorrect size for kernel prologue", says LLVM 20, and ends the process. No Numba for Windows on ARM has it.
        pytest.skip("LLVM before 22 cannot compile large frames for Windows on ARM")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(opt=3)
    return machine.emit_object(llvm.parse_assembly(FRAME.format(triple=triple, size=size)))


@pytest.mark.parametrize(
    ("triple", "expected"),
    [
        ("x86_64-pc-windows-msvc", {"__chkstk"}), ("aarch64-pc-windows-msvc", {"__chkstk"}),
        ("x86_64-pc-windows-msvc-elf", {"__chkstk"}), ("x86_64-w64-windows-gnu", {"___chkstk_ms"}),
        ("x86_64-linux-gnu", set()), ("aarch64-linux-gnu", set()), ("arm64-apple-macosx", set()),
    ],
)  # fmt: skip
def test_what_object_code_asks_for(triple, expected):
    assert stack_probe.asked_for(object_code(triple, 20_000)) == expected
    assert stack_probe.asked_for(object_code(triple, 2_000)) == set()


@pytest.mark.parametrize(("size", "expected"), [(20_000, {"fill", "__chkstk"}), (2_000, {"fill"})])
def test_a_compilation_tells_it(monkeypatch, size, expected):
    from fastq.machine import compiling

    triple = llvm.get_process_triple().split("-")[0] + "-pc-windows-msvc"
    object_code(triple, size)  # or it is skipped
    monkeypatch.setattr(llvm, "get_process_triple", lambda: triple)
    assert compiling._object_code("kernel", [FRAME.format(triple=triple, size=size)])[1] == expected


@pytest.fixture
def windows(monkeypatch):
    """A system whose libraries have functions, and a process in which LLVM finds what it is told."""
    libraries, told = {"kernelbase": SimpleNamespace(), "ntdll": SimpleNamespace()}, {}

    def open_library(name):
        if name not in libraries:
            raise FileNotFoundError(name)
        return libraries[name]

    monkeypatch.setattr(ctypes, "WinDLL", open_library, raising=False)
    monkeypatch.setattr(llvm, "add_symbol", told.__setitem__)
    monkeypatch.setattr(llvm, "address_of_symbol", told.get)
    return SimpleNamespace(libraries=libraries, told=told)


def compilation(foreign):
    return SimpleNamespace(name="symbol", result=lambda: (b"code", foreign))


@pytest.mark.parametrize("builtin", [True, False])
@pytest.mark.parametrize("library", stack_probe.LIBRARIES)
def test_the_function_is_that_of_the_system(windows, library, builtin):
    windows.libraries[library].__chkstk = function = ctypes.CFUNCTYPE(None)(int)
    assert jit._checked("large", compilation({"__chkstk"}), builtin) == ("symbol __chkstk", b"code")
    assert windows.told == {"__chkstk": ctypes.cast(function, ctypes.c_void_p).value}
    assert all(map(jit._is_there, jit._calls("symbol __chkstk")))  # as when it comes out of the cache


@pytest.mark.parametrize("builtin", [True, False])
def test_a_kernel_is_refused_where_it_is_missing(windows, builtin):
    windows.libraries.pop("kernelbase")
    with pytest.raises(RuntimeError, match=r"kernel large must find __chkstk in Windows, .* set FASTQ_ISA"):
        jit._checked("large", compilation({"__chkstk"}), builtin)
    assert not jit._is_there("__chkstk")


def test_other_functions_are_refused_as_before(windows):
    windows.libraries["ntdll"].__chkstk = ctypes.CFUNCTYPE(None)(int)
    with pytest.raises(RuntimeError, match=r"large calls \['puts'\], which is not allowed"):
        jit._checked("large", compilation({"__chkstk", "puts"}), builtin=True)


def test_elsewhere_there_is_none():
    assert not hasattr(ctypes, "WinDLL") or stack_probe._address("no such function") is None
    assert not stack_probe.provide("___chkstk_ms")
