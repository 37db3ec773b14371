"""The best k of each row of a product, kept while its sums are in the cache; the product is written nowhere.

Each thread has a heap per row, whose root is the worst of what it keeps. A vector of values is compared with the root
of its row, and mostly dropped. Of equal values, the one with the lower index is better, and NaN is worse than any
number; so what is kept depends neither on the order in which blocks come nor on the number of threads. A second kernel
joins the heaps of all threads and sorts them.

Where the smallest are wanted, values are turned over on the way in and out: floats change their sign, integers all
their bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.epilogue.outputs import Output
from fastq.kernels.epilogue.terms import TYPES
from fastq.kernels.floats import from_float16, to_float16
from fastq.kernels.jobs import MatmulJob
from fastq.layout.tiles import BLOCK
from fastq.machine.ir import (
    HOST,
    I16,
    I32,
    I64,
    at,
    cast_to,
    field,
    ir_function,
    kernel_function,
    load_at,
    loop,
    splat,
    stack,
    store_vector,
    take,
)

MOST_ROWS, MOST_BLOCKS = 32, 3  # of a register block


@kernel_function
def _better(v, i, w, j):
    """Whether value v with index i comes before w with j."""
    if v > w:
        return True
    if v < w:
        return False
    if v == w:
        return i < j
    return (w != w) and (v == v or i < j)


@kernel_function
def _sink(values, indices, count, v, i):
    """Put an element in the place of the root."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        if child + 1 < count and _better(values[child], indices[child], values[child + 1], indices[child + 1]):
            child += 1
        if not _better(v, i, values[child], indices[child]):
            break
        values[place], indices[place] = values[child], indices[child]
        place = child
    values[place], indices[place] = v, i


@kernel_function
def _push(values, indices, count, k, v, i):
    """Add an element, unless k better ones are there; gives how many there are."""
    if count == k:
        if _better(v, i, values[0], indices[0]):
            _sink(values, indices, count, v, i)
        return count
    place = count
    while place > 0:
        parent = (place - 1) // 2
        if not _better(values[parent], indices[parent], v, i):
            break
        values[place], indices[place] = values[parent], indices[parent]
        place = parent
    values[place], indices[place] = v, i
    return count + 1


@kernel_function
def _negated(value):
    return -value


@kernel_function
def _inverted(value):
    return ~value


def _turn(kind: str) -> Any:
    return _inverted if kind == "int32" else _negated


def _view(kind: str) -> Any:
    return cast_to({"int32": "i32*", "float32": "f32*", "float64": "f64*"}[kind])


@kernel_function
def kept(job, block, count):
    """Whether one of some blocks of columns may be among the best."""
    found = False
    for c in range(count):
        found |= job.keep[block + c] != 0
    return found


def select(output: Output, pitch: int) -> Any:
    """``select(job, thread, sums, row, rows, block, blocks)``: take in a tile of values, as the epilogue left them.

    The arguments are those of :func:`fastq.kernels.epilogue.rescale.epilogue`.
    """
    scan, planes, turn = _scan(output, pitch), output.planes, _turn(output.computed)
    view = _view(output.computed)
    hits_room = stack(4 * (1 + MOST_ROWS * MOST_BLOCKS), "i32*")

    @kernel_function
    def take_in(job, thread, sums, row, rows, block, blocks):
        row, rows = row // planes, rows // planes
        first, hits = thread * job.top_rows + row, hits_room()
        limits = at(view(job.top_limits), first)
        scan(job, sums, job.top_limits, first, rows, block, blocks, hits)
        if hits[0] == 0:
            return
        tile = view(sums)
        for r in range(rows):
            for c in range(blocks):
                hit = hits[1 + r * blocks + c]
                lane = 0
                while hit != 0:
                    if hit & 1:
                        heap = (first + r) * job.top_k
                        values = at(view(job.top_values), heap)
                        indices = at(job.top_indices, heap)
                        counts = at(job.top_counts, first + r)
                        value = tile[r * pitch + c * BLOCK + lane]
                        if job.top_smallest:
                            value = turn(value)
                        counts[0] = _push(values, indices, counts[0], job.top_k, value, (block + c) * BLOCK + lane)
                        if counts[0] == job.top_k:
                            limits[r] = values[0]
                    hit >>= 1
                    lane += 1

    return take_in


def _scan(output: Output, pitch: int) -> Any:
    """``scan(job, sums, limits, first, rows, block, blocks, hits)``: compare a tile with the limits of its rows.

    ``hits[1 + r * blocks + c]`` gets a bit for each column of a block that may belong to the best: all that are not
    below the limit, NaN too. ``hits[0]`` is 0 if there is none.
    """
    kind = TYPES[output.computed]
    vector = ir.VectorType(kind, BLOCK)

    def emit(b, job, sums, limits, first, rows, block, blocks, hits):
        smallest = b.icmp_signed("!=", field(b, MatmulJob, job, "top_smallest"), I64(0))
        keep = b.bitcast(field(b, MatmulJob, job, "keep"), I16.as_pointer())

        def one_row(r, any_hit):
            limit = splat(b, load_at(b, limits, b.add(first, r), kind), BLOCK)

            def one_block(c, any_hit):
                here = b.gep(b.bitcast(sums, kind.as_pointer()), [b.add(b.mul(r, I64(pitch)), b.mul(c, I64(BLOCK)))])
                value = load_at(b, here, I64(0), vector)
                if output.type == "float16":  # values are compared as they come out
                    value = from_float16(b, to_float16(b, value))
                    store_vector(b, value, here)
                if kind == I32:
                    value = b.select(smallest, b.not_(value), value)
                    passes = b.icmp_signed(">=", value, limit)
                else:
                    value = b.select(smallest, b.fneg(value), value)
                    passes = b.fcmp_unordered(">=", value, limit)
                mask = b.and_(b.bitcast(passes, I16), load_at(b, keep, b.add(block, c), I16))
                mask = b.zext(mask, I32)
                b.store(mask, b.gep(hits, [b.add(I64(1), b.add(b.mul(r, blocks), c))]))
                return [b.or_(any_hit[0], mask)]

            return loop(b, I64(0), blocks, 1, any_hit, one_block)

        (any_hit,) = loop(b, I64(0), rows, 1, [I32(0)], one_row)
        b.store(any_hit, hits)

    kinds = (MatmulJob, "u8*", "u8*", "int", "int", "int", "int", "i32*")
    return ir_function(f"fastq_top_scan_{output.type}_{pitch}", kinds, HOST, emit)


def finish(kind: str) -> Any:
    """Join the threads' heaps of each row in the first one, and sort it, the best first."""
    view = _view(kind)
    turn = _turn(kind)

    @kernel_function
    def top_finish(job):
        all_values, all_indices, all_counts = view(job.values), job.indices, job.counts
        row = take(job, 1)
        while row < job.rows:
            values, indices = at(all_values, row * job.k), at(all_indices, row * job.k)
            count = all_counts[row]
            for thread in range(1, job.threads):
                other = thread * job.rows + row
                for i in range(other * job.k, other * job.k + all_counts[other]):
                    count = _push(values, indices, count, job.k, all_values[i], all_indices[i])
            for last in range(count - 1, 0, -1):
                v, i = values[last], indices[last]
                values[last], indices[last] = values[0], indices[0]
                _sink(values, indices, last, v, i)
            if job.smallest:
                for i in range(count):
                    values[i] = turn(values[i])
            row = take(job, 1)

    return top_finish
