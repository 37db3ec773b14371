"""Quantizing a whole model: one array after the other, in memory or from file to file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy.typing as npt

from fastq.errors import shown, with_type
from fastq.formats import blocks, saving
from fastq.formats.opening import open
from fastq.formats.own import Form
from fastq.models.result import QuantizedModel, Report
from fastq.models.rules import Decision, Rules, called, seen
from fastq.progress import Mebibytes, by_part, watched
from fastq.promotion import float_type
from fastq.qarray.array import Scheme
from fastq.qarray.of_task import of_task
from fastq.quant.gptq import Gptq
from fastq.quant.methods import Percentile
from fastq.quant.moment import SecondMoment
from fastq.scheme import SCHEMES
from fastq.storage import out_of_core
from fastq.storage.maps import map_of
from fastq.validation import truth, word

Numbers = int | None
By = Numbers | Mapping[str, Numbers] | Callable[[str], Numbers]  # one for all, by patterns of names, by a function
Names = str | Sequence[str] | Callable[[str], bool] | None
OneMethod = Literal["minmax", "mse", "percentile", "gptq"] | Percentile | Gptq
Methods = OneMethod | Mapping[str, OneMethod] | Callable[[str], OneMethod]
Moments = Mapping[str, SecondMoment | npt.ArrayLike] | Callable[[str], SecondMoment | npt.ArrayLike | None] | None
Tell = Callable[[int, int], Any] | None
Steps = Iterator[tuple[str, Any, Decision, Tell]]  # an array, what is to become of it, and whom to tell of its share


def quantize_all(
    mapping: Mapping[str, Any],
    *,
    bits: By = 8,
    axis: By = -1,
    group_size: By = None,
    scheme: Scheme = "symmetric",
    group_scale: Literal["integer", "float"] | None = None,
    method: Methods = "minmax",
    calibration: Moments = None,
    include: Names = None,
    exclude: Names = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool | Callable[[int, int], Any] | None = None,
) -> QuantizedModel:
    """Quantize the weights of a whole model, in memory or from file to file.

    An array is quantized if it is of floats and has two axes or more, 4,096 elements or more, and 32 or more along
    `axis`. All others stay as they are: vectors, integers, small matrices, what is quantized already. Names are not
    looked at: embeddings are matrices like others; `exclude` leaves them out. The report tells for each array what was
    done, or why nothing was.

    `bits`, `axis`, `group_size` and `method` are one value for all arrays, a mapping of patterns to values, or a
    function of the name; `calibration` is one of the latter two. Patterns are those of ``fnmatch``, such as
    ``"*.mlp.*"``. Of several, the name itself comes first, then the first that fits; where none fits, the default
    holds, and without `bits` an array stays as it is. A pattern that fits no name is an error.

    Parameters
    ----------
    mapping : mapping of str to array_like
        The arrays, such as a dict, what :func:`fastq.open` gives, or the file of ``numpy.load``. Each is taken twice,
        one at a time, for its form and then to be quantized.
    bits : int, mapping or function
        2 to 8; None: the array stays as it is.
    axis : int, mapping or function
        -1 for weights (N, K) of ``x @ q.T``, as torch's layers have them; 0 for weights (K, N) of ``x @ q``.
    group_size, method : optional, each a value, mapping or function
        As in :func:`fastq.quantize`.
    calibration : mapping or function, optional
        The input of each product, as in :func:`fastq.quantize`: ``{"layer.weight": moment}``. A function is asked twice
        for each array, first to check what it gives, and then to use it; so only one K x K moment is in memory.
    scheme, group_scale : optional
        As in :func:`fastq.quantize`, for all arrays. With ``group_scale="float"``, others can read groups in the file.
    include, exclude : str, sequence of str, or function, optional
        Patterns of names, or a function that says yes or no. What is included is quantized even if it is small, if it
        is of floats and has two axes or more. What is excluded is not.
    out : path, optional
        Write the model to this file, as :func:`fastq.save` does, in bounded memory: an array of 32 MiB or more is
        quantized block by block (see the notes of :func:`fastq.quantize`), with its scales in memory. A smaller one, or
        one that the mapping does not have as a memory map, is in memory as a whole.
    progress : bool or callable, optional
        None: a line on stderr, if that is a terminal. True: always. A function is called as ``progress(done, total)``,
        in bytes of the mapping's arrays.

    Returns
    -------
    mapping
        Names to :class:`fastq.QArray` or ``numpy.ndarray``: in memory or, with `out`, what :func:`fastq.open`
        gives of the file. Its attribute `report`, a tuple, prints as a table; its rows have `name`, `shape`,
        `quantized`, `what` (how it was quantized, or why it was not) and the bytes `before` and, in a file, `after`.

    Raises
    ------
    TypeError
        If an argument is of a wrong type.
    ValueError
        If an argument is out of range, fits no name, or does not fit an array, which the message names. As
        :class:`fastq.NotFiniteError` if an array holds NaN or infinity. There is no new file then.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> rng = np.random.default_rng(0)
    >>> up, head = rng.standard_normal((256, 64)), rng.standard_normal((64, 256))
    >>> model = {"up.weight": up, "up.bias": np.zeros(256), "head": head}
    >>> bits, groups = {"head": 8, "*": 4}, {"up.*": 32}
    >>> small = fq.quantize_all(model, bits=bits, group_size=groups)
    >>> small.report
    up.weight  256 x 64  128.0 KiB -> 10.5 KiB  4 bits, groups of 32, axis 1, minmax
    up.bias    256       2.0 KiB                stays: a vector
    head       64 x 256  128.0 KiB -> 16.5 KiB  8 bits, axis 1, minmax
    2 of 3 arrays quantized: 258.0 KiB -> 29.0 KiB, 11.2%
    >>> small["head"].bits
    8
    """
    if not isinstance(mapping, Mapping):
        raise TypeError(f"mapping must be a mapping of names to arrays, such as a dict; got {with_type(mapping)}")
    settings = {"bits": bits, "axis": axis, "group_size": group_size, "method": method, "calibration": calibration}
    common = {"scheme": word(scheme, "scheme", SCHEMES), "group_scale": group_scale}
    names = [name for name in mapping if isinstance(name, str)]  # the others are refused when their turn comes
    rules = Rules(names, settings, common, include, exclude, to_file=out is not None)
    decisions = {name: rules.decide(name, saving.checked(name, value)) for name, value in mapping.items()}
    total = sum(decision.row.before for decision in decisions.values())
    tell = _teller(progress, total)
    try:
        steps = _steps(mapping, rules, decisions, tell)
        arrays = _in_memory(steps) if out is None else _to_file(out, decisions, steps)
    except BaseException:
        if isinstance(tell, Mebibytes):
            tell.line.close()
        raise
    return QuantizedModel(arrays, Report(decision.row for decision in decisions.values()))


def _teller(progress: Any, total: int) -> Tell:
    """What is told of the progress: a user's function, a line on stderr, or nothing."""
    if progress is None:
        progress = watched() and total >= out_of_core.IN_ONE_GO
    return progress if callable(progress) else Mebibytes("quantizing") if truth(progress, "progress") else None


