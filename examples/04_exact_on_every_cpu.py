"""Lesson 4: integer products are exact, and the same on every CPU.

CPUs multiply bytes in several ways, and not all are exact. The common AVX2 instruction (vpmaddubsw) adds two products
in 16 bits and saturates: results then depend on the CPU. fastq uses it only where no pair of products can reach the
limit. What it computes is the sum over k of (a - za) * (b - zb), zero points included, in 32-bit integers; and as the
float arithmetic around it has one fixed order, float results are equal bit for bit as well.
"""

import hashlib
import os
import subprocess
import sys

import numpy as np

import fastq as fq
from fastq.kernels.table import ISAS
from fastq.machine import cpu


def digest():
    """A hash of exact and of rescaled products, and of codes: every bit of them counts."""
    random = np.random.default_rng(0)
    a, b = random.integers(0, 256, (70, 1000), np.uint8), random.integers(-128, 128, (1000, 90), np.int8)
    x, w = random.standard_normal((70, 1000), np.float32), random.standard_normal((1000, 90), np.float32)
    results = [fq.matmul(a, b), fq.matmul(x, w)]
    for bits, scheme in ((8, "asymmetric"), (3, "affine")):
        q = fq.quantize(w, bits=bits, axis=0, group_size=128, scheme=scheme)
        results += [q.codes, q.scale, fq.matmul(x, q, bias=w[0]), fq.quantize(x, scheme="asymmetric", axis=-1) @ q]
    return hashlib.sha256(b"".join(r.tobytes() for r in results)).hexdigest()


def main():
    print("1. Two products that do not fit 16 bits")
    a, b = np.array([[211, 171]], np.uint8), np.array([[71], [107]], np.int8)
    exact = 211 * 71 + 171 * 107
    print(f"   211 * 71 + 171 * 107                 {exact}")
    print(f"   np.matmul wraps around               {np.matmul(a, b)[0, 0]}")
    print(f"   a saturating instruction stops at    {np.clip(exact, -(2**15), 2**15 - 1)}")
    print(f"   fq.matmul                            {fq.matmul(a, b)[0, 0]}")
    assert fq.matmul(a, b)[0, 0] == exact == 33278

    print("\n2. Zero points: with scales of 1, the product of two asymmetric arrays is an integer product")
    random = np.random.default_rng(0)
    x, w = random.integers(-100, 156, (5, 300)), random.integers(-7, 9, (300, 4))
    left = fq.quantize(x, scheme="asymmetric", scale=1, zero_point=100)
    right = fq.quantize(w, bits=4, scheme="asymmetric", scale=1, zero_point=7)
    print(f"   {(left @ right)[0]} is {(x @ w)[0]}")
    assert np.array_equal(left @ right, x @ w)

    print("\n3. The same bits on every path that this CPU has; FASTQ_ISA chooses one for a process")
    digests = {}
    for isa in cpu.available(ISAS):
        child = [sys.executable, __file__, "digest"]
        done = subprocess.run(child, env={**os.environ, "FASTQ_ISA": isa}, check=True, capture_output=True, text=True)
        digests[isa] = done.stdout.strip()
        print(f"   {isa:<12} {digests[isa][:32]}")
    assert set(digests.values()) == {digest()}
    print("   all equal")


if __name__ == "__main__":
    if sys.argv[1:] == ["digest"]:
        print(digest())
    else:
        main()
