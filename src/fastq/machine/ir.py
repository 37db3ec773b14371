"""What kernels are written in: Numba, plus jobs, pointers, tickets and IR functions.

``@kernel_function`` code sees a job as an object with fields, pointers that index like arrays and move with
:func:`at`, and an atomic ticket (:func:`take`). Pointers are real LLVM pointers moved by GEP: integers are never turned
into addresses, because LLVM 22 may assume such a pointer to be null-based and drop the loads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import njit, types
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, models, register_model

from fastq.machine import cpu
from fastq.machine.compiling import Pipeline
from fastq.machine.job import Job

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
P8, VOID = I8.as_pointer(), ir.VoidType()
Body = Callable[..., list[Any]]  # of a loop: what it carries on, from the index and what is carried

ELEMENTS = {
    "u8*": types.uint8,
    "i8*": types.int8,
    "i16*": types.int16,
    "u16*": types.uint16,
    "i32*": types.int32,
    "f32*": types.float32,
    "f64*": types.float64,
    "i64*": types.int64,
}

SCALARS = {"int": types.int64, "f32": types.float32, "f64": types.float64}

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    # These two would add branches that raise; kernels never raise.
    "boundscheck": False,
    "error_model": "numpy",
    # Wrappers for Python and C would call Python's API and Numba's runtime.
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": Pipeline,
}
kernel_function = njit(**_OPTIONS)


class JobType(types.Type):
    """Numba's view of a pointer to a :class:`~fastq.machine.job.Job`."""

    def __init__(self, job: type[Job]) -> None:
        self.job = job
        super().__init__(name=f"Job({job.__name__})")


@register_model(JobType)
class _JobModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: JobType) -> None:
        super().__init__(manager, fe_type, P8)


@infer_getattr
class _JobFields(AttributeTemplate):
    key = JobType

    def generic_resolve(self, value: Any, attr: Any) -> Any:  # type: ignore[override]
        kind = value.job.KINDS.get(attr)
        return None if kind is None else _numba_type(kind)


@lower_getattr_generic(JobType)
def _load_field(context, builder, typ, value, field):
    result = _numba_type(typ.job.KINDS[field])
    place = builder.gep(value, [I64(typ.job.place_of(field))])
    return builder.load(builder.bitcast(place, context.get_value_type(result).as_pointer()))


def _atomic(name: str, field: str, operation: str) -> Any:
    @intrinsic
    def atomic(typingctx, job, value):
        def codegen(context, builder, sig, args):
            place = builder.gep(args[0], [I64(sig.args[0].job.place_of(field))])
            return builder.atomic_rmw(operation, builder.bitcast(place, I64.as_pointer()), args[1], "monotonic")

        return types.int64(job, types.int64), codegen

    return atomic


take = _atomic("take", "ticket", "add")  # take(job, 1): the next block of work, 0, 1, 2, ... over all threads
arrive = _atomic("arrive", "arrivals", "add")  # arrive(job, 1): a number for this thread
report = _atomic("report", "status", "or")  # report(job, bits): set bits of the status


@intrinsic
def at(typingctx, pointer, index):
    """The pointer moved by `index` elements."""

    def codegen(context, builder, sig, args):
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), codegen


@intrinsic
def is_null(typingctx, pointer):
    """Whether an optional field was left out."""

    def codegen(context, builder, sig, args):
        return builder.icmp_unsigned("==", args[0], ir.Constant(args[0].type, None))

    return types.boolean(pointer), codegen


def stack(size: int, kind: str = "u8*") -> Any:
    """An intrinsic that gives a pointer to `size` bytes on the stack, aligned to a cache line."""
    target = types.CPointer(ELEMENTS[kind])

    @intrinsic
    def room(typingctx):
        def codegen(context, builder, sig, args):
            with builder.goto_entry_block():
                memory = builder.alloca(ir.ArrayType(I8, size))
                memory.align = cpu.CACHE_LINE
            return builder.bitcast(memory, context.get_value_type(target))

        return target(), codegen

    return room


def constant(kind: str, value: float) -> Any:
    """An intrinsic that gives a float constant of kind ``"f32"`` or ``"f64"``; a literal would always be a float64."""

    @intrinsic
    def number(typingctx):
        def codegen(context, builder, sig, args):
            return ir.Constant(context.get_value_type(sig.return_type), value)

        return SCALARS[kind](), codegen

    return number


@intrinsic
def type_like(typingctx, value, like):
    """A number converted to the type of another."""

    def codegen(context, builder, sig, args):
        return context.cast(builder, args[0], sig.args[0], sig.return_type)

    return like(value, like), codegen


@intrinsic
def round_even(typingctx, value):
    """Round to the nearest integer, ties to even."""

    def codegen(context, builder, sig, args):
        return float_function(builder, "rint", args[0])

    return value(value), codegen


