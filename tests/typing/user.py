"""What type checkers tell users of fastq. Nothing runs it.

mypy and pyright read it: in ``tests/test_typing.py``, and next to an installed wheel before anything lands.
Where a checker must object stands ``type: ignore``, and there only.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from contextlib import AbstractContextManager
from typing import Any, Literal, cast

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
assert_type(q.zero_point, npt.NDArray[np.int32] | None)
assert_type(q.group_scale, npt.NDArray[np.int8] | None)
assert_type(q.codes, npt.NDArray[np.int8 | np.uint8])
assert_type(q.nbytes, int)
assert_type(q.T, fq.QArray)
assert_type(q.reshape(2, 32, 32), fq.QArray)
assert_type(q.mT, fq.QArray)
assert_type(q.reshape((2, -1)), fq.QArray)
assert_type(q.transpose(1, 0), fq.QArray)
assert_type(q.transpose(None), fq.QArray)
assert_type(q.swapaxes(0, -1), fq.QArray)
assert_type(q.astype(np.float64), fq.QArray)
assert_type(q.with_activations("group"), fq.QArray)
assert_type(-q * 2 / np.ones(32), fq.QArray)
assert_type(2 * +q, fq.QArray)
assert_type(q.item(), float)

# Parts: quantized arrays, and what may be a number
assert_type(q[:32], fq.QArray)
assert_type(q[np.arange(3)], fq.QArray)
assert_type(q[[0, 2]], fq.QArray)
assert_type(q[...], fq.QArray)
assert_type(q[None], fq.QArray)
assert_type(q[:, ::2], fq.QArray)
assert_type(q[..., None], fq.QArray)
assert_type(q[:, [3, 1]], fq.QArray)
assert_type(q[:, 0], fq.QArray)
assert_type(q[1, :], fq.QArray)
assert_type(q.T[3], fq.QArray | Any)
assert_type(q[0, 0], Any)
for row in q:
    assert_type(row, fq.QArray | Any)
assert_type(fq.load("q", mmap=False), fq.QArray)
assert_type(fq.open("model")["layer.weight"], fq.QArray | Array)
assert_type(fq.open("model").entry("layer.weight").shape, tuple[int, ...])
fq.save("model", {"layer.weight": q, "layer.bias": x})
small = fq.quantize_all(
    fq.open("model"), bits={"layer.*": 4, "*": None}, axis=lambda name: 0, method="mse", out="small"
)
assert_type(small["layer.weight"], fq.QArray | Array)
assert_type(small.report[0].before, int)
fq.quantize_all({"w": w}, calibration={"w": fq.SecondMoment(64)}, include=["*.weight"], exclude=str.isupper)
assert_type(q.prepack(), fq.QArray)
assert_type(q.equals(w), bool)
assert_type(len(q), int)
assert_type(q.dequantize(), Array)
assert_type(q.dequantize(np.float32), npt.NDArray[np.float32])
assert_type(q.dequantize(np.dtype(np.float64)), npt.NDArray[np.float64])
assert_type(q.dequantize("float32"), Array)
assert_type(fq.dequantize(q, np.float64), npt.NDArray[np.float64])

# Products: floats, of which no checker can say whether they are float32 or float64; those of float64 are of float64
Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
doubles: Doubles = np.zeros((8, 64))
halves: npt.NDArray[np.float16] = np.zeros((8, 64), np.float16)
codes: npt.NDArray[np.int8] = np.zeros((8, 64), np.int8)
assert_type(x @ q, Floats)
assert_type(q @ x, Floats)
assert_type(q @ q, Floats)
assert_type([[1.0, 2.0]] @ q, Floats)
assert_type(q @ [1, 2], Floats)
assert_type(halves @ q, Floats)
assert_type(codes @ q, Floats)
assert_type(doubles @ q, Doubles)
assert_type(q @ doubles, Doubles)
assert_type(fq.matmul(x, q), Floats)
assert_type(fq.matmul(q, x), Floats)
assert_type(fq.matmul(q, q), Floats)
assert_type(fq.matmul([1.0, 2.0], q), Floats)
assert_type(fq.matmul(x, x), Floats)
assert_type(fq.matmul(codes, q), Floats)
assert_type(fq.matmul(x, doubles), Doubles)
assert_type(fq.matmul(q, doubles), Doubles)
assert_type(fq.matmul(codes, codes), npt.NDArray[np.int32])
assert_type(fq.matmul(codes, codes.T, bias=[1]), npt.NDArray[np.int32])
assert_type(fq.matmul(x, q, dtype=np.float16), npt.NDArray[np.float16])
assert_type(fq.matmul(codes, codes, dtype=np.dtype(np.int64)), npt.NDArray[np.int64])
assert_type(fq.matmul_error_bound(x, q, activations="group"), Doubles)
y: npt.NDArray[np.float32] = fq.matmul(x, q, bias=[1.0], epilogue="relu", activations="two-plane")
y = x @ q
out: npt.NDArray[np.float32] = np.zeros((8, 32), np.float32)
assert_type(fq.matmul(x, q, (out,)), npt.NDArray[np.float32])
assert_type(fq.matmul(x, q, out), npt.NDArray[np.float32])
assert_type(fq.matmul(x, q, out=out, order="C"), npt.NDArray[np.float32])
assert_type(fq.matmul(x, q, epilogue="gelu", dtype=np.int8), fq.QArray)
assert_type(fq.matmul(x, q, dtype="uint8", scale=0.1, zero_point=3), fq.QArray)

assert_type(fq.top_k(x, q, 3), tuple[Floats, npt.NDArray[np.int64]])
assert_type(fq.top_k(codes, codes), tuple[Array, npt.NDArray[np.int64]])

# NumPy's functions, as NumPy's stubs have them: products are Any, and what moves numbers is an array for its float type
assert_type(np.dot(x, q), Any)
assert_type(np.matmul(x, q), Any)
assert_type(np.einsum("ij,jk->ik", x, q), Any)
assert_type(np.concatenate((q, q), axis=1), npt.NDArray[np.float32 | np.float64])
assert_type(np.stack([q, q]) @ x, Floats)
assert_type(np.transpose(q), npt.NDArray[np.float32 | np.float64])
assert_type(cast(fq.QArray, np.concatenate([q, q])), fq.QArray)
assert_type(np.array_equal(q, q), bool)

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
fq.dequantize(w)  # type: ignore[call-overload]
fq.Calibrator(scheme="affine")  # type: ignore[arg-type]
fq.choose_bits(w, method="gptq")  # type: ignore[call-overload]
fq.set_num_threads(2.0)  # type: ignore[arg-type]
q.with_activations("column")  # type: ignore[arg-type]
q.reshape("4")  # type: ignore[arg-type]
np.moveaxis(q, 0, 1)  # type: ignore[type-var]  # it works; q.transpose does it for checkers, too
joined_bits = np.concatenate([q, q]).bits  # type: ignore[attr-defined]
