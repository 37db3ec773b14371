"""Compiling, keeping and loading kernels."""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib
import subprocess
import sys
import threading
import uuid
from types import SimpleNamespace

import pytest

from fastq.machine import jit
from fastq.machine.job import INT, job

EchoJob = job("EchoJob", "For tests.", a=INT, result=INT)

PRODUCT = """
import sys
import numpy as np
import fastq as fq
from fastq.machine import jit
x = np.arange(64, dtype=np.float32).reshape(4, 16)
q = fq.quantize(x.T, axis=0)
y = x @ q
assert fq.error(x @ x.T, y).sqnr_db > 35
print(len(jit.compiled_names()), "numba" in sys.modules, len(jit.loaded_names()))
"""


def run_product(**environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRODUCT],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    compiled, numba, loaded = done.stdout.split()
    return int(compiled), numba == "True", int(loaded)


@pytest.mark.exhaustive
def test_a_second_process_compiles_nothing_and_does_not_import_numba(tmp_path):
    compiled, numba, loaded = run_product(FASTQ_CACHE_DIR=str(tmp_path))
    assert compiled == loaded > 0
    assert numba
    assert run_product(FASTQ_CACHE_DIR=str(tmp_path)) == (0, False, loaded)


@pytest.mark.exhaustive
def test_corrupt_kernels_are_compiled_again(tmp_path):
    _, _, loaded = run_product(FASTQ_CACHE_DIR=str(tmp_path))
    files = list(tmp_path.rglob("*.kernel"))
    assert len(files) == loaded
    for file in files:
        file.write_bytes(file.read_bytes()[:-5])
    assert run_product(FASTQ_CACHE_DIR=str(tmp_path)) == (loaded, True, loaded)
    assert run_product(FASTQ_CACHE_DIR=str(tmp_path)) == (0, False, loaded)


