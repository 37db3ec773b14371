"""What systems, invented ones, tell of ARM CPUs; and for which CPUs the installed LLVM cannot compile."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fastq.kernels.table import ISAS
from fastq.machine import arm, cpu

LOOP = """
import os, llvmlite.binding as llvm
llvm.initialize_all_targets(); llvm.initialize_all_asmprinters()
target = llvm.Target.from_triple("aarch64-unknown-linux-gnu")
text = '''
define i64 @f(ptr %p, i64 %n) {
entry: br label %loop
loop:
  %i = phi i64 [0, %entry], [%j, %loop]
  %s = phi i64 [0, %entry], [%t, %loop]
  %a = getelementptr i64, ptr %p, i64 %i
  %v = load i64, ptr %a
  %t = add i64 %s, %v
  %j = add i64 %i, 1
  %c = icmp slt i64 %j, %n
  br i1 %c, label %loop, label %end
end: ret i64 %t
}'''
for name in NAMES:
    if not (child := os.fork()):
        module = llvm.parse_assembly(text)
        module.triple = "aarch64-unknown-linux-gnu"
        machine = target.create_target_machine(cpu=name, opt=3)
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        options.loop_vectorization = True
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        machine.emit_object(module)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(name)
"""
NAMES = """
import llvmlite.binding as llvm
llvm.initialize_all_targets()
llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(cpu="help")
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process per CPU would take long")
def test_the_cpus_for_which_llvm_cannot_compile():
    """Exactly these end the process; compiling for "generic" instead does not."""
    told = run(NAMES)
    if told.returncode:
        pytest.skip("LLVM without this target")
    names = re.findall(r"^ +(\S+) +- Select the", told.stderr, re.MULTILINE)
    assert {"generic", "apple-m1", "neoverse-n1", *arm.ABORTING} <= set(names)
    assert set(run(f"NAMES = {names!r}\n{LOOP}").stdout.split()) == arm.ABORTING


def test_they_compile_for_any_cpu(monkeypatch):
    from fastq.machine import compiling

    monkeypatch.setattr(compiling.llvm, "get_host_cpu_name", lambda: "oryon-1")
    monkeypatch.setattr(compiling.config, "CPU_NAME", None)
    compiling._prepare_numba()
    assert compiling.config.CPU_NAME == "generic"


@pytest.fixture
def system(monkeypatch):
    """A function that invents one, with its library."""

    def invent(platform, **functions):
        monkeypatch.setattr(arm, "is_arm", lambda: True)
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(**functions))
        kernel = SimpleNamespace(kernel32=SimpleNamespace(**functions))
        monkeypatch.setattr(ctypes, "windll", kernel, raising=False)
        cpu.features.cache_clear()
        return cpu.features(), cpu.available(ISAS)[0]

    yield invent
    monkeypatch.undo()
    cpu.features.cache_clear()


@pytest.mark.parametrize(
    ("first", "second", "isa"),
    [
        (1 << 1, 0, "neon"),
        (1 << 1 | 1 << 20, 0, "neon_dot"),
        (1 << 1 | 1 << 20, 1 << 13, "neon_i8mm"),
        (1 << 1, 1 << 13, "neon"),
        (0, 0, "portable"),
    ],
)
def test_linux(system, first, second, isa):
    def getauxval(entry):
        return {16: first, 26: second}[entry]

    assert system("linux", getauxval=getauxval)[1] == isa


@pytest.mark.parametrize(
    ("names", "isa"), [([], "neon"), (["DotProd"], "neon_dot"), (["DotProd", "I8MM"], "neon_i8mm")]
)
def test_macos(system, names, isa):
    def sysctlbyname(name, value, size, new, length):
        feature = name.decode().removeprefix("hw.optional.arm.FEAT_")
        if feature == "I8MM" and "DotProd" not in names:
            return -1  # an older system
        ctypes.memmove(value, (feature in names).to_bytes(4, sys.byteorder), 4)
        size._obj.value = 4
        return 0

    assert system("darwin", sysctlbyname=sysctlbyname)[1] == isa


@pytest.mark.parametrize(("numbers", "isa"), [((), "neon"), ((43,), "neon_dot"), ((43, 66), "neon_i8mm")])
def test_windows(system, numbers, isa):
    assert system("win32", IsProcessorFeaturePresent=lambda number: number in numbers)[1] == isa


def test_another_system(system):
    assert system("freebsd14") == (frozenset({"neon"}), "neon")


def test_neon_is_not_for_x86():
    if not arm.is_arm():
        assert not any(isa.startswith("neon") for isa in cpu.available(ISAS))
