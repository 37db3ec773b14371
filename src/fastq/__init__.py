"""Quantized matrix multiplication for NumPy, at the speed of the CPU's integer units and exact on every CPU."""

from fastq.api import dequantize, matmul, quantize
from fastq.calibrator import Calibrator
from fastq.choice import Choice, choose_bits
from fastq.config import set_num_threads, show_config
from fastq.errors import IsaError, NotFiniteError
from fastq.products.bound import matmul_error_bound
from fastq.qarray.array import QArray
from fastq.quant.attribution import MatmulError, error_matmul
from fastq.quant.balance import balance
from fastq.quant.gptq import Gptq
from fastq.quant.methods import Percentile
from fastq.quant.metrics import Error, error
from fastq.quant.moment import SecondMoment
from fastq.storage.files import load

__version__ = "0.1.0"

__all__ = [
    "Calibrator",
    "Choice",
    "Error",
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
    "load",
    "matmul",
    "matmul_error_bound",
    "quantize",
    "set_num_threads",
    "show_config",
]
