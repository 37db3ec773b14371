"""AVX512-VNNI: four products and their sum per lane and instruction (Intel Ice Lake and later, AMD Zen 4 and later)."""

from __future__ import annotations

from fastq.kernels.dot.micro import MicroKernel, Shape
from fastq.machine.ir import Target, declare


class Avx512Vnni(MicroKernel):
    """``vpdpbusd``: unsigned right codes times signed left codes, accumulated without saturation."""

    target = Target("cascadelake", "+avx512vnni")
    gemv_shapes = (Shape(1, 1, 4), Shape(2, 1, 4), Shape(4, 1, 4), Shape(8, 1, 2))

    def product(self, b, acc, left, right):
        # The operand type <16 x i32> is the one that LLVM 20 declares; LLVM 22 upgrades it when it parses the text.
        vector = self.acc_type
        return b.call(declare(b, "llvm.x86.avx512.vpdpbusd.512", vector, [vector] * 3), [acc, right, left])

    def scaled(self, b, total, value, factor, small):
        # ``vpdpwssd`` multiplies pairs of int16: here the lower half of a value, and a factor beside a 0. One
        # instruction, where a multiplication in 32 bits and an addition are three.
        if not small:
            return super().scaled(b, total, value, factor, small)
        vector = self.acc_type
        multiply = declare(b, "llvm.x86.avx512.vpdpwssd.512", vector, [vector] * 3)
        return b.call(multiply, [total, value, factor])
