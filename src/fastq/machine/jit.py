"""Compiling kernels, once, and keeping their machine code.

A kernel is an ``@njit`` function of one job pointer (see :mod:`fastq.machine.job`). Numba compiles it, and fastq keeps
its object code in memory and on disk. Loading object code takes a few milliseconds and needs llvmlite only, so a new
process with a warm cache starts fast: 0.1 s, where Numba's cache takes 0.6 s, most of it for importing Numba. A call of
a kernel is cheap, too: a ctypes call with one pointer, which releases the GIL.

When object code is linked and refers to a function that the process lacks, the process ends. So a kernel may call only
the functions in ``compiling.ALLOWED_CALLS``; that is checked before the code is kept. If a user's epilogue calls
further functions, or the frame of a kernel is large (:mod:`fastq.machine.stack_probe`), their names are kept with the
code, and looked up before it is linked.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any

from fastq.machine import stack_probe
from fastq.machine.cache import Cache, environment, root, stamp
from fastq.machine.job import Job
from fastq.progress import Notice

# Numba's calling convention: int status(return slot *, exception slot *, arguments...).
_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


# Kernels write the None that they return to this memory. They raise no exception. All threads may share it.
_unread = (ctypes.c_void_p * 2)()
_UNREAD = ctypes.addressof(_unread)


class Kernel:
    """A compiled kernel."""

    __slots__ = ("_call", "address", "name")

    def __init__(self, name: str, address: int) -> None:
        self.name, self.address = name, address
        self._call = _PROTOTYPE(address)

    def __call__(self, job: Job) -> None:
        """Run the kernel on the calling thread, without the GIL."""
        self._call(_UNREAD, _UNREAD + 8, ctypes.addressof(job))

    def __repr__(self) -> str:
        return f"<fastq kernel {self.name}>"


class _Compiler:
    """The state of one process: the LLVM engines that hold the code, the cache, the kernels by name.

    A thread that has the lock changes it. Others read without: so kernels and names are never changed in place, but put
    there anew. A reader sees the kernels before or after, and each of them whole.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.kernels: dict[str, Kernel] = {}
        self.compiled: tuple[str, ...] = ()  # names of kernels that were not in the cache
        self.engines: list[Any] = []
        self.cache: Cache | None = None
        self.cleaned = False  # whether unused folders of the cache have been removed

    def start(self) -> Cache:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        folder, cpu = self.place()
        return Cache(None) if folder is None else Cache(folder, environment(cpu))

    def place(self) -> tuple[pathlib.Path | None, str]:
        """Where kernels of this version belong, which may not be there yet, and the CPU in full."""
        from importlib.metadata import version  # 20 ms, which import fastq need not pay

        import llvmlite
        import llvmlite.binding as llvm

        folder, cpu = root(), f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
        return folder and folder / stamp(version("numba"), llvmlite.__version__, cpu), cpu

    def load(self, name: str, symbols: str, code: bytes) -> Kernel:
        import llvmlite.binding as llvm

        # Each kernel has an engine. Numba numbers functions per process, so helper functions in kernels of two
        # processes may have one name; a common engine would link both kernels to the first helper.
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
            opt=3, jit=True, codemodel="jitdefault"
        )
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        self.engines.append(engine)
        return Kernel(name, engine.get_function_address(symbols.split(" ")[0]))

    def publish(self, name: str, kernel: Kernel) -> None:
        """Let all threads have a kernel."""
        self.kernels = {**self.kernels, name: kernel}


_compiler = _Compiler()


Make = Callable[[], tuple[Any, type[Job]]]


def kernel(name: str, make: Make, keep: bool = True, builtin: bool = True) -> Kernel:
    """The kernel of this name: from memory, from the cache, or compiled now.

    Parameters
    ----------
    name : str
        Unique name, and a valid file name. All parameters that `make` is closed over must show in it.
    make : callable
        Gives the ``@kernel_function`` and the job class that it takes. Called only when the kernel must be compiled.
    keep : bool
        Whether to store it in the cache.
    builtin : bool
        False for a kernel with a user's function in it, which may call every function that the process has.
    """
    return _compiler.kernels.get(name) or kernels((name, make, keep, builtin))[0]


def kernels(*entries: tuple[str, Make, bool, bool]) -> list[Kernel]:
    """Several kernels, each as :func:`kernel` takes it; what must be compiled is compiled side by side.

    Begin with the one that takes LLVM longest.
    """
    known = [_compiler.kernels.get(name) for name, *_ in entries]
    if all(known):  # without the lock, which a thread may hold that compiles others
        return known  # type: ignore[return-value]
    with _compiler.lock:
        cache = _open_cache()
        missing = []
        for entry in entries:
            name, _, keep, _ = entry
            if name not in _compiler.kernels:
                code = cache.load(name) if keep else None
                if code is None or not all(map(_is_there, _calls(code[0]))):
                    missing.append(entry)
                else:
                    _compiler.publish(name, _compiler.load(name, *code))
        _compile(missing, cache)
        return [_compiler.kernels[name] for name, *_ in entries]


