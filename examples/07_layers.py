"""Lesson 7: layers that stay in integers.

A transformer's MLP is gelu(x @ w1 + b1) @ w2 + b2. Done step by step, the wide hidden array is written and read again
for the bias, the activation and the next quantization. fq.matmul does all of that while the product is in the cache.
"""

import time

import numba
import numpy as np

import fastq as fq

random = np.random.default_rng(0)
width = 512
x = random.standard_normal((256, width), np.float32)
w1 = random.standard_normal((width, 4 * width), np.float32) / np.float32(width**0.5)
w2 = random.standard_normal((4 * width, width), np.float32) / np.float32((4 * width) ** 0.5)
b1, b2 = (random.standard_normal(n, np.float32) / 10 for n in (4 * width, width))
q1, q2 = fq.quantize(w1, bits=8, axis=0), fq.quantize(w2, bits=8, axis=0)


def gelu(y):
    """In NumPy, in the usual approximation by tanh, which differs from the exact form by 0.0005 at most."""
    return 0.5 * y * (1 + np.tanh(0.7978845608 * (y + 0.044715 * y**3)))


def in_steps():
    """Bias and activation after the product."""
    return gelu(x @ q1 + b1) @ q2 + b2


def fused():
    """Both in the product, and the hidden array comes as 8-bit codes: a quarter of the bytes."""
    hidden = fq.matmul(x, q1, bias=b1, epilogue="gelu", dtype=np.int8)
    return fq.matmul(hidden, q2, bias=b2)


def milliseconds(call):
    """The best of twenty calls, after one that compiles."""
    call()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


print("1. Two layers, in steps and fused. The error is that of quantizing, either way.")
exact = gelu(np.float64(x) @ w1 + b1) @ w2 + b2
for name, call in (("in steps", in_steps), ("fused", fused)):
    print(f"   {name:<8}  {milliseconds(call):6.2f} ms   {fq.error(exact, call()).sqnr_db:.1f} dB")

print("\n2. What goes from layer to layer is a QArray, the same as if the float product had been quantized by row.")
hidden = fq.matmul(x, q1, bias=b1, epilogue="gelu", dtype=np.int8)
floats = fq.matmul(x, q1, bias=b1, epilogue="gelu")
print(f"   {hidden}")
print(f"   equal: {hidden.equals(fq.quantize(floats, axis=-1))}")

print("\n3. An activation of your own is compiled into the loop over the product.")


@numba.njit
def squared_relu(y):
    """Zero or the square."""
    return y * y if y > 0 else 0.0


own = fq.matmul(x, q1, bias=b1, epilogue=squared_relu)
after = np.maximum(fq.matmul(x, q1, bias=b1), 0) ** 2
print(f"   squared relu in the product and after it are equal: {np.array_equal(own, after)}")

print("\n4. Half precision goes in and comes out without a float32 array on the way.")
half = fq.matmul(x.astype(np.float16), q1, dtype=np.float16)
print(f"   {half.dtype} of shape {half.shape}, {fq.error(x @ w1, half).sqnr_db:.1f} dB")