@pytest.mark.exhaustive
def test_without_a_cache_everything_works(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("off", str(tmp_path / "file")):
        compiled, _, loaded = run_product(FASTQ_CACHE_DIR=folder)
        assert compiled == loaded


FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a longer file is an OSError
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.exhaustive
def test_a_disk_that_fills_up(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK + PRODUCT],
        env={**os.environ, "FASTQ_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.suffix == ".environment" and not path.stat().st_size for path in left)  # empty files need no room


FORK_WHILE_COMPILING = """
import os, signal, threading
import numpy as np, fastq as fq
from fastq.machine import jit
from numba.core.compiler_lock import global_compiler_lock

x = np.ones((4, 16), np.float32)
started, go_on = threading.Event(), threading.Event()

def slow():
    with global_compiler_lock:
        started.set()
        go_on.wait()
    raise RuntimeError  # nothing more to compile

def compiles():
    try:
        jit.kernel("slow", slow)
    except RuntimeError:
        pass

thread = threading.Thread(target=compiles)
thread.start()
started.wait()
threading.Timer(0.2, go_on.set).start()
child = os.fork()
if child == 0:
    signal.alarm(30)
    os._exit(not (x @ fq.quantize(x.T, axis=0) == 16).all())
thread.join()
assert os.waitpid(child, 0)[1] == 0
found = []
other = threading.Thread(target=lambda: found.append(x @ fq.quantize(x.T, axis=0)), daemon=True)
other.start()
other.join(30)
assert (found[0] == 16).all()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.exhaustive
def test_a_fork_while_another_thread_compiles():
    """A compiler's lock that a thread held which the child does not have must not stop the child."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK_WHILE_COMPILING],
        env={**os.environ, "FASTQ_CACHE_DIR": "off"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.exhaustive
def test_processes_share_a_folder(tmp_path):
    """Four processes that compile at once all come to the right result, and leave whole files."""
    command = [sys.executable, "-W", "error", "-c", PRODUCT]
    environment = {**os.environ, "FASTQ_CACHE_DIR": str(tmp_path)}
    many = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(120) for process in many] == [0] * 4
    assert run_product(FASTQ_CACHE_DIR=str(tmp_path))[0] == 0


def test_a_kernel_reads_its_job_and_reports():
    def make():
        from fastq.machine.ir import kernel_function, report

        @kernel_function
        def echo(job):
            report(job, job.a * 2)

        return echo, EchoJob

    todo = EchoJob(a=21)
    jit.kernel("test_echo", make)(todo)
    assert todo.status == 42


def test_a_kernel_may_not_call_what_the_linker_might_not_find():
    def make():
        import numpy as np

        from fastq.machine.ir import kernel_function, report

        @kernel_function
        def allocates(job):
            report(job, np.zeros(job.a).size)

        return allocates, EchoJob

    with pytest.raises(RuntimeError, match=r"allocates calls .*NRT.*not allowed"):
        jit.kernel("test_allocates", make)


def compilations(count):
    """`count` kernels as :func:`fastq.machine.jit.kernels` takes them, that no other test knows of."""

    def make_for(number):
        def make():
            from fastq.machine.ir import kernel_function, report

            @kernel_function
            def echo(job):
                report(job, job.a + number)

            return echo, EchoJob

        return make

    return [(f"test_side_{uuid.uuid4().hex}", make_for(number), False, True) for number in range(count)]


def test_kernels_that_are_compiled_side_by_side(monkeypatch):
    """LLVM is at work on all of them at once: each waits for the others."""
    from fastq.machine import compiling

    together, usual = threading.Barrier(4, timeout=60), compiling._object_code
    monkeypatch.setattr(compiling, "_object_code", lambda *told: (together.wait(), usual(*told))[1])
    for number, kernel in enumerate(jit.kernels(*compilations(4))):
        todo = EchoJob(a=100)
        kernel(todo)
        assert todo.status == 100 + number


def test_llvm_runs_outside_of_the_lock_of_llvmlite(monkeypatch):
    from llvmlite.binding import ffi

    from fastq.machine import compiling

    for name in ("LLVMPY_RunNewModulePassManager", "LLVMPY_TargetMachineEmitToMemory"):
        locked = getattr(ffi.lib, name)
        assert compiling._without_lock(locked) is not locked
    monkeypatch.setattr(compiling, "_without_lock", lambda function: function)  # as with another llvmlite
    assert len(jit.kernels(*compilations(2))) == 2


def test_a_reader_sees_the_kernels_as_they_were(monkeypatch):
    """The widest window: a thread is in the middle of reading while others compile."""
    done = SimpleNamespace(name="symbol", wait=lambda: None, result=lambda: (b"code", set()))
    monkeypatch.setattr(jit, "_compiler", jit._Compiler())
    monkeypatch.setattr(jit, "_begin", lambda function, job: done)
    monkeypatch.setattr(jit._Compiler, "load", lambda self, name, *code: name)
    for name in ("first", "second"):
        jit.kernel(name, lambda: (None, None), keep=False)
    kernels, compiled = iter(jit._compiler.kernels.items()), iter(jit._compiler.compiled)
    assert (next(kernels), next(compiled)) == (("first", "first"), "first")
    writer = threading.Thread(target=lambda: jit.kernel("third", lambda: (None, None), keep=False))
    writer.start()
    writer.join()
    assert ([*kernels], [*compiled]) == ([("second", "second")], ["second"])
    assert jit.loaded_names() == jit.compiled_names() == ("first", "second", "third")


def test_kernels_without_threads(monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert len(jit.kernels(*compilations(2))) == 2


def test_a_kernel_that_does_not_compile_leaves_the_others(monkeypatch):
    """It is told, nothing stays at work, and what was asked for with it compiles the next time."""
    from fastq.machine import compiling

    usual, (first, second) = compiling._object_code, compilations(2)
    for error in (RuntimeError("no"), KeyboardInterrupt()):
        fails = iter([True, False])

        def sometimes(*told, fails=fails, error=error):
            if next(fails):
                raise error
            return usual(*told)

        with monkeypatch.context() as patch:
            patch.setattr(compiling, "_object_code", sometimes)
            with pytest.raises(type(error)):
                jit.kernels(first, second)
    assert not [thread for thread in threading.enumerate() if thread.name == "fastq-llvm"]
    assert len(jit.kernels(first, second)) == 2


def test_an_interrupt_waits_for_llvm(monkeypatch):
    """A signal's handler that raises, twice, does not leave threads behind which a fork would lose."""
    from fastq.machine import compiling

    usual, interrupts = compiling.Compilation.wait, [KeyboardInterrupt, KeyboardInterrupt]

    def interrupted(self):
        if interrupts:
            raise interrupts.pop()
        usual(self)

    monkeypatch.setattr(compiling.Compilation, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jit.kernels(*compilations(2))
    assert not [thread for thread in threading.enumerate() if thread.name == "fastq-llvm"]
    assert len(jit.kernels(*compilations(2))) == 2


NOTICED = """
import sys, time
from fastq.machine import jit
from fastq.progress import Notice
Notice.AFTER = float(sys.argv[1])
sys.path.insert(0, sys.argv[2])
from tests.machine.test_jit import compilations
jit.kernels(*compilations(2))
print("done")
"""


def noticed(stderr, after="0"):
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    root = str(pathlib.Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", NOTICED, after, root], env=environment, stdout=subprocess.PIPE, stderr=stderr,
        text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n")
    return done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_terminal_is_told_that_kernels_are_compiled():
    import pty

    reader, writer = pty.openpty()
    noticed(writer)
    noticed(writer, "1000")  # compiled sooner: nothing to tell
    os.close(writer)
    shown = b""
    with contextlib.suppress(OSError):  # how the end of a terminal is told
        while part := os.read(reader, 4096):
            shown += part
    os.close(reader)
    line = "fastq: compiling kernels for this CPU, once ({} of 2) ..."
    assert shown.decode() == f"\r{line.format(1)}\r{line.format(2)}\r{' ' * len(line.format(1))}\r"


def test_a_pipe_is_not_told_that_kernels_are_compiled():
    assert noticed(subprocess.PIPE) == ""


def test_the_collector_rests_while_the_front_end_works(monkeypatch):
    seen = []

    def begin(*made):
        seen.append(gc.isenabled())
        raise RuntimeError

    monkeypatch.setattr(jit, "_begin", begin)
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            with pytest.raises(RuntimeError):
                jit.kernel(f"none_{uuid.uuid4().hex}", lambda: (None, EchoJob), keep=False)
            assert (seen.pop(), gc.isenabled()) == (False, enabled)
        finally:
            gc.enable()
