"""A user's scalar function in the epilogue.

It is compiled with NumPy's rules for division by zero (infinity or NaN, no exception), inlined into a loop over the
tile, and vectorized by LLVM where that can be done. What it raises all the same is reported in the job's status.
"""

from __future__ import annotations

from typing import Any

import numba
from numba import types
from numba.extending import intrinsic

from fastq.kernels.epilogue.outputs import Output
from fastq.kernels.jobs import RAISED
from fastq.machine.ir import kernel_function, report


def compiled(function: Any, kind: str) -> Any:
    """The function as Numba's dispatcher, compiled for float32 or float64; raises TypeError where it does not fit."""
    # Not in parallel either: kernels run on our own threads, and Numba's layers may end the process.
    options = {**function.targetoptions, "error_model": "numpy", "boundscheck": False, "parallel": False}
    options.pop("nopython", None)
    dispatcher = numba.njit(**options)(function.py_func)
    wanted = (getattr(types, kind),)
    try:
        dispatcher.compile(wanted)
    except (numba.core.errors.NumbaError, TypeError) as error:
        raise TypeError(f"epilogue must be a function of one {kind} that Numba can compile: {error}") from error
    result = dispatcher.overloads[wanted].signature.return_type
    if not isinstance(result, types.Float | types.Integer | types.Boolean):
        raise TypeError(f"epilogue must return a number, got {result} for a {kind}")
    return dispatcher


def each(output: Output) -> Any:
    """``each(job, values, n)``: apply the function of an output in place."""
    dispatcher = compiled(output.function, output.computed)
    overload = dispatcher.overloads[getattr(types, output.computed),]

    @intrinsic
    def call(typingctx, value):
        def codegen(context, builder, sig, args):
            function = context.declare_function(builder.module, overload.fndesc)
            context.active_code_library.add_linking_library(overload.library)
            target = overload.signature.return_type
            # Not context.call_internal, which would pass an exception on and leave the tile half done.
            status, result = context.call_conv.call_function(builder, function, target, sig.args, args)
            number = context.cast(builder, result, target, sig.args[0])
            return context.make_tuple(builder, sig.return_type, (number, status.is_error))

        return types.Tuple((value, types.boolean))(value), codegen

    apply: Any = call

    def each_value(job: Any, values: Any, n: Any) -> None:
        failed = False
        for i in range(n):
            values[i], wrong = apply(values[i])
            failed |= wrong
        if failed:
            report(job, RAISED)

    return kernel_function(each_value)
