"""Compiling kernels, once, and keeping their machine code.

A kernel is an ``@njit`` function of one job pointer (see :mod:`fastq.machine.job`). Numba compiles it; what is kept, in
memory and on disk, is the object code. Loading object code takes llvmlite alone, a few milliseconds and no Numba, so
that a new process with a warm cache starts fast (0.1 s instead of the 0.6 s of Numba's own cache, most of which is
Numba's import). It also makes a kernel call cheap: a ctypes call with one pointer, which gives up the GIL.

Object code that refers to a symbol which the process lacks would end the process when it is linked. So a kernel may
call nothing but what :data:`ALLOWED_CALLS` names, and that is checked before the code is kept. What a user's function
calls besides is kept with the code, and looked for before it is linked.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Any

from fastq.machine.cache import Cache, root, stamp
from fastq.machine.job import Job

ALLOWED_CALLS = frozenset({"memcpy", "memset", "memmove"})

# Numba's calling convention: int status(return slot *, exception slot *, arguments...).
_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


# Where kernels put the None that they return, and an exception that they never raise; all threads may write there.
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
    """What belongs to one process: the LLVM engines that hold the code, the cache, the kernels by name."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.kernels: dict[str, Kernel] = {}
        self.compiled: list[str] = []  # names of kernels that were not in the cache
        self.engines: list[Any] = []
        self.cache: Cache | None = None

    def start(self) -> Cache:
        from importlib.metadata import version  # 20 ms, which import fastq need not pay

        import llvmlite
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        folder = root()
        if folder is None:
            return Cache(None)
        cpu = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
        return Cache(folder / stamp(version("numba"), llvmlite.__version__, cpu))

    def load(self, name: str, symbols: str, code: bytes) -> Kernel:
        import llvmlite.binding as llvm

        # An engine for each: Numba numbers functions per process, so in kernels that two processes compiled two helper
        # functions may go by one name, and a common engine would link the first to both.
        machine = llvm.Target.from_default_triple().create_target_machine(opt=3, jit=True, codemodel="jitdefault")
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        self.engines.append(engine)
        return Kernel(name, engine.get_function_address(symbols.split(" ")[0]))


_compiler = _Compiler()


def kernel(name: str, make: Callable[[], tuple[Any, type[Job]]], keep: bool = True, own: bool = True) -> Kernel:
    """The kernel of this name: from memory, from the cache, or compiled now.

    Parameters
    ----------
    name : str
        Unique name, a valid file name; it tells all parameters that `make` is closed over.
    make : callable
        Gives the ``@kernel_function`` and the job class that it takes. Called only when the kernel must be compiled.
    keep : bool
        Whether it belongs into the cache.
    own : bool
        False where it holds a user's function, which may call what a kernel of ours may not, if the process has it.
    """
    found = _compiler.kernels.get(name)
    if found is not None:
        return found
    with _compiler.lock:
        found = _compiler.kernels.get(name)
        if found is None:
            cache = _open_cache()
            entry = cache.load(name) if keep else None
            if entry is None or not all(map(_is_there, _calls(entry[0]))):
                entry = _compile(name, *make(), own)
                _compiler.compiled.append(name)
                if keep:
                    cache.store(name, *entry)
            found = _compiler.kernels[name] = _compiler.load(name, *entry)
    return found


def _calls(symbols: str) -> list[str]:
    """What a kernel calls beyond :data:`ALLOWED_CALLS`, from its symbols."""
    return symbols.split(" ")[1:]


def _is_there(symbol: str) -> bool:
    """Whether this process has a function of that name; to link what it lacks would end it."""
    import llvmlite.binding as llvm

    return llvm.address_of_symbol(symbol) is not None


def _open_cache() -> Cache:
    with _compiler.lock:
        if _compiler.cache is None:
            _compiler.cache = _compiler.start()
        return _compiler.cache


def compiled_names() -> tuple[str, ...]:
    """The kernels that this process had to compile, in order; the others came out of the cache."""
    return tuple(_compiler.compiled)


def loaded_names() -> tuple[str, ...]:
    """The kernels that this process has loaded or compiled, in order."""
    return tuple(_compiler.kernels)


def cache_folder() -> str:
    """Where this process keeps compiled kernels, in words."""
    folder = root() if _compiler.cache is None else _compiler.cache.folder
    return str(folder or "none (switched off, or not a folder that only this user can write to)")


def kept(name: str) -> bool:
    """Whether a kernel is in the cache, whole, for other processes to load."""
    return _open_cache().load(name) is not None


def _compile(name: str, function: Any, job: type[Job], own: bool) -> tuple[str, bytes]:
    """The symbols of a kernel, its own and those that it calls, apart by blanks, and its object code."""
    import numba

    from fastq.machine.dialect import JobType

    # Numba makes wrappers for Python and C by default; they refer to Python's API and to Numba's runtime.
    options = {**function.targetoptions, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    options.pop("nopython")  # njit says so itself
    dispatcher = numba.njit(**options)(function.py_func)
    signature = (JobType(job),)
    dispatcher.compile(signature)
    result = dispatcher.overloads[signature]
    foreign = {
        f.name for f in result.library._final_module.functions if f.is_declaration and not f.name.startswith("llvm.")
    }
    foreign -= ALLOWED_CALLS
    refused = foreign if own else {symbol for symbol in foreign if not _is_there(symbol)}
    if refused:
        raise RuntimeError(f"kernel {name} calls {sorted(refused)}, which is not {'allowed' if own else 'there'}")
    return " ".join((result.fndesc.llvm_func_name, *sorted(foreign))), result.library._get_compiled_object()


def _before_fork() -> None:
    # A thread that compiles holds locks of Numba's, LLVM's and of imports, which its absence would leave locked in the
    # child for good: let it end. It takes a second at most, and only while kernels are compiled.
    _compiler.lock.acquire()


def _after_fork_in_parent() -> None:
    _compiler.lock.release()


def _after_fork_in_child() -> None:
    _compiler.lock = threading.RLock()  # the code itself is memory like any other


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
