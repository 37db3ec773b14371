"""Operators of ONNX that quantize, as functions of arrays, with the specification's semantics.

=============================== ========================================
function                        operator
=============================== ========================================
:func:`quantize_linear`         QuantizeLinear, opset 10 to 28
:func:`dequantize_linear`       DequantizeLinear, opset 10 to 28
:func:`dynamic_quantize_linear` DynamicQuantizeLinear, opset 11
:func:`matmul_integer`          MatMulInteger, opset 10
:func:`qlinear_matmul`          QLinearMatMul, opset 10 and 21
:func:`matmul_nbits`            MatMulNBits of the domain com.microsoft
=============================== ========================================

Inputs are positional arguments, in the operator's order; attributes are keywords of their own names. Types are given by
the number that ONNX has for them (``onnx.TensorProto.INT4``), by name, or as NumPy takes them. Codes of 2 and 4 bits
come in ml_dtypes' types where it is installed, else in int8 and uint8. Floats of 8 bits and fewer are refused. The
module onnx is not needed. Sources: Operators.md of onnx 1.23, ContribOperators.md of onnxruntime 1.32.

A function keeps nothing from one call to the next. The fast way to multiply by weights of a model again and again is
``w = fastq.open("model.onnx")["w"]``, whose first product packs it, and ``x @ w`` or, for MatMulNBits, ``x @ w.T``.
"""

from fastq.interop.onnx.linear import dequantize_linear, dynamic_quantize_linear, quantize_linear
from fastq.interop.onnx.products import matmul_integer, matmul_nbits, qlinear_matmul

__all__ = [
    "dequantize_linear",
    "dynamic_quantize_linear",
    "matmul_integer",
    "matmul_nbits",
    "qlinear_matmul",
    "quantize_linear",
]
