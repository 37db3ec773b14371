"""Lesson 3: symmetric and asymmetric codes.

Symmetric: scale = max|x| / 127, codes from -128 to 127, and 0 is code 0. Simple, and fast to multiply; but data that
are mostly positive leave many of the negative codes unused.

Asymmetric: scale = (max - min) / 255, codes from 0 to 255, and 0 is the zero point:
code = rint(x / scale) + zero point. Every code is used, so the scale is smaller.

Zero has a code of its own in both, because zeros (padding, ReLU) must stay zeros. The twenty numbers are those of the
second notebook that fastq began with. Its asymmetric codes are right. Its symmetric ones reach 2214, by two slips that
are shown below: a scale without its parentheses, and a clamp that writes into the data instead of the codes.
"""

import numpy as np

import fastq as fq

np.set_printoptions(precision=4, suppress=True)

x = np.array([
    134.85372037, -34.5079855, 0.0, 135.85372037, -17.51774727, -16.11701896, 102.23461091, -33.5079855,
    111.25202791, 121.4723397, 93.89520017, 36.7436026, 85.58463402, -27.62545839, -29.72305535, -25.13061787,
    20.13014606, 36.91993243, 45.82819097, 89.02619806,
])  # fmt: skip

asymmetric = fq.quantize(x, scheme="asymmetric")
print(f"asymmetric: scale {asymmetric.scale[0]:.6f}, zero point {asymmetric.zero_point[0]}, codes")
print(asymmetric.codes)
assert asymmetric.zero_point == 52
assert asymmetric.codes.tolist() == [
    254, 0, 52, 255, 26, 28, 205, 2, 219, 234, 193, 107, 180, 11, 8, 14, 82, 107, 121, 185
]  # fmt: skip
print(f"decoded: (code - {asymmetric.zero_point[0]}) * scale")
print(asymmetric.dequantize())

symmetric = fq.quantize(x, scheme="symmetric")
print(f"\nsymmetric: scale {symmetric.scale[0]:.6f}, codes")
print(symmetric.codes)
assert symmetric.scale == np.abs(x).max() / 127
assert symmetric.codes.tolist() == np.rint(x / symmetric.scale).astype(int).tolist()
print("decoded: code * scale")
print(symmetric.dequantize())
assert asymmetric.dequantize()[2] == symmetric.dequantize()[2] == 0

slip = np.abs(x).max() / 2**7 - 1
print(f"The notebook has the codes {np.maximum(np.rint(x / slip), -128).astype(int)[:4]} ..., by two slips:")
print(f"- its scale alpha / 2**(bits-1)-1 is alpha / 128 - 1 = {slip:.4f}; alpha / (2**(bits-1) - 1) is meant;")
print(
    "- its clamp writes the upper bound into the data, params[params_q > upper] = upper: so codes above 127 pass, and"
)
print("  the numbers themselves are overwritten, which spoils every error measured afterwards.")

print("\nmean squared error")
for name, q in (("asymmetric", asymmetric), ("symmetric", symmetric)):
    print(
        f"{name:>10}: {fq.error(x, q).mse:.5f}, a step of scale s costs about s * s / 12 = {q.scale[0] ** 2 / 12:.5f}"
    )
