"""AVX2: exact over the full range of codes, and a shorter way for codes of at most 7 bits.

``vpmaddubsw``, the instruction that others use here, adds two products into a saturating int16: 255 * 127 twice is
64,770, and what comes out is 32,767. So 8-bit codes are taken apart into even and odd k, widened to int16, and go
through ``vpmaddwd``, which is exact. With codes up to 127 no pair can saturate (2 * 127 * 128 = 32,512) and the short
way is exact too.
"""

from __future__ import annotations

from llvmlite import ir

from fastq.kernels.dot.micro import MicroKernel, Shape
from fastq.machine.ir import I8, I16, I32, I64, Target, declare, filled, splat

_BYTES, _WORDS, _INTS = ir.VectorType(I8, 32), ir.VectorType(I16, 16), ir.VectorType(I32, 8)


def _madd_words(b, x, y):
    return b.call(declare(b, "llvm.x86.avx2.pmadd.wd", _INTS, [_WORDS, _WORDS]), [x, y])


class Avx2(MicroKernel):
    """8-bit codes: ``vpmaddwd`` on int16. Left tiles are int16 in the order k0 k2 k1 k3, even k first."""

    target = Target("haswell", "+avx2")
    width = 32
    # Half of the columns at a time leave registers for eight rows, which share what taking right codes apart costs:
    # 1024**3 on two cores 7.9 ms with 4 x 16, 7.3 ms with 8 x 8.
    gemm_passes = 2
    gemv_shapes = (Shape(1, 1, 2), Shape(2, 1, 2), Shape(4, 1, 1))

    def left(self, b, pointer):
        # Two loads: taken out of one 64-bit load, the second pair goes through four shuffles (26.7 ms against 18.4 ms
        # for 1024**3 on one core with AVX2 alone).
        words = (b.load(b.bitcast(b.gep(pointer, [I64(4 * i)]), I32.as_pointer()), align=1) for i in (0, 1))
        return [b.bitcast(splat(b, word, 8), _WORDS) for word in words]

    def right(self, b, row):
        words = b.bitcast(row, _WORDS)
        even = b.and_(words, filled(_WORDS, 0x00FF))
        odd = b.lshr(words, filled(_WORDS, 8))
        return [even, odd]

    def product(self, b, acc, left, right):
        for x, y in zip(right, left):
            acc = b.add(acc, _madd_words(b, x, y))
        return acc


class Avx2Narrow(MicroKernel):
    """Codes of at most 7 bits: ``vpmaddubsw``, then ``vpmaddwd`` with ones."""

    target = Target("haswell", "+avx2")
    width = 32
    gemv_shapes = (Shape(1, 1, 2), Shape(2, 1, 2), Shape(4, 1, 1))

    def left(self, b, pointer):
        return b.bitcast(super().left(b, pointer), _BYTES)

    def right(self, b, row):
        return row

    def product(self, b, acc, left, right):
        pairs = b.call(declare(b, "llvm.x86.avx2.pmadd.ub.sw", _WORDS, [_BYTES, _BYTES]), [right, left])
        return b.add(acc, _madd_words(b, pairs, filled(_WORDS, 1)))
