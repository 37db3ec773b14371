"""Lesson 2: one scale for a whole matrix, or one per row and column.

A product C = A @ B sums along A's rows and B's columns. A scale that is constant along the sum can be taken out of it:
so A may have one scale per row and B one per column, and the sum itself stays integer. Here are both forms, at 3 bits,
for the two matrices of the notebook that fastq began with. B's columns differ by a factor of 300: too much
for one scale.

The notebook has two slips, which this lesson shows. It decodes with min * scale, where min is meant; and its text has
0.3-0.1 / 7 for (0.3 - 0.1) / 7. It announces one scale per row and column, and stops before its code; here it is.

The scheme is "affine": code = rint((x - min) / scale), from 0 to 7, and back x = scale * code + min.
"""

import numpy as np

import fastq as fq

np.set_printoptions(formatter={"float": "{:9.4f}".format})

a = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32)
b = np.array([[0.1, 4, 70], [0.2, 5, 80], [0.3, 6, 90]], np.float32)
exact = a @ b


def show(name, x, q):
    print(f"{name}: scale {q.scale.ravel()}, offset {q.offset.ravel()}")
    for codes, numbers in zip(q.codes, q.dequantize()):
        print(f"   {codes}   {numbers}")
    print(f"   L2 norm of the error: {fq.error(x, q).l2:.4f}")


print("One scale per matrix (layer-wise): codes, and the numbers that they stand for")
layer_a = fq.quantize(a, bits=3, scheme="affine")
layer_b = fq.quantize(b, bits=3, scheme="affine")
show("A", a, layer_a)
show("B", b, layer_b)
assert layer_a.codes.tolist() == [[0, 1, 2], [3, 3, 4], [5, 6, 7]]
assert layer_b.codes.tolist() == [[0, 0, 5], [0, 0, 6], [0, 0, 7]]
print("The notebook decodes with min * scale in place of min: the offset is in units of x, not of the scale.")
for name, x, q in (("A", a, layer_a), ("B", b, layer_b)):
    wrong = q.codes * q.scale + x.min() * q.scale
    print(f"   {name}'s smallest number becomes {wrong.min():.4f}, and the L2 norm {np.linalg.norm(x - wrong):.4f}")
print("   For B that norm is smaller only by luck: 1.2843 is nearer to 4, 5 and 6, which share the code of 0.1.")

print("\nOne scale per row of A (axis=1) and per column of B (axis=0)")
row_a = fq.quantize(a, bits=3, scheme="affine", axis=1)
column_b = fq.quantize(b, bits=3, scheme="affine", axis=0)
show("A", a, row_a)
show("B", b, column_b)
print("The notebook's text has 0.3-0.1 / 7 for the scale of B's first column; (0.3 - 0.1) / 7 is meant, 0.0286.")

print("\nThe products, and the L2 norm of their error")
layer, lines = layer_a @ layer_b, row_a @ column_b
for name, product in (("exact", exact), ("one scale per matrix", layer), ("per row and column", lines)):
    print(f"{name}: {fq.error(exact, product).l2:.2f}")
    for row in product:
        print(f"   {row}")

for product, left, right in ((layer, layer_a, layer_b), (lines, row_a, column_b)):
    np.testing.assert_allclose(product, left.dequantize() @ right.dequantize(), rtol=1e-5)
print("Both are the product of the numbers that the codes stand for: multiplying integers adds no error of its own.")
