"""Quantizing a Dask array, lazily."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import dask.array as da
import numpy as np
import numpy.typing as npt

from fastq import api
from fastq.errors import shown
from fastq.interop import blocks
from fastq.interop.collection import DaskQArray, kept, whole
from fastq.layout.tiles import ceil_div
from fastq.promotion import float_type
from fastq.qarray.array import QArray, Scheme
from fastq.quant.gptq import Gptq
from fastq.quant.methods import Percentile
from fastq.quant.spec import QuantSpec
from fastq.quant.task import QuantTask


def quantize(
    x: Any,
    bits: int = 8,
    *,
    axis: int | None = None,
    group_size: int | None = None,
    scheme: Scheme = "symmetric",
    group_scale: Literal["integer", "float"] | None = None,
    method: Literal["minmax", "mse", "percentile", "gptq"] | Percentile | Gptq = "minmax",
    calibration: Any = None,
    scale: npt.ArrayLike | None = None,
    zero_point: npt.ArrayLike | None = None,
    balance: npt.ArrayLike | None = None,
    rotate: bool = False,
) -> DaskQArray:
    """Quantize a Dask array to 2 to 8 bits per element, lazily, chunk by chunk.

    The result is bit for bit that of ``fastq.quantize(x.compute(), ...)``, where the parameters are described. Where
    elements that share a scale lie in several chunks, a first pass finds the extremes of each chunk. So all chunks
    along the axis (with ``axis=None``, of the array) are held until the last one is known, or spilled to disk by
    ``dask.distributed``. A `scale` of your own saves that.

    Along an axis with groups, the ends of chunks move to multiples of the group size. What needs more than extremes
    (other methods than ``"minmax"``, `balance`, `rotate`) needs chunks that hold the whole axis: x is rechunked.

    Parameters
    ----------
    x : dask.array.Array
        Of the types that :func:`fastq.quantize` takes; the sizes of its chunks must be known.
    bits, axis, group_size, scheme, group_scale, method, calibration, scale, zero_point, balance, rotate
        See :func:`fastq.quantize`.

    Returns
    -------
    DaskQArray

    Raises
    ------
    TypeError, ValueError
        For arguments that :func:`fastq.quantize` refuses. When the result is computed, :class:`fastq.NotFiniteError` if
        a chunk holds NaN or infinity.

    Examples
    --------
    >>> import numpy as np, dask.array as da, fastq as fq
    >>> from fastq.interop.dask import quantize
    >>> w = da.from_array(np.arange(12.0).reshape(4, 3), chunks=2)
    >>> quantize(w, 3, axis=0).compute().equals(fq.quantize(w.compute(), 3, axis=0))
    True
    """
    x = known(x, "x")
    task = QuantTask.of(
        x.shape, float_type(x.dtype, "x"), bits, axis=axis, group_size=group_size, scheme=scheme,
        group_scale=group_scale, method=method, calibration=calibration, scale=scale, zero_point=zero_point,
        balance=balance, rotate=rotate,
    )  # fmt: skip
    spec, given, chosen, moment, factors = task
    axis, group, block = spec.axis, spec.group, spec.rotation
    form: dict[str, Any] = {
        "bits": spec.bits, "axis": axis, "group_size": group, "scheme": spec.scheme, "rotate": block > 1,
        "group_scale": "integer" if spec.integer else "float",
    }  # fmt: skip
    # One block of channels, quantized alike, tells what form comes out.
    ones = np.ones([block if i == axis else 1 for i in range(x.ndim)], x.dtype)
    sample = api.quantize(ones, **form, balance=None if factors is None else np.ones(block))
    if group is not None:
        x = x.rechunk({axis: whole(x.chunks[axis], group)})
    if any(x.numblocks[i] > 1 for i in (range(x.ndim) if axis is None else (axis,))):
        if chosen != "minmax" or factors is not None:
            if axis is None:
                raise ValueError(
                    f"method={shown(method)} with axis=None looks at all elements at once, so x must be one chunk; got "
                    f"{x.npartitions} chunks: give an axis, or call x.rechunk(-1)"
                )
            x = x.rechunk({axis: -1})
        elif given is None and (group is None or spec.integer):
            return kept(with_shared_scales(x, spec, sample))  # type: ignore[no-any-return]
    along = (1,) if group is None else tuple(ceil_div(n, group) for n in x.chunks[axis])
    cuts = tuple(along if axis in (None, i) else c for i, c in enumerate(x.chunks))
    parameters = [da.from_array(np.array(p), cuts) for p in given or () if p is not None]
    work = partial(blocks.quantized, method=chosen, calibration=moment, balance=factors, **form)
    return kept(da.map_blocks(work, x, *parameters, dtype=sample.dtype, meta=sample))  # type: ignore[no-any-return]


def with_shared_scales(x: Any, spec: QuantSpec, sample: QArray, name: str = "x") -> Any:
    """Quantize chunks under scales that several of them share, in two passes; see :mod:`fastq.interop.blocks`."""
    axis, group = spec.axis, spec.group
    numbers: Any = {"dtype": np.float32, "meta": np.empty((0,) * x.ndim, np.float32)}  # as far as Dask must know
    cuts = list(x.chunks)
    for i in range(x.ndim) if axis is None else (axis,):
        ends = 2 if i == (axis or 0) else 1  # the extremes of a run follow each other along this axis
        cuts[i] = tuple(ends * (1 if group is None else ceil_div(n, group)) for n in x.chunks[i])
    pairs = x.map_blocks(partial(blocks.extremes, spec=spec, name=name), chunks=tuple(cuts), **numbers)
    if group is None:
        merged = partial(blocks.merged, spec=spec)
        pairs = da.reduction(pairs, merged, merged, axis, keepdims=True, output_size=2, **numbers)
    else:
        pairs = pairs.rechunk({axis: -1})
    one = tuple((1,) if axis in (None, i) else c for i, c in enumerate(x.chunks))
    params = pairs.map_blocks(partial(blocks.parameters, spec=spec), chunks=one, **numbers)
    starts = () if axis is None else tuple(np.cumsum([0, *x.chunks[axis]]).tolist())
    work = partial(blocks.coded, spec=spec, starts=starts, name=name)
    return da.map_blocks(work, x, params, dtype=sample.dtype, meta=sample)


def known(x: Any, name: str) -> Any:
    """A Dask array whose chunks have known sizes and are not empty, unless all of it is."""
    if not isinstance(x, da.Array):
        raise TypeError(
            f"{name} must be a Dask array; got {type(x).__name__}: use fastq for arrays in memory, or da.from_array"
        )
    if any(np.isnan(n) for n in x.shape):
        raise ValueError(
            f"{name} must have chunks of known sizes; got shape {x.shape}: call {name}.compute_chunk_sizes()"
        )
    if not all(map(all, x.chunks)):
        cuts = (tuple(n for n in c if n) for c in x.chunks)
        x = x.rechunk(tuple(cuts)) if x.size else x.rechunk(-1)
    return x