def cast_to(kind: str) -> Any:
    """An intrinsic that views a pointer as one to elements of `kind`, such as ``"i32*"``."""
    target = types.CPointer(ELEMENTS[kind])

    @intrinsic
    def cast(typingctx, pointer):
        def codegen(context, builder, sig, args):
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(pointer), codegen

    return cast


def _numba_type(kind: str | type[Job]) -> types.Type:
    if kind in SCALARS:
        return SCALARS[kind]
    return types.CPointer(ELEMENTS[kind]) if isinstance(kind, str) else JobType(kind)


def field(b: ir.IRBuilder, job: type[Job], pointer: Any, name: str) -> Any:
    """Load a field of a job inside an IR function."""
    kind = job.KINDS[name]
    result = {"int": I64, "f32*": F32.as_pointer(), "f64*": F64.as_pointer(), "i32*": I32.as_pointer()}.get(kind, P8)
    return b.load(b.bitcast(b.gep(pointer, [I64(job.place_of(name))]), result.as_pointer()))


class Target(NamedTuple):
    """What an IR function is compiled for: an LLVM CPU name and features; both empty for the host as LLVM sees it.

    Both are needed. Features alone are added to what the host's CPU has, and a CPU alone to the host's features; either
    way an "AVX2" function would get AVX-512 instructions.
    """

    cpu: str = ""
    features: str = ""


HOST = Target()


def ir_function(name: str, kinds: tuple[str | type[Job], ...], target: Target, emit: Callable[..., None]) -> Any:
    """Wrap an IR builder as a function that kernel code can call.

    Parameters
    ----------
    name : str
        Unique name of the function; it must tell every parameter that `emit` was closed over.
    kinds : tuple
        Kinds of the arguments: ``"int"``, ``"f32"``, ``"f64"``, pointer kinds such as ``"u8*"``, or a job class.
    target : Target
        An attribute of the emitted function, so the code does not depend on what LLVM believes of the host.
    emit : callable
        ``emit(builder, *arguments)`` writes the body and leaves the builder where the function returns.
    """
    numba_kinds = [_numba_type(kind) for kind in kinds]

    def call(typingctx, *args):
        def codegen(context, builder, sig, values):
            module = builder.module
            function = module.globals.get(name)
            if function is None:
                function = _define(module, name, [context.get_value_type(t) for t in numba_kinds], target, emit)
            builder.call(function, values)
            return context.get_dummy_value()

        return types.void(*numba_kinds), codegen

    # Numba would pass *args as one tuple; a signature with as many names makes them plain arguments.
    names = ["typingctx", *(f"arg{i}" for i in range(len(kinds)))]
    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return intrinsic(call)


def _define(module: ir.Module, name: str, arg_types: list[ir.Type], target: Target, emit: Callable[..., None]) -> Any:
    function = ir.Function(module, ir.FunctionType(VOID, arg_types), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    for attribute, value in (("target-cpu", target.cpu), ("target-features", target.features)):
        if value:  # llvmlite knows only a fixed list of attribute names; the set underneath takes any text
            set.add(function.attributes, f'"{attribute}"="{value}"')
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    emit(builder, *function.args)
    builder.ret_void()
    return function


def loop(
    b: ir.IRBuilder, start: Any, stop: Any, step: int, carried: list[Any], body: Body, short: bool = False
) -> list[Any]:
    """Emit ``for i in range(start, stop, step): carried = body(i, carried)`` and return the last `carried`.

    `short`: it takes a few turns, for what vectors leave over. LLVM leaves it as it is on NEON, where it would spill.
    """
    before = b.block
    block, done = b.append_basic_block("loop"), b.append_basic_block("done")
    b.cbranch(b.icmp_signed("<", start, stop), block, done)
    b.position_at_end(block)
    i = b.phi(start.type)
    phis = [b.phi(v.type) for v in carried]
    i.add_incoming(start, before)
    for phi, value in zip(phis, carried):
        phi.add_incoming(value, before)
    results = body(i, phis)
    following = b.add(i, start.type(step), flags=["nsw"])
    i.add_incoming(following, b.block)
    for phi, value in zip(phis, results):
        phi.add_incoming(value, b.block)
    after = b.block
    back = b.cbranch(b.icmp_signed("<", following, stop), block, done)
    if short and cpu.short_vectors():
        back.set_metadata("llvm.loop", _as_it_is(b.module))
    b.position_at_end(done)
    return joined(b, [(carried, before), (results, after)])


def _as_it_is(module: ir.Module) -> Any:
    """Metadata of a loop that is neither vectorized nor unrolled: they refer to themselves, and so to one loop."""
    words = [("llvm.loop.vectorize.enable", I1(0)), ("llvm.loop.unroll.disable",)]
    hints = [module.add_metadata([ir.MetaDataString(module, word), *value]) for word, *value in words]
    loop_id = module.add_metadata([*hints, I64(len(module.metadata))])
    loop_id.operands = (loop_id, *hints)
    return loop_id


def splat(b: ir.IRBuilder, value: Any, n: int) -> Any:
    """A vector of `n` copies of a scalar."""
    vector = ir.VectorType(value.type, n)
    one = b.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
    return b.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, n), None))


