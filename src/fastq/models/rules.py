"""What is to become of each array of a model: decided before anything is quantized."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from fastq.errors import shown, with_type
from fastq.formats import saving
from fastq.formats.own import Form
from fastq.formats.writer import Tensor
from fastq.models.by_name import ByName, chosen
from fastq.models.result import Row
from fastq.promotion import float_type, is_float
from fastq.qarray.array import QArray
from fastq.quant.gptq import Gptq
from fastq.quant.methods import method_of
from fastq.quant.moment import SecondMoment
from fastq.quant.task import QuantTask
from fastq.storage.metadata import Metadata
from fastq.validation import check_bits, check_group, integer

FEWEST = 4096  # elements of an array that is worth quantizing
SHARING = 32  # elements along its axis
FEW_AXES = "a number", "a vector"


class Decision(NamedTuple):
    """What is to become of an array."""

    row: Row  # of the report
    was: str  # what the array was when it was decided
    form: Form | Tensor | None  # of the result; None of a plain array that no file will hold
    task: QuantTask | None = None  # without its calibration, which takes memory; None: it stays as it is


class Rules:
    """Decisions by the arguments of :func:`fastq.quantize_all`."""

    def __init__(
        self,
        names: Collection[str],
        settings: Mapping[str, Any],
        common: Mapping[str, Any],
        include: Any,
        exclude: Any,
        to_file: bool,
    ) -> None:
        check_calibration(settings["calibration"])
        self.settings = {key: ByName(value, key, names, *CHECKS[key]) for key, value in settings.items()}
        self.common, self.to_file = common, to_file
        self.included = None if include is None else chosen(include, "include", names)
        self.excluded = set[str]() if exclude is None else chosen(exclude, "exclude", names)

    def decide(self, name: str, value: saving.Value) -> Decision:
        """The decision for an array; errors name it."""
        try:
            why = self._why_not(name, value)
            if not why:
                return self._quantized(name, value)
        except (TypeError, ValueError) as error:
            error.args = (f"{called(name)}: {error}",)
            raise
        if name in self.settings["calibration"].named:
            why += "; its calibration is not used"
        form = saving.form_of(name, value) if self.to_file or isinstance(value, QArray) else None
        nbytes = form.nbytes(name) if isinstance(form, Form) else value.nbytes
        return Decision(Row(name, value.shape, False, why, nbytes, nbytes), seen(value), form)

    def _why_not(self, name: str, value: saving.Value) -> str:
        """Why an array stays as it is; "" if it does not."""
        if name in self.excluded:
            return "excluded"
        if self.included is not None and name not in self.included:
            return "not included"
        if isinstance(value, QArray):
            return f"quantized already, {value.bits} bits"
        if not is_float(value.dtype):
            return f"{value.dtype}, not floats of 16 to 64 bits"
        if value.ndim < 2:
            return FEW_AXES[value.ndim]
        if not value.size:
            return "empty"
        if self.settings["bits"](name) is None:
            return "bits say nothing of it"
        if self.included is not None:
            return ""
        axis = self.settings["axis"](name)
        if value.size < FEWEST:
            return f"{value.size} elements, fewer than {FEWEST}"
        if axis is not None and -value.ndim <= axis < value.ndim and value.shape[axis] < SHARING:
            return f"{value.shape[axis]} elements along axis {axis}, fewer than {SHARING}"
        return ""

    def _quantized(self, name: str, value: Any) -> Decision:
        given = {key: setting(name) for key, setting in self.settings.items()}
        floats = float_type(value.dtype, name)
        task = QuantTask.of(
            value.shape, floats, **given, **self.common, scale=None, zero_point=None, balance=None, rotate=False
        )
        form = Form(Metadata(value.shape, str(value.dtype.newbyteorder("=")), task.spec), str(floats))
        row = Row(name, value.shape, True, _described(task), value.nbytes, form.nbytes(name))
        return Decision(row, seen(value), form, task._replace(moment=None))

    def ready(self, name: str, decision: Decision) -> Decision:
        """A decision whose task has the calibration that it was made with, when its turn has come."""
        if decision.task is None:
            return decision
        return decision._replace(task=decision.task._replace(moment=self.settings["calibration"](name)))


def called(name: str) -> str:
    """An array in messages."""
    return f"array {shown(name)}"


def seen(value: saving.Value) -> str:
    """What an array is, as far as decisions depend on it."""
    return f"{'quantized ' * isinstance(value, QArray)}{value.dtype} {value.shape}"


def _described(task: QuantTask) -> str:
    """How an array is quantized."""
    spec, method = task.spec, task.method
    words = [f"{spec.bits} bits"]
    if spec.group is not None:
        words.append(f"groups of {spec.group}")
    words.append("one scale" if spec.axis is None else f"axis {spec.axis}")
    if spec.scheme != "symmetric":
        words.append(spec.scheme)
    words.append(
        method if isinstance(method, str) else "gptq" if isinstance(method, Gptq) else f"{method.share:g} percent"
    )
    if task.moment is not None and method == "mse":
        words[-1] += " with calibration"
    return ", ".join(words)


def _bits(value: Any) -> int | None:
    return None if value is None else check_bits(value)


def _axis(value: Any) -> int | None:
    return None if value is None else integer(value, "axis", "an integer or None")


def _group(value: Any) -> int | None:
    return None if value is None else check_group(value)


def _moment(value: Any) -> SecondMoment | None:
    return None if value is None else SecondMoment.of(value)


def check_calibration(value: Any) -> None:
    """That each array has a calibration of its own."""
    if value is not None and not callable(value) and not isinstance(value, Mapping):
        raise TypeError(
            f"calibration must be a mapping of names to second moments, or a function of a name; got {with_type(value)}"
        )


CHECKS = {  # of each setting, and its default where no pattern fits
    "bits": (_bits, None),
    "axis": (_axis, -1),
    "group_size": (_group, None),
    "method": (method_of, "minmax"),
    "calibration": (_moment, None),
}
