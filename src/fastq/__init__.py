"""Quantized matrix multiplication for NumPy, at the speed of the CPU's integer units and exact on every CPU."""

import importlib as _importlib
import sys as _sys
import typing as _typing

from fastq.version import __version__ as __version__

if _typing.TYPE_CHECKING:
    from fastq.accuracy.bound import matmul_error_bound
    from fastq.accuracy.error import Error, error
    from fastq.accuracy.error_matmul import MatmulError, error_matmul
    from fastq.api import dequantize, matmul, quantize
    from fastq.calibration.balance import balance
    from fastq.calibration.calibrator import Calibrator
    from fastq.calibration.choose_bits import Choice, choose_bits
    from fastq.config import set_num_threads, show_config
    from fastq.errors import FileFormatError, IsaError, NotFiniteError
    from fastq.formats.opening import open
    from fastq.formats.saving import save
    from fastq.models.quantize_all import quantize_all
    from fastq.qarray.array import QArray
    from fastq.qarray.build import from_parts
    from fastq.qarray.parts import load
    from fastq.quant.gptq import Gptq
    from fastq.quant.methods import Percentile
    from fastq.quant.moment import SecondMoment
    from fastq.search import merge_top_k, top_k

__all__ = [
    "Calibrator",
    "Choice",
    "Error",
    "FileFormatError",
    "Gptq",
    "IsaError",
    "MatmulError",
    "NotFiniteError",
    "Percentile",
    "QArray",
    "SecondMoment",
    "balance",
    "choose_bits",
    "dequantize",
    "error",
    "error_matmul",
    "from_parts",
    "load",
    "matmul",
    "matmul_error_bound",
    "merge_top_k",
    "open",
    "quantize",
    "quantize_all",
    "save",
    "set_num_threads",
    "show_config",
    "top_k",
]

# What is in which module, imported when it is first asked for: the command line answers before NumPy is there.
_PLACES = {
    "accuracy.bound": ("matmul_error_bound",),
    "accuracy.error": ("Error", "error"),
    "accuracy.error_matmul": ("MatmulError", "error_matmul"),
    "api": ("dequantize", "matmul", "quantize"),
    "calibration.balance": ("balance",),
    "calibration.calibrator": ("Calibrator",),
    "calibration.choose_bits": ("Choice", "choose_bits"),
    "config": ("set_num_threads", "show_config"),
    "errors": ("FileFormatError", "IsaError", "NotFiniteError"),
    "formats.opening": ("open",),
    "formats.saving": ("save",),
    "models.quantize_all": ("quantize_all",),
    "qarray.array": ("QArray",),
    "qarray.build": ("from_parts",),
    "qarray.parts": ("load",),
    "quant.gptq": ("Gptq",),
    "quant.methods": ("Percentile",),
    "quant.moment": ("SecondMoment",),
    "search": ("merge_top_k", "top_k"),
}

if "numpy" in _sys.modules:
    _importlib.import_module("fastq.numpys")  # NumPy's own products, before a program replaces them


def __getattr__(name: str) -> _typing.Any:
    for module, names in _PLACES.items():
        if name in names:
            value = globals()[name] = getattr(_importlib.import_module(f"fastq.{module}"), name)
            return value
    raise AttributeError(f"module 'fastq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