def _steps(mapping: Mapping[str, Any], rules: Rules, decisions: Mapping[str, Decision], tell: Tell) -> Steps:
    """Each array with its decision, and what tells how much of it is done."""
    total, done = sum(decision.row.before for decision in decisions.values()), 0
    for name, decision in decisions.items():
        value, start = saving.checked(name, mapping[name]), done
        if (now := seen(value)) != decision.was:
            raise ValueError(
                f"array {shown(name)} must stay as it is while it is quantized; it was {decision.was}, is {now}"
            )
        within = by_part(tell, start, decision.row.before, total)
        yield name, value, rules.ready(name, decision), within
        done += decision.row.before
        if tell is not None and decision.row.before:
            tell(done, total)


def _in_memory(steps: Steps) -> dict[str, saving.Value]:
    """All arrays, quantized as decided."""
    return {
        name: value if decision.task is None else of_task(value, decision.task, called(name), within)
        for name, value, decision, within in steps
    }


def _to_file(
    out: str | os.PathLike[str], decisions: Mapping[str, Decision], steps: Steps
) -> Mapping[str, saving.Value]:
    """The same, written to a file one by one; large ones block by block."""
    forms = {name: decision.form for name, decision in decisions.items() if decision.form is not None}
    with saving.new_file(out, forms) as file:
        for name, value, decision, within in steps:
            form = forms[name]
            if decision.task is None or not isinstance(form, Form):
                saving.write(file, name, value, form)
            elif value.nbytes < out_of_core.IN_ONE_GO:
                saving.write(file, name, of_task(value, decision.task, called(name), within), form)
            else:
                floats = float_type(value.dtype, name)
                source = out_of_core.Source(value, map_of(value), floats, decision.task.spec, None, called(name))
                blocks.write(file, name, form, source, decision.task, within)
    return open(out)
