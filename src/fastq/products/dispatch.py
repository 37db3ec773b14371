"""The way of a product: dispatch, check, prepare, run.

All arguments of users are checked here, once; the engine and the kernels below trust them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.engine.memory import empty
from fastq.engine.prepared import all_at_once
from fastq.errors import with_type
from fastq.products import repeated
from fastq.products.foreign import as_array, has_own_products, is_dask
from fastq.products.operands import Operand
from fastq.products.task import Extras, Task
from fastq.products.ufunc import UfuncOptions, call, wrapped
from fastq.promotion import EIGHT_BIT, deliverable, in_place, output_type
from fastq.scheme import ACTIVATIONS, ROW
from fastq.validation import check_bits, check_dtype, data_type, word

if TYPE_CHECKING:
    from typing_extensions import Unpack

Array = npt.NDArray[Any]

_WRITTEN_AS_IT_IS = {("float32", "float16"), ("int32", "int64")}  # product and `out`


def arrays(a: Any, b: Any) -> tuple[Any, Any]:
    """Operands as arrays, unless they are quantized arrays."""
    return _array("a", a), _array("b", b)


def _array(name: str, x: Any) -> Any:
    if type(x) is np.ndarray or isinstance(x, Operand):
        return x
    if is_dask(x):
        raise TypeError(f"{name} must be an array in memory here, got one of Dask; compute() it first")
    return as_array(x, name)


def natural_type(a: Any, b: Any) -> np.dtype[Any] | None:
    """The type of the product of such operands; None where NumPy computes it."""
    return output_type(a.dtype, b.dtype, (isinstance(a, Operand), isinstance(b, Operand)))


def of_floats(a: Any, b: Any, extras: Extras) -> Task:
    """A product of floats by rows, whatever the operands are."""
    a, b = arrays(a, b)
    if extras.activations is not None:
        word(extras.activations, "activations", ACTIVATIONS)
    if needs_turning(a, b, extras.activations):
        raise ValueError(
            'activations must be "row" where floats on the right become part of a quantized product; got '
            f"{extras.activations or a.activations!r}: quantize what the product without dtype gives, or pass "
            'activations="row"'
        )
    natural = natural_type(a, b)
    if natural is None:
        raise TypeError(
            f"dtype must be left out for a product that NumPy computes, as that of {a.dtype} and {b.dtype} is"
        )
    return Task.of(a, b, extras, np.result_type(natural if natural.kind == "f" else np.float32))


def matmul(
    a: Any,
    b: Any,
    out: Any = None,
    *,
    bits: int = 8,
    bias: Any = None,
    epilogue: Any = None,
    dtype: Any = None,
    activations: str | None = None,
    **options: Unpack[UfuncOptions],
) -> Any:
    """Matrix product with quantized operands; see :func:`fastq.matmul`."""
    kind = epilogue, dtype, activations
    if type(bits) is not int:
        bits = check_bits(bits)
    if bits == 8 and not options and (result := repeated.again(a, b, out, bias, kind)) is not None:
        return result
    # Dispatch: another library's product, NumPy's, or ours.
    if isinstance(out, tuple) and len(out) == 1:
        out = out[0]
    if activations is not None:
        activations = word(activations, "activations", ACTIVATIONS)
    extras = Extras(bits, bias, epilogue, activations)
    if (result := _of_others(a, b, out, extras, dtype, options)) is not NotImplemented:
        return result
    left, right = arrays(a, b)
    natural = natural_type(left, right)
    quantized = isinstance(left, Operand) or isinstance(right, Operand)
    if natural is None or not (dtype is None or quantized or data_type(dtype).name in deliverable(natural)):
        return _of_numpy((a, b), (left, right), out, extras, dtype, options)
    # Check: shapes, types and where the result goes.
    computed = natural if dtype is None else check_dtype(dtype, natural)
    asked = call(left, right, out, natural, computed, options)
    target = asked.target
    if target is not None and (computed.name, target.dtype.name) in _WRITTEN_AS_IT_IS:
        computed = target.dtype.newbyteorder("=")
    turned = needs_turning(asked.a, asked.b, activations)
    if turned and bias is not None and asked.b.ndim > 1:
        then = "" if epilogue is None else " without the epilogue, which comes after the bias"
        raise ValueError(
            'bias must be left out where floats on the right are quantized with activations other than "row"; got '
            f"{activations or asked.a.activations!r}: add it to the product{then}"
        )
    make = Task.turned_of if turned or _better_turned(asked.a, asked.b, bias) else Task.of
    task = make(asked.a, asked.b, extras, computed)
    swapped = task.turned and asked.b.ndim > 1  # the transpose of the result is computed
    # Prepare and run; the right operand keeps what was prepared.
    place = target.mT if swapped and target is not None else target
    direct = place is not None and place.shape == task.shape and _in_place(place, computed, task)
    result = place.reshape(task.matrices) if direct and place is not None else empty(task.matrices, computed)
    prepared = task.fill(result)
    if prepared is not None and bits == 8 and not options and (out is None or dtype is not None or computed == natural):
        repeated.keep(task, prepared, kind)
    if not direct:
        result = result.reshape(task.shape)
        result = np.ascontiguousarray(result.mT) if swapped and target is None else result.mT if swapped else result
        if target is not None:
            np.copyto(target, result, casting=asked.casting)
    return wrapped(asked.restored(result if target is None else target), (a, b), out, options.get("subok", True))


def needs_turning(a: Any, b: Any, activations: str | None) -> bool:
    """Whether ``b.T @ a.T`` must be computed: only floats on the left can be quantized other than by row."""
    if not isinstance(a, Operand) or isinstance(b, Operand) or b.dtype in EIGHT_BIT:
        return False
    return (activations or a.activations) != ROW


def _better_turned(a: Any, b: Any, bias: Any) -> bool:
    """Whether the transpose ``b.T @ a.T`` is computed, which has the same bits: `a` alone is quantized, and is larger.

    As the right operand, `a` stays packed; as the left one, it is unpacked and copied into tiles by each product
    (200,000 x 384 with a vector took 770 ms, and takes 2). But `b` and the result are transposed, by NumPy. Where `a`
    is not packed, both ways take the same time at the n of the last line: 64 ms for 4096 x 4096 with 256 columns, 10 ms
    for 20,000 x 384 with 47 (AVX2, two cores).
    """
    if not isinstance(a, Operand) or isinstance(b, Operand) or len(a.shape) < 2:
        return False
    n = b.shape[-1] if b.ndim > 1 else 1
    m, k = a.shape[-2:]
    return (bias is None or b.ndim == 1) and (n == 1 or 8 * (m + k) * n <= m * k)


def _in_place(target: Array, dtype: np.dtype[Any], task: Task) -> bool:
    """Whether the product can be written where it goes, rather than copied there."""
    if task.matrices[0] != 1 or not in_place(target, task.matrices[1:], dtype):
        return False
    left = task.inputs[task.turned]
    # A product in bands reads later rows of the left operand after it has written earlier rows of the result.
    return all_at_once(task.m, task.k) or isinstance(left, Operand) or not np.may_share_memory(target, left)


def _of_others(a: Any, b: Any, out: Any, extras: Extras, dtype: Any, options: UfuncOptions) -> Any:
    """The product by another library, if an operand belongs to one that has its own; otherwise NotImplemented."""
    if {type(a), type(b), type(out)} <= {np.ndarray, type(None)}:
        return NotImplemented
    if is_dask(a) or is_dask(b):
        refused = {"out": out, "epilogue": extras.epilogue, **options}
        if names := [name for name, value in refused.items() if value is not None]:
            raise TypeError(f"{names[0]} must be left out for Dask arrays, whose product is lazy; got {names[0]}")
        lazy = importlib.import_module("fastq.interop.dask")
        return lazy.matmul(a, b, bits=extras.bits, bias=extras.bias, dtype=dtype, activations=extras.activations)
    arguments = a, b, out
    if extras.given or any(isinstance(x, Operand) for x in arguments) or not any(map(has_own_products, arguments)):
        return NotImplemented
    kind = {} if dtype is None else {"dtype": dtype}
    return numpys.matmul(a, b, out=out, **kind, **options)


def _of_numpy(
    given: tuple[Any, Any], arrays: tuple[Any, Any], out: Any, extras: Extras, dtype: Any, options: UfuncOptions
) -> Any:
    """The product as NumPy computes it. Operands are the given objects if NumPy wraps results as their type."""
    if isinstance(out, Operand):  # which NumPy would leave the product to
        raise TypeError("out must be an array, got a QArray, which is immutable")
    for name, value in (("epilogue", extras.epilogue), ("activations", extras.activations)):
        if value is not None:
            types = f"{arrays[0].dtype} and {arrays[1].dtype}"
            raise TypeError(f"{name} needs a product of floats; got {types}, which NumPy multiplies")
    a, b = (x if hasattr(type(x), "__array_wrap__") else array for x, array in zip(given, arrays))
    if extras.bias is None:
        return numpys.matmul(a, b, out=out, dtype=dtype, **options)
    if "axes" in options:
        raise TypeError("bias must be added to what fq.matmul returns, if NumPy multiplies along axes; got both")
    product = numpys.matmul(a, b, dtype=dtype, **options)
    try:
        result = np.add(product, extras.bias)
    except TypeError as error:
        raise TypeError(
            f"bias must be what a product can be added to, got {with_type(extras.bias)}: {error}"
        ) from error
    if out is None:
        return result
    np.copyto(out, result, casting=options.get("casting", "same_kind"))
    return out