def _compile(entries: list[tuple[str, Make, bool, bool]], cache: Cache) -> None:
    """Compile, keep and load kernels."""
    begun: list[Any] = []
    notice = Notice()
    collecting = gc.isenabled()
    gc.disable()  # among Numba's many objects, the collector takes a tenth of the time and finds next to nothing
    try:
        for number, (_, make, _, _) in enumerate(entries, 1):
            text = f"fastq: compiling kernels for this CPU, once ({number} of {len(entries)}) ..."
            made = make()  # the first one imports Numba
            notice(text)
            begun.append(_begin(*made))
            notice(text)
    finally:
        if collecting:
            gc.enable()
        # Nothing is at work when the lock is given back, so a fork finds no thread in LLVM.
        _wait(begun)
        notice.close()
    for (name, _, keep, builtin), compilation in zip(entries, begun):
        code = _checked(name, compilation, builtin)
        _compiler.compiled = (*_compiler.compiled, name)
        if keep:
            cache.store(name, *code)
            if not _compiler.cleaned:
                _compiler.cleaned = True
                cache.remove_unused()
        _compiler.publish(name, _compiler.load(name, *code))


def _begin(function: Any, job: type[Job]) -> Any:
    from fastq.machine.compiling import Compilation
    from fastq.machine.ir import JobType

    return Compilation(function, (JobType(job),))


def _wait(begun: list[Any]) -> None:
    """Wait for compilations, however often a signal's handler raises.

    There is no RecursionError: no call goes deeper than Numba, which has been through.
    """
    interrupt = None
    for compilation in begun:
        while True:
            try:
                compilation.wait()
                break
            except BaseException as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt


def _calls(symbols: str) -> list[str]:
    """The functions that a kernel calls beyond those that all kernels may call, from its symbols."""
    return symbols.split(" ")[1:]


def _is_there(symbol: str) -> bool:
    """Whether this process has a function of that name; linking code that calls a missing one would end it."""
    import llvmlite.binding as llvm

    return llvm.address_of_symbol(symbol) is not None or (stack_probe.is_probe(symbol) and stack_probe.provide(symbol))


def _open_cache() -> Cache:
    with _compiler.lock:
        if _compiler.cache is None:
            _compiler.cache = _compiler.start()
        return _compiler.cache


def compiled_names() -> tuple[str, ...]:
    """The kernels that this process has compiled, in order; it loaded the others from the cache."""
    return _compiler.compiled


def loaded_names() -> tuple[str, ...]:
    """The kernels that this process has loaded or compiled, in order."""
    return tuple(_compiler.kernels)


def cache_folder() -> str:
    """Where this process keeps compiled kernels, in words."""
    folder = root() if _compiler.cache is None else _compiler.cache.folder
    return str(folder or "none (switched off, or not a folder that only this user can write to)")


def own_folder() -> pathlib.Path | None:
    """The folder of this version's kernels, which may not be there yet; None: there is no cache."""
    return _compiler.place()[0] if _compiler.cache is None else _compiler.cache.folder


def kept(name: str) -> bool:
    """Whether other processes can load this kernel from the cache."""
    return _open_cache().load(name) is not None


def _checked(name: str, compilation: Any, builtin: bool) -> tuple[str, bytes]:
    """The symbols of a kernel (its name, then the functions that it calls, separated by blanks) and its object code."""
    code, foreign = compilation.result()
    probes = {symbol for symbol in foreign if stack_probe.is_probe(symbol)}
    if missing := [symbol for symbol in probes if not _is_there(symbol)]:
        raise RuntimeError(
            f"kernel {name} must find {missing[0]} in Windows, because its frame is larger than a page; it is not "
            "there. Kernels of another instruction set may have smaller frames: set FASTQ_ISA to one that 'fastq info' "
            "shows"
        )
    refused = foreign - probes if builtin else {symbol for symbol in foreign if not _is_there(symbol)}
    if refused:
        raise RuntimeError(f"kernel {name} calls {sorted(refused)}, which is not {'allowed' if builtin else 'there'}")
    return " ".join((compilation.name, *sorted(foreign))), code


def _after_fork_in_child() -> None:
    _compiler.lock = threading.RLock()  # the code itself is memory like any other


if hasattr(os, "register_at_fork"):
    # A thread that compiles holds locks of Numba, LLVM and the import system. The child does not have that thread, so
    # these locks would stay locked for good: wait for the compilation, which takes a second at most.
    os.register_at_fork(
        before=lambda: _compiler.lock.acquire(),
        after_in_parent=lambda: _compiler.lock.release(),
        after_in_child=_after_fork_in_child,
    )
