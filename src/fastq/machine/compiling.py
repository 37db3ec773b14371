"""From kernel functions to object code: Numba's front end, then LLVM.

Numba turns a kernel, and every function that it calls, into LLVM's language. That holds the GIL and takes half of the
time. By default Numba then optimizes and compiles each function by itself, and once more inside of its callers. Here
LLVM gets the kernel with all that it calls, once, on a thread of its own: while it is at one kernel, Numba is at the
next. (A process per kernel would import and prepare Numba for 0.8 s first, which is as long as a kernel takes.)

The first product of float32 in an empty cache, by AVX2, takes 4.3 s of CPU time, imports included, where it took 6.2:
1.7 s are Numba's front end, 1.3 s LLVM, beside it, and 0.6 s Numba's imports. Leaving out 14 of Numba's 27 passes
gained 0.1 s, LLVM's level 2 instead of 3 less than 0.1 s, and no loop vectorizer 0.15 s of LLVM's time. By kernel, in
seconds (AVX2; the front end while the garbage collector was at work, which took a seventh of it):

    kernel             front end   LLVM: passes   machine code
    quantize columns        0.32           0.11           0.12
    pool, three             0.04           0.01           0.02
    right pack              0.72           0.17           0.11
    gemm                    0.32           0.33           0.27
    left floats             0.79           0.22           0.24

The front end takes a fifth of its time for typing, another for the lowering of operators and calls, an eighth each for
liveness after each pass and for the text of modules.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import threading
from typing import Any

import llvmlite.binding as llvm
from llvmlite.binding import ffi
from numba.core import cgutils
from numba.core import config as numba_config
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.llvm_bindings import create_pass_builder
from numba.core.registry import cpu_target
from numba.np import linalg

from fastq.machine import stack_probe
from fastq.machine.arm import ABORTING

ALLOWED_CALLS = frozenset({"memcpy", "memset", "memmove"})
config: Any = numba_config  # its names are made at run time


class _Modules(JITCodeLibrary):
    """What Numba makes of one function: text in LLVM's language, not optimized yet."""

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self.texts: list[str] = []

    def add_ir_module(self, module: Any) -> None:
        self.texts.append(cgutils.normalize_ir_text(str(module)))

    def finalize(self) -> None:
        self._finalized = True


class Pipeline(CompilerBase):
    """Numba's pipeline up to LLVM's language; ``numba.njit`` takes it as ``pipeline_class``."""

    def define_pipelines(self) -> list[Any]:
        """Numba's usual passes, of which the last finds another library to put its result into."""
        state = self.state
        state.library = _Modules(state.targetctx.codegen(), state.func_id.func_qualname)
        # Python cannot call it. Numba's functions find each other by this object, which must be a builtin function. The
        # context is this compilation's own.
        state.targetctx.get_executable = lambda library, *rest: library.texts.copy
        return [DefaultPassBuilder.define_nopython_pipeline(state)]


def _prepare_numba() -> None:
    """What Numba does before its first compilation, for a CPU that LLVM can compile for, but for importing SciPy.

    Numba imports SciPy only to see whether it is there, and once more where it needs it. It takes 0.25 s.
    """
    with global_compiler_lock:
        if config.CPU_NAME is None and llvm.get_host_cpu_name() in ABORTING:
            config.CPU_NAME = "generic"
        if "numba.np.arraymath" in sys.modules or importlib.util.find_spec("scipy") is None:
            return
        usual = linalg.ensure_blas
        linalg.ensure_blas = lambda: None
        try:
            cpu_target.target_context.refresh()
        finally:
            linalg.ensure_blas = usual


class Compilation:
    """A kernel on its way to object code: LLVM is at work from the moment that this is made."""

    def __init__(self, dispatcher: Any, signature: tuple[Any, ...]) -> None:
        _prepare_numba()
        dispatcher.compile(signature)
        result = dispatcher.overloads[signature]
        self.name = result.fndesc.llvm_func_name
        self._texts = _texts(result.library, {})
        self._error: BaseException | None = None
        self._made: tuple[bytes, set[str]] | None = None
        self._thread = threading.Thread(target=self._run, name="fastq-llvm")
        try:
            self._thread.start()
        except RuntimeError:  # out of threads, or the interpreter is shutting down
            self._run()

    def wait(self) -> None:
        """Until LLVM is done."""
        if self._thread.ident is not None:
            self._thread.join()

    def result(self) -> tuple[bytes, set[str]]:
        """The object code, and the functions that it calls beyond :data:`ALLOWED_CALLS`."""
        self.wait()
        if self._error is not None:
            raise self._error
        assert self._made is not None
        return self._made

    def _run(self) -> None:
        try:
            self._made = _object_code(self.name, self._texts)
        except BaseException as error:
            self._error = error


def _texts(library: Any, seen: dict[int, Any]) -> list[str]:
    """The modules of a function and of those that it calls."""
    if id(library) in seen:
        return []
    seen[id(library)] = library
    if not isinstance(library, _Modules):  # a user's function, or one that Numba brings; it holds those that it calls
        return [str(library._get_module_for_linking())]
    return library.texts + [text for other in library._linking_libraries for text in _texts(other, seen)]


def _object_code(name: str, texts: list[str]) -> tuple[bytes, set[str]]:
    codegen = cpu_target.target_context.codegen()
    options = {"opt": config.OPT}
    codegen._customize_tm_options(options)
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(**options)
    context = llvm.create_context()  # LLVM's threads need one each
    module, *others = (llvm.parse_assembly(text, context) for text in texts)
    for other in others:
        module.link_in(other)
    module.verify()
    for value in (*module.functions, *module.global_variables):
        if value.name != name and not value.is_declaration:
            value.linkage = "internal"
    builder = create_pass_builder(machine, config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE)
    _without_lock(ffi.lib.LLVMPY_RunNewModulePassManager)(builder.getModulePassManager(), module, builder)
    functions = {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}
    code = _emitted(machine, module)
    return code, (functions - ALLOWED_CALLS) | stack_probe.asked_for(code)


def _emitted(machine: Any, module: Any) -> bytes:
    """``machine.emit_object(module)``."""
    with ffi.OutputString() as error:
        buffer = _without_lock(ffi.lib.LLVMPY_TargetMachineEmitToMemory)(machine, module, 1, error)
        if not buffer:
            raise RuntimeError(str(error))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def _without_lock(function: Any) -> Any:
    """A function of LLVM. llvmlite lets one thread at a time into LLVM, and LLVM one thread into each context.

    If llvmlite changes, so that the function behind the lock is not found, kernels compile one after the other.
    """
    return getattr(function, "_cfn", function)
