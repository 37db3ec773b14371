"""What a type checker tells users of fastq. mypy reads it, here and next to an installed wheel; nothing runs it."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_type

import fastq as fq

Array = npt.NDArray[Any]
w = np.zeros((64, 32), np.float32)
x = np.zeros((8, 64), np.float32)

# Quantized arrays
q = fq.quantize(w, bits=3, axis=0, group_size=64, method="mse")
assert_type(q, fq.QArray)
assert_type(fq.quantize([[1.0, 2.0]], scheme="asymmetric"), fq.QArray)
assert_type(fq.from_parts(np.ones((2, 3), np.int8), 0.5, bits=4, zero_point=[[1], [2]], dtype="bfloat16"), fq.QArray)
assert_type(fq.from_parts(**q.parts(packed=True)), fq.QArray)
assert_type(q.order, npt.NDArray[np.int64] | None)
assert_type(q.shape, tuple[int, ...])
assert_type(q.dtype, np.dtype[Any])
assert_type(q.bits, int)
assert_type(q.axis, int | None)
assert_type(q.scheme, Literal["symmetric", "asymmetric", "affine"])
assert_type(q.scale, Array)
assert_type(q.zero_point, Array | None)
assert_type(q.codes, Array)
assert_type(q.nbytes, int)
assert_type(q.T, fq.QArray)
assert_type(q.reshape(2, 32, 32), fq.QArray)
assert_type(q[:32], fq.QArray)
assert_type(q[np.arange(3)], fq.QArray)
assert_type(-q * 2 / np.ones(32), fq.QArray)
assert_type(fq.load("q", mmap=False), fq.QArray)
assert_type(fq.open("model")["layer.weight"], Any)
assert_type(fq.open("model").entry("layer.weight").shape, tuple[int, ...])
fq.save("model", {"layer.weight": q, "layer.bias": x})
small = fq.quantize_all(
    fq.open("model"), bits={"layer.*": 4, "*": None}, axis=lambda name: 0, method="mse", out="small"
)
assert_type(small["layer.weight"], Any)
assert_type(small.report[0].before, int)
fq.quantize_all({"w": w}, calibration={"w": fq.SecondMoment(64)}, include=["*.weight"], exclude=str.isupper)
assert_type(q.prepack(), fq.QArray)
assert_type(q.equals(w), bool)
assert_type(len(q), int)
assert_type(q.dequantize(), Array)
assert_type(fq.dequantize(q, np.float64), Array)

# Products
y: npt.NDArray[np.float32] = x @ q
y = fq.matmul(x, q, bias=[1.0], epilogue="relu")
assert_type(fq.matmul(x, q, y), npt.NDArray[np.float32])
assert_type(fq.matmul(x, q, out=y, order="C"), npt.NDArray[np.float32])
assert_type(fq.matmul(x, q, epilogue="gelu", dtype=np.int8), fq.QArray)
assert_type(fq.matmul(x, q, dtype="uint8", scale=0.1, zero_point=3), fq.QArray)

# Errors: numbers for a whole array, arrays along an axis
assert_type(fq.error(w, q), fq.Error[float])
assert_type(fq.error(w, q).sqnr_db, float)
assert_type(fq.error(w, q, axis=0).mse, npt.NDArray[np.float64])
assert_type(fq.error(w, q, 0, group_size=16).mse, npt.NDArray[np.float64])
assert_type(fq.error(w, q, axis=(0, 1)), fq.Error[npt.NDArray[np.float64]])
assert_type(fq.error(w, q, axis=np.argmax(w)), fq.Error[npt.NDArray[np.float64]])
some_axis: int | None = 0 if w.shape[0] > 1 else None
assert_type(fq.error(w, q, axis=some_axis), fq.Error[float] | fq.Error[npt.NDArray[np.float64]])
assert_type(fq.error(w, q).hint, str)
parts = fq.error_matmul(x, w, q)
assert_type(parts, fq.MatmulError)
assert_type(parts.weights.sqnr_db, float)
assert_type(parts.total, fq.Error[float])

# Choosing
moment = fq.SecondMoment.of(x)
assert_type(moment, fq.SecondMoment)
assert_type(moment.matrix, npt.NDArray[np.float64])
assert_type(fq.quantize(w, 3, axis=0, method=fq.Gptq(sweeps=1), calibration=moment), fq.QArray)
assert_type(fq.quantize(w, method=fq.Percentile(99.5)), fq.QArray)
seen = fq.Calibrator(scheme="asymmetric").update(x).run([x, x], progress=False)
assert_type(seen, fq.Calibrator)
assert_type(seen.parameters().scale, float | Array)
assert_type(seen.quantize(x), fq.QArray)
assert_type(fq.balance(x, w), npt.NDArray[np.float32])
assert_type(fq.choose_bits(w, sqnr=20), fq.Choice)
assert_type(fq.choose_bits({"up": w, "down": w}, budget=4), dict[str, fq.Choice])
assert_type(fq.choose_bits(w, sqnr=20).quantize(w), fq.QArray)
assert_type(fq.choose_bits(w, budget=4, axis=-1, report=True).report, str)

# Settings
assert_type(fq.set_num_threads(2), AbstractContextManager[None])
with fq.set_num_threads(1):
    fq.show_config()

# What must not pass: mypy tells of a comment that was not needed.
fq.quantize(w, bits="3")  # type: ignore[arg-type]
fq.quantize(w, scheme="symetric")  # type: ignore[arg-type]
fq.quantize(w, method="best")  # type: ignore[arg-type]
fq.matmul(x, q, epilogue="tanh")  # type: ignore[call-overload]
fq.matmul(x, q, scale=0.1)  # type: ignore[call-overload]
fq.error_matmul(x, w, w)  # type: ignore[arg-type]
fq.dequantize(w)  # type: ignore[arg-type]
fq.Calibrator(scheme="affine")  # type: ignore[arg-type]
fq.choose_bits(w, method="gptq")  # type: ignore[call-overload]
fq.set_num_threads(2.0)  # type: ignore[arg-type]
