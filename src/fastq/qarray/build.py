"""A quantized array from codes and parameters that exist already: ``fastq.from_parts``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.operands import Array
from fastq.errors import shown
from fastq.layout.bitstream import unpack_bits
from fastq.products.foreign import as_array
from fastq.promotion import check_real, float_type
from fastq.qarray.array import QArray
from fastq.qarray.parts import put_together
from fastq.quant.affine import extremes
from fastq.quant.spec import QuantSpec, parameter_shape
from fastq.scheme import ACTIVATIONS, largest_factor
from fastq.storage.metadata import ATTRIBUTES, LOGICAL, NARROW, VERSION, must
from fastq.typed import Activations
from fastq.validation import check_axis, check_bits, check_group, data_type, integer, truth, word

Shape = tuple[int, ...]

# Integers of fewer bits than a byte, as ml_dtypes has them: NumPy does not compute in them.
_SMALL = {f"{sign}int{bits}": np.dtype(f"{sign}int8") for sign in ("", "u") for bits in (1, 2, 4)}
_WORDS = ("uint8", "int32", "uint32")


def from_parts(
    codes: npt.ArrayLike,
    scale: npt.ArrayLike,
    *,
    bits: int,
    zero_point: npt.ArrayLike | None = None,
    offset: npt.ArrayLike | None = None,
    group_scale: npt.ArrayLike | None = None,
    axis: int | None = -1,
    group_size: int | None = None,
    packed: bool = False,
    shape: tuple[int, ...] | None = None,
    order: npt.ArrayLike | None = None,
    balance: npt.ArrayLike | None = None,
    rotation: int = 1,
    dtype: npt.DTypeLike | None = None,
    activations: Activations = "row",
) -> QArray:
    """Make a quantized array of codes and parameters that exist already, such as those of another tool.

    Nothing is rounded: the array stands for ::

        x = scale * (code - zero_point)        with a zero point, which is 0 if left out
        x = scale * code + offset              with an offset

    Its scheme is "asymmetric" with a `zero_point`, "affine" with an `offset`, and otherwise "symmetric".

    Parameters
    ----------
    codes : array_like
        Integers of the array's shape: symmetric ones of a signed type, from ``-2**(bits-1)`` to ``2**(bits-1) - 1``,
        others from 0 to ``2**bits - 1``. Where codes or zero points of an asymmetric array are negative,
        ``2**(bits-1)`` is added to both. int8 and uint8 are not copied: they must not change while the result is in
        use.
    scale : array_like
        Finite numbers, negative ones and 0 too; one for each run of elements that share it, so of the shape of
        ``np.max(x, axis=axis, keepdims=True)``, or with one entry per group along the axis. What broadcasts to that
        shape will do. float16 and bfloat16 become float32, which is exact, but see `offset`.
    bits : int
        Bits per code, 2 to 8.
    zero_point : array_like, optional
        Codes that stand for 0, one per scale.
    offset : array_like, optional
        Numbers, one per scale. If both are arrays of float16, or of bfloat16, they stay so, and numbers are computed in
        that type, as NumPy and MLX do: ``scale * code`` is rounded to it, then the sum. (Not with another `dtype`, nor
        a balance. Products compute in float32 all the same.)
    group_scale : array_like, optional
        Integer scales of groups, from ``-2**(8-bits)`` to ``2**(8-bits)`` but for 0 (see :func:`fastq.quantize`). Then
        `scale` is the one that all groups along the axis share, and has length 1 there.
    axis : int, optional
        The axis along which elements share a scale; None: one scale for the whole array.
    group_size : int, optional
        How many neighbours along the axis share one (the last group may be smaller); None: all.
    packed : bool
        Whether `codes` is the dense bit stream along the axis (with ``axis=None`` the last one): code i takes the bits
        from ``i * bits`` on, lowest first, of words of uint8, int32 or uint32. There are
        ``ceil(length * bits / bits of a word)`` of them along that axis. Symmetric codes lie there as
        ``code + 2**(bits-1)``.
    shape : tuple of int, optional
        The shape of the array; needed if the number of words leaves it open.
    order : array_like, optional
        A permutation of the axis, as act-order of GPTQ makes it: what the equation gives for codes k along the axis
        stands at ``order[k]`` of the array. Products take elements of the other operand in that order.
    balance : array_like, optional
        Positive factors along the axis, of what the equation gives (see :func:`fastq.quantize`).
    rotation : int
        The size of the blocks along the axis that are mixed before that; 1: none.
    dtype : data type, optional
        The logical type: float16, bfloat16, float32 or float64; by default the type that `scale` has.
    activations : {"row", "group", "two-plane"}
        See :meth:`QArray.with_activations`.

    Returns
    -------
    QArray

    Raises
    ------
    TypeError
        For codes and zero points that are no integers, scales that are no numbers, and other wrong types.
    ValueError
        For codes out of range, shapes that do not fit, scales that are not finite, and what contradicts itself.

    See Also
    --------
    QArray.parts : the arguments that make an array anew.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> codes, scale = [[0, 15], [7, 8]], [[0.5], [2.0]]
    >>> fq.from_parts(codes, scale, bits=4, offset=[[-1.0], [0.0]]).dequantize()
    array([[-1. ,  6.5],
           [14. , 16. ]])

    Eight codes of 3 bits in a stream of 3 bytes:

    >>> stream = np.array([0x88, 0xC6, 0xFA], np.uint8)
    >>> fq.from_parts(stream, 0.5, bits=3, packed=True, shape=(8,)).codes
    array([-4, -3, -2, -1,  0,  1,  2,  3], dtype=int8)
    """
    bits = check_bits(bits)
    if zero_point is not None and offset is not None:
        raise ValueError(
            "zero_point and offset must not both be given, because each makes an equation of its own; got both"
        )
    scheme = "asymmetric" if zero_point is not None else "affine" if offset is not None else "symmetric"
    given = as_array(codes, "codes")
    whole = truth(packed, "packed")
    ndim = given.ndim
    along = check_axis(axis, ndim) if ndim else None
    if group_size is not None:
        group_size = check_group(group_size)
        if along is None:
            raise ValueError(
                f"group_size needs an axis along which to cut groups; got group_size={group_size} with axis=None"
            )
    spec = QuantSpec(bits, along, group_size, scheme, group_scale is not None, integer(rotation, "rotation", "a size"))
    wanted = None if shape is None else _lengths(shape)
    if whole:
        values = _unpacked(given, spec, wanted)
    else:
        values = _integers("codes", given)
        must(wanted is None or values.shape == wanted, f"shape must be that of codes, {values.shape}", wanted)
    zeros = None if zero_point is None else _integers("zero_point", as_array(zero_point, "zero_point"))
    values, zeros = _in_range(values, zeros, spec)
    logical, floats = _floats(scale, offset, spec, values.shape)
    arrays = {"codes": values, **floats}
    by_group = spec.parameter_shape(values.shape)
    if zeros is not None:
        name, kind = ("zeros", np.uint8) if spec.integer else ("zero_point", np.int32)
        arrays[name] = _of_shape("zero_point", zeros, by_group).astype(kind)
    if group_scale is not None:
        factors = _integers("group_scale", as_array(group_scale, "group_scale"))
        _check_range("group_scale", factors, -largest_factor(bits), largest_factor(bits))
        arrays["factors"] = _of_shape("group_scale", factors, by_group).astype(np.int8)
        _check_products(arrays, spec)
    if balance is not None or spec.rotation > 1:
        ones = np.ones(1 if along is None else values.shape[along], np.float32)
        factors = _along_axis("balance", ones if balance is None else balance, along, values.shape)
        arrays["balance"] = factors.astype(np.float64 if factors.dtype == np.float64 else np.float32)
    if order is not None:
        places = _integers("order", as_array(order, "order"))
        arrays["order"] = _along_axis("order", places, along, values.shape).astype(np.int64)
    known = (list(values.shape), logical if dtype is None else _logical(dtype), bits, scheme, along, group_size)
    attributes = dict(zip(ATTRIBUTES, (VERSION, *known, spec.rotation, False, None)))
    attributes["activations"] = word(activations, "activations", ACTIVATIONS)
    attributes[NARROW] = _narrow(scale, offset) and known[1] == logical and "balance" not in arrays
    return put_together(arrays, attributes)


def _lengths(shape: Any) -> Shape:
    lengths = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    return tuple(integer(n, "shape", "a tuple of lengths") for n in lengths)


def _integers(name: str, given: Array) -> Array:
    array = given.astype(_SMALL[given.dtype.name]) if given.dtype.name in _SMALL else given
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be of integers, got dtype {given.dtype}")
    return array


def _check_range(name: str, values: Array, low: int, high: int, advice: str = "") -> None:
    if values.size:
        least, most = int(values.min()), int(values.max())
        worst = least if least < low else most
        if not low <= worst <= high:
            raise ValueError(f"{name} must be from {low} to {high}, got {worst}{advice}")


def _unpacked(words: Array, spec: QuantSpec, shape: Shape | None) -> Array:
    """The codes in a bit stream."""
    if words.dtype.name not in _WORDS:
        raise TypeError(f"codes must be words of {', '.join(_WORDS)} if they are packed, got dtype {words.dtype}")
    if not words.ndim:
        raise ValueError("codes must have an axis along which they are packed, got a single word")
    axis, width = words.ndim - 1 if spec.axis is None else spec.axis, 8 * words.dtype.itemsize
    count, bits = words.shape[axis], spec.bits
    if shape is None:
        most = count * width // bits
        least = max(0, count - 1) * width // bits + 1 if count else 0
        if least != most:
            raise ValueError(
                f"shape must be given, because from {least} to {most} codes of {bits} bits take {count} words of "
                f"{width}; got none"
            )
        shape = (*words.shape[:axis], most, *words.shape[axis + 1 :])
    fits = len(shape) == words.ndim and min(shape, default=0) >= 0
    needed = (*shape[:axis], -(-shape[axis] * bits // width), *shape[axis + 1 :]) if fits else None
    if words.shape != needed:
        then = "" if needed is None else f", which takes words of shape {shown(needed)}"
        raise ValueError(
            f"packed codes must be a stream of {bits} bits each along axis {axis} of shape {shown(shape)}{then}; got "
            f"{words.dtype} of shape {words.shape}"
        )
    lines = np.ascontiguousarray(np.moveaxis(words, axis, -1), words.dtype.newbyteorder("<"))
    unsigned = unpack_bits(lines.view(np.uint8), bits, shape[axis])
    if spec.limits.signed:
        unsigned -= np.uint8(2 ** (bits - 1))  # wraps around below 0, where the same bits are negative as int8
    return np.moveaxis(unsigned.view(np.int8) if spec.limits.signed else unsigned, -1, axis)


def _in_range(codes: Array, zeros: Array | None, spec: QuantSpec) -> tuple[Array, Array | None]:
    """Codes in the type that they are held in, and zero points, checked; both signed ones are made unsigned."""
    limits, half = spec.limits, 2 ** (spec.bits - 1)
    low, high = limits
    if limits.signed and codes.dtype.kind == "u":
        raise TypeError(
            f"symmetric codes must be of a signed type, got dtype {codes.dtype}: pass zero_point={half} if they count "
            f"from 0, or codes.astype(np.int8) if they are from {low} to {high}"
        )
    signed = zeros is not None and any(v.size and v.dtype.kind == "i" and v.min() < 0 for v in (codes, zeros))
    if signed:
        low, high = low - half, high - half
    _check_range("codes", codes, low, high, f" with bits={spec.bits} and scheme {spec.scheme}")
    kind = np.int8 if limits.signed else np.uint8
    codes = (codes.astype(np.int16) + half).astype(kind) if signed else codes.astype(kind, copy=False)
    if zeros is None:
        return codes, None
    _check_range(
        "zero_point", zeros, low, high, ", no code; pass offset=-scale * zero_point, which is exact for float16 scales"
    )
    return codes, zeros.astype(np.int32) + (half if signed else 0)


def _floats(scale: Any, offset: Any, spec: QuantSpec, shape: Shape) -> tuple[str, dict[str, Array]]:
    """The name of the type that the scale has; scale and offset in the type that they are held in."""
    given = {"scale": as_array(scale, "scale")}
    held = float_type(given["scale"].dtype, "scale")
    name = given["scale"].dtype.name
    logical = name if name in LOGICAL else held.name
    if offset is not None:
        given["offset"] = as_array(offset, "offset")
        number = isinstance(offset, int | float)  # takes the scale's type, as numbers do in NumPy
        held = held if number else np.result_type(held, float_type(given["offset"].dtype, "offset"))
    of_scale = parameter_shape(shape, spec.axis, None if spec.integer else spec.group)
    with np.errstate(over="ignore"):
        return logical, {name: _of_shape(name, v, of_scale).astype(held) for name, v in given.items()}


def _narrow(*given: Any) -> bool:
    """Whether scale and offset are arrays of one type of 16 bits."""
    kinds = {str(getattr(values, "dtype", None)) for values in given}
    return len(kinds) == 1 and kinds <= set(LOGICAL[:2])


def _of_shape(name: str, values: Array, shape: Shape) -> Array:
    """Parameters, one for each run that shares them; a copy."""
    try:
        whole = np.broadcast_to(values.reshape((1,) * len(shape)) if values.size == 1 else values, shape)
    except ValueError:
        raise ValueError(
            f"{name} must have one entry per run of elements that share it, shape {shape}; got shape {values.shape}"
        ) from None
    return np.array(whole, order="C")


def _check_products(arrays: dict[str, Array], spec: QuantSpec) -> None:
    """That integer scales times codes minus zero points fit int8, as kernels multiply them."""
    factors, zeros = arrays["factors"], arrays.get("zeros")
    if zeros is None or not spec.group:
        return  # of symmetric codes all are possible; or there is another error to come
    must((factors > 0).all(), "group_scale must be positive where there is a zero_point", factors.min(initial=1))
    lowest, highest = (end.astype(np.int64) - zeros for end in extremes(arrays["codes"], spec))
    most = max(int((factors * highest).max(initial=0)), -1 - int((factors * lowest).min(initial=0)))
    must(most <= 127, "group_scale * (codes - zero_point) must fit int8", most)


def _along_axis(name: str, given: Any, axis: int | None, shape: Shape) -> Array:
    """Values along the axis, in a shape that broadcasts to that of the array."""
    if axis is None:
        raise ValueError(f"{name} needs the axis along which it lies; got {name} with axis=None")
    values = as_array(given, name)
    check_real(values, name)
    spread = tuple(n if i == axis else 1 for i, n in enumerate(shape))
    if values.shape not in ((shape[axis],), spread):
        raise ValueError(
            f"{name} must have one entry per element of axis {axis}, shape ({shape[axis]},); got shape {values.shape}"
        )
    return values.reshape(spread)


def _logical(dtype: Any) -> str:
    name = "bfloat16" if isinstance(dtype, str) and dtype == "bfloat16" else data_type(dtype).name
    if name not in LOGICAL:
        raise TypeError(f"dtype must be one of {', '.join(LOGICAL)}, got {shown(dtype)}")
    return name
