"""AVX-VNNI: the instruction of AVX512-VNNI on 256 bits (Intel Alder Lake and later client CPUs, AMD Zen 5)."""

from __future__ import annotations

from fastq.kernels.dot.micro import MicroKernel, Shape
from fastq.machine.ir import Target, declare


class AvxVnni(MicroKernel):
    """``vpdpbusd`` on sixteen 256-bit registers: eight accumulators, which hide four of the five cycles it takes."""

    target = Target("alderlake", "+avxvnni")
    width = 32
    gemv_shapes = (Shape(1, 1, 4), Shape(2, 1, 2), Shape(4, 1, 1))

    def product(self, b, acc, left, right):
        # LLVM has one intrinsic for both encodings, and takes the one that the target has.
        vector = self.acc_type
        return b.call(declare(b, "llvm.x86.avx512.vpdpbusd.256", vector, [vector] * 3), [acc, right, left])