def load_vector(b: ir.IRBuilder, pointer: Any, vector: ir.Type) -> Any:
    """Load a vector, or a scalar, from an address of any alignment."""
    return b.load(b.bitcast(pointer, vector.as_pointer()), align=1)


def load_at(b: ir.IRBuilder, pointer: Any, index: Any, value_type: ir.Type) -> Any:
    """The element, or the vector that begins at an element; `pointer` may be of any type, `index` counts elements."""
    element = getattr(value_type, "element", value_type)
    return load_vector(b, b.gep(b.bitcast(pointer, element.as_pointer()), [index]), value_type)


def store_vector(b: ir.IRBuilder, value: Any, pointer: Any) -> None:
    """Store a vector at an address of any alignment."""
    b.store(value, b.bitcast(pointer, value.type.as_pointer()), align=1)


def declare(b: ir.IRBuilder, name: str, result: ir.Type, args: list[ir.Type]) -> Any:
    """The declaration of an LLVM intrinsic in the module that is being built."""
    return b.module.globals.get(name) or ir.Function(b.module, ir.FunctionType(result, args), name)


def prefetch(b: ir.IRBuilder, place: Any, locality: int) -> None:
    """Fetch the cache line of an address, to be read; `locality` is LLVM's: 3 for the L1 cache, 2 for L2."""
    fetch = declare(b, "llvm.prefetch.p0", VOID, [P8, I32, I32, I32])
    b.call(fetch, [place, I32(0), I32(locality), I32(1)])


def shaped(element: ir.Type, like: ir.Type) -> ir.Type:
    """The element type, in a vector as long as `like` if that is a vector."""
    return ir.VectorType(element, like.count) if isinstance(like, ir.VectorType) else element


def filled(value_type: ir.Type, number: float) -> ir.Constant:
    """A constant: the number, in every lane of a vector."""
    return ir.Constant(value_type, [number] * value_type.count if isinstance(value_type, ir.VectorType) else number)


def float_function(b: ir.IRBuilder, name: str, value: Any) -> Any:
    """LLVM's ``rint``, ``fabs`` and the like of a float or a vector of floats."""
    kind = {F32: "f32", F64: "f64"}[getattr(value.type, "element", value.type)]
    lanes = f"v{value.type.count}" if isinstance(value.type, ir.VectorType) else ""
    return b.call(declare(b, f"llvm.{name}.{lanes}{kind}", value.type, [value.type]), [value])


def any_lane(b: ir.IRBuilder, lanes: Any) -> Any:
    """Whether a vector of I1 holds a 1."""
    # On x86 the lanes become bits of one register (movmskps and its kin).
    bits = b.bitcast(lanes, ir.IntType(lanes.type.count))
    return b.icmp_unsigned("!=", bits, bits.type(0))


def reduced(b: ir.IRBuilder, combine: Callable[[Any, Any], Any], vector: Any) -> Any:
    """``combine`` over the lanes: the lower half with the upper half, until one lane is left.

    The order is part of the result where floats are added. One lane after the other took longer than the rest of a pass
    over 64 elements.
    """
    while vector.type.count > 1:
        half = ir.VectorType(I32, vector.type.count // 2)
        low, high = (ir.Constant(half, list(range(start, start + half.count))) for start in (0, half.count))
        vector = combine(b.shuffle_vector(vector, vector, low), b.shuffle_vector(vector, vector, high))
    return b.extract_element(vector, I32(0))


def joined(b: ir.IRBuilder, branches: list[tuple[list[Any], Any]]) -> list[Any]:
    """Of ``(values, block)`` per branch, the values of the branch that was taken."""
    results = []
    for values in zip(*(values for values, _ in branches)):
        phi = b.phi(values[0].type)
        for value, (_, block) in zip(values, branches):
            phi.add_incoming(value, block)
        results.append(phi)
    return results


def replaced_if(
    b: ir.IRBuilder, condition: Any, values: list[Any], emit: Callable[[], list[Any]], likely: bool | None = None
) -> list[Any]:
    """``emit()`` where the condition holds, else `values`."""
    before = b.block
    with b.if_then(condition, likely=likely):
        others, after = emit(), b.block
    return joined(b, [(values, before), (others, after)])


def either(
    b: ir.IRBuilder, condition: Any, then: Callable[[], list[Any]], otherwise: Callable[[], list[Any]]
) -> list[Any]:
    """``then()`` where the condition holds, else ``otherwise()``."""
    results = []
    with b.if_else(condition) as branches:
        for branch, emit in zip(branches, (then, otherwise)):
            with branch:
                results.append((emit(), b.block))
    return joined(b, results)
