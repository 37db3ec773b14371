"""Any CPU: plain vector arithmetic, which LLVM turns into what the host has."""

from __future__ import annotations

from fastq.kernels.dot.micro import MicroKernel, Shape
from fastq.machine.ir import I32, I64, filled, splat


class Portable(MicroKernel):
    """Four int32 multiplications per lane. All factors fit int16, which lets x86 use ``pmaddwd`` for them."""

    gemv_shapes = (Shape(1, 1, 2), Shape(2, 1, 1), Shape(4, 1, 1))

    def left(self, b, pointer):
        codes = (b.sext(b.load(b.gep(pointer, [I64(k)])), I32) for k in range(4))
        return [splat(b, code, self.lanes) for code in codes]

    def right(self, b, row):
        words = b.bitcast(row, self.acc_type)
        shifted = (b.lshr(words, filled(self.acc_type, 8 * k)) for k in range(4))
        return [b.and_(word, filled(self.acc_type, 0xFF)) for word in shifted]

    def product(self, b, acc, left, right):
        for x, y in zip(left, right):
            acc = b.add(acc, b.mul(x, y))
        return acc
