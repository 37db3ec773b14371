"""Lesson 1: quantize, multiply, measure.

Quantizing replaces numbers by small integers, the codes, and a scale that turns them back: x is close to scale * code.
A matrix of 3-bit codes takes a tenth of the memory of float32, and CPUs multiply small integers faster than floats.
"""

import numpy as np

import fastq as fq

random = np.random.default_rng(0)
x = random.standard_normal((64, 256), np.float32)  # inputs, one per row
w = random.standard_normal((256, 128), np.float32)  # weights, one neuron per column

print("1. Quantize. axis is NumPy's: axis=0 shares a scale along axis 0, so each column of w gets its own.")
q = fq.quantize(w, bits=3, axis=0)
print(f"   {q}")
print(f"   codes from {q.codes.min()} to {q.codes.max()}, scale of shape {q.scale.shape}")

print("\n2. Back to numbers. The result differs from w by half a scale at most.")
back = fq.dequantize(q)
print(f"   largest difference: {np.max(np.abs(w - back) / q.scale):.3f} scales")
print(f"   {fq.error(w, q)}")

print("\n3. Measure. SQNR is the ratio of signal to error in decibels; another bit is worth 6 dB or a little more.")
for bits in (8, 4, 3):
    print(f"   {bits} bits: {fq.error(w, fq.quantize(w, bits=bits, axis=0)).sqnr_db:.1f} dB")

print("\n4. Multiply. x is quantized to 8 bits by row, on the fly; integers are multiplied, and the scales come last.")
y = x @ q
print(f"   {y.dtype} product of shape {y.shape}; against the product with w: {fq.error(x @ w, y).sqnr_db:.1f} dB")
print(f"   against the product with q's own numbers: {fq.error(x @ back, y).sqnr_db:.1f} dB, the 8 bits of x")

print("\n5. The memory. The first product packed the codes: 3 bits are 3 bits now.")
print(f"   w {w.nbytes:,} bytes, q {q.nbytes:,} bytes, of which {3 * w.size // 8:,} are codes")

print("\n6. No weights to keep? fq.matmul takes floats on both sides, as np.matmul does.")
print(f"   {fq.error(x @ w, fq.matmul(x, w)).sqnr_db:.1f} dB")

print("\n7. Integers are exact: int8 times int8 is int32, where NumPy's int8 product wraps around.")
a, b = np.full((1, 4), 100, np.int8), np.full((4, 1), 100, np.int8)
print(f"   np.matmul {np.matmul(a, b)}, fq.matmul {fq.matmul(a, b)}")
assert fq.matmul(a, b) == 40_000
