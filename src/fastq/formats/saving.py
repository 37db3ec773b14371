"""Writing arrays and quantized arrays to one file: ``fastq.save``; :mod:`fastq.formats.own` has the layout."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.errors import shown, with_type
from fastq.formats import writer
from fastq.formats.own import KEY, VERSION, Form, to_words
from fastq.formats.safetensors import METADATA
from fastq.formats.writer import NAMES, NewFile, Tensor
from fastq.products.foreign import as_array
from fastq.qarray.array import QArray
from fastq.quant.spec import QuantSpec
from fastq.storage.metadata import Metadata

Array = npt.NDArray[Any]
Value = QArray | Array


def save(path: str | os.PathLike[str], mapping: Mapping[str, Any]) -> None:
    """Write arrays, quantized and plain, to one file of safetensors, for :func:`fastq.open`.

    Other programs read it by the library of that format. Codes are packed densely. A matrix called ``"*.weight"`` with
    scales along its last axis (groups, rows, or one scale) is written as compressed-tensors does in its format
    "pack-quantized". Whatever else an array has, fastq alone knows: it is described in the metadata of the file.

    The file appears when it is complete: after an error or an interrupt the old file is there, or none.

    Parameters
    ----------
    path : path
        The file to make, or to replace.
    mapping : mapping of str to array_like
        Arrays by name: QArrays, and what ``numpy.asarray`` takes, of the types bool, integers, floats of 8 to 64 bits
        (bfloat16, too) and complex64. Each is taken twice, one at a time, for its form and then to be written. So
        a mapping that is lazy, such as :func:`fastq.open` gives, need not fit into memory.

    Raises
    ------
    TypeError
        If a name is no string, or an array is of another type. There is no file then.
    ValueError
        If a name is one that the file needs for something else.
    OSError
        If the file cannot be written. On Windows also if the old file is mapped: by what :func:`fastq.open` gave.

    See Also
    --------
    QArray.save : a folder for one array, in the form that products use; it is mapped into memory, and not read.

    Examples
    --------
    >>> import numpy as np, fastq as fq, tempfile
    >>> w = np.random.default_rng(0).standard_normal((64, 128), np.float32)
    >>> q = fq.quantize(w, bits=4, axis=-1, group_size=32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fq.save(f"{folder}/model", {"fc.weight": q, "fc.bias": np.zeros(64)})
    ...     model = fq.open(f"{folder}/model")
    ...     list(model), model["fc.weight"].equals(q)
    ...     del model  # Windows removes no file that is mapped
    (['fc.bias', 'fc.weight'], True)
    """
    if not isinstance(mapping, Mapping):
        raise TypeError(f"mapping must be a mapping of names to arrays, such as a dict; got {with_type(mapping)}")
    forms = {name: form_of(name, checked(name, value)) for name, value in mapping.items()}
    with new_file(path, forms) as file:
        for name, value in mapping.items():
            write(file, name, checked(name, value), forms[name])


@contextmanager
def new_file(path: str | os.PathLike[str], forms: Mapping[str, Form | Tensor]) -> Generator[NewFile, None, None]:
    """A new file of arrays whose forms are known before their values are; the caller writes them part by part."""
    owners = dict[str, str]()
    tensors = []
    for name, form in forms.items():
        for tensor in form.parts(name).values() if isinstance(form, Form) else (form,):
            if tensor.name in owners:
                raise ValueError(
                    f"names of arrays must not be those of parts of others; {shown(tensor.name)} is a part of "
                    f"{shown(owners[tensor.name])} and of {shown(name)}: rename one"
                )
            owners[tensor.name] = name
            tensors.append(tensor)
    records = {name: form.record(name) for name, form in forms.items() if isinstance(form, Form)}
    own = json.dumps({"version": VERSION, "arrays": records}, separators=(",", ":"))
    with writer.new_file(path, tensors, {"format": "pt", KEY: own}) as file:  # torch's programs read files that say so
        yield file


def form_of(name: str, value: Value) -> Form | Tensor:
    """What must be known of an array before it is written."""
    if isinstance(value, QArray):
        balance = None if value.balance is None else str(value.balance.dtype)
        return Form(Metadata.of(value), _narrow(value), balance, value.order is not None)
    if value.dtype.name not in NAMES:
        raise TypeError(
            f"arrays must be of types that files of safetensors have ({', '.join(NAMES)}); got {shown(name)} of dtype "
            f"{value.dtype}"
        )
    return Tensor(name, value.dtype.name, value.shape)


def checked(name: Any, value: Any) -> Value:
    """An array of a mapping, under a name that the file can hold."""
    if not isinstance(name, str):
        raise TypeError(f"names of arrays must be strings, got {with_type(name)}")
    if name == METADATA:
        raise ValueError(f"names of arrays must not be {METADATA}, which the format has for its texts")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"names of arrays must be text that UTF-8 has, got {shown(name)}") from None
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"arrays must not have masks, which files do not hold; got {shown(name)}: take its filled()")
    return value if isinstance(value, QArray) else as_array(value, name)


def _narrow(q: QArray) -> str:
    """The type that scale and offset are written in: that of half the size, if it is the logical one and exact."""
    if q.offset is not None:  # numbers are computed in its type, and those of 16 bits are rounded twice
        return str(q.offset.dtype)
    scale = _scale(q)
    with np.errstate(over="ignore"):
        exact = np.array_equal(scale.astype(q.dtype).astype(scale.dtype), scale)
    return str(q.dtype if q.dtype.itemsize == 2 and scale.dtype == np.float32 and exact else scale.dtype)


def _scale(q: QArray) -> Array:
    return q.scale if q.axis_scale is None else q.axis_scale


def write(file: NewFile, name: str, value: Value, form: Form | Tensor) -> None:
    """Write an array of this form."""
    if not isinstance(form, Form) or not isinstance(value, QArray):
        file.write(name, np.asarray(value))
        return
    tensors = form.parts(name)
    file.write(tensors["codes"].name, words(value.codes, form.metadata.spec) if value.shape else value.codes)
    params = {"scale": _scale(value)}
    names = "zero_point", "offset", "group_scale", "balance", "order"
    params |= {part: array for part in names if (array := getattr(value, part)) is not None}
    write_parameters(file, tensors, params, form.metadata)


def words(codes: Array, spec: QuantSpec) -> Array:
    """The bit stream of codes, which have one axis or more."""
    return to_words(codes, spec.bits, -1 if spec.axis is None else spec.axis, spec.limits.low)


def write_parameters(
    file: NewFile, tensors: Mapping[str, Tensor], params: Mapping[str, Array], metadata: Metadata
) -> None:
    """Write what a quantized array has beside its codes."""
    for part, tensor in tensors.items():
        if part == "codes":
            continue
        array = np.array(metadata.shape) if part == "shape" else params[part]
        if part == "zero_point" and tensor.kind == "int32":
            array = to_words(array.astype(np.uint8), metadata.spec.bits, 0)
        file.write(tensor.name, array.astype(tensor.kind, copy=False).reshape(tensor.shape))
