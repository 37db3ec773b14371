"""An encoder layer of a small language model (MiniLM, BERT): the products of a real program, and what is between them.

12 heads, 384 wide, 128 tokens, batches of 1 and 32; random weights, real structure. Weights have 8 bits by column; bias
and gelu are fused. The float32 program is the same in NumPy, with gelu by tanh, as models write it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import fastq as fq
from fastq.bench.rounds import Entry
from fastq.bench.run import NUMPY

HEADS, WIDTH, TOKENS, INNER = 12, 384, 128, 1536
BATCHES = (1, 32)
BASELINE = {"baseline": True, "library": NUMPY}
LAYERS = {"query, key, value": (WIDTH, 3 * WIDTH), "attention output": (WIDTH, WIDTH), "MLP in": (WIDTH, INNER),
          "MLP out": (INNER, WIDTH)}  # fmt: skip


class Linear(NamedTuple):
    """Weights of one layer, in float32 and in 8 bits."""

    w: Any
    q: fq.QArray
    bias: Any

    def numpy(self, x, gelu=False):
        y = x @ self.w
        y += self.bias
        return gelu_by_tanh(y) if gelu else y

    def fastq(self, x, gelu=False):
        return fq.matmul(x, self.q, bias=self.bias, epilogue="gelu" if gelu else None)


def gelu_by_tanh(y):
    inner = y * y
    inner *= y
    inner *= np.float32(0.044715)
    inner += y
    inner *= np.float32(np.sqrt(2 / np.pi))
    np.tanh(inner, out=inner)
    inner += 1
    inner *= y
    inner *= np.float32(0.5)
    return inner


def normalized(x):
    x = x - x.mean(axis=-1, keepdims=True)
    x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(1e-5))
    return x


def softmax(scores):
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def heads(x):
    """(batch, tokens, heads * d) as (batch, heads, tokens, d)."""
    return np.ascontiguousarray(x.reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2))


def layer(x, linear, by):
    """The whole layer; ``by(layer)`` gives the product of one of its four weights."""
    query, key, value = map(heads, np.split(by(linear["query, key, value"])(x), 3, axis=-1))
    query *= np.float32((WIDTH // HEADS) ** -0.5)
    context = softmax(query @ key.mT) @ value
    context = np.ascontiguousarray(context.swapaxes(1, 2)).reshape(x.shape)
    x = normalized(x + by(linear["attention output"])(context))
    return normalized(x + by(linear["MLP out"])(by(linear["MLP in"])(x, gelu=True)))


@pytest.fixture
def batch(request, quick):
    """Sentences."""
    return min(request.param, 2) if quick else request.param


@pytest.fixture(scope="module")
def linear():
    rng = np.random.default_rng(0)

    def made(k, n):
        w = rng.standard_normal((k, n), dtype=np.float32) / np.float32(np.sqrt(k))
        return Linear(w, fq.quantize(w, axis=0).prepack(), rng.standard_normal(n, dtype=np.float32))

    return {name: made(*shape) for name, shape in LAYERS.items()}


def tokens(batch, width=WIDTH):
    return np.random.default_rng(1).standard_normal((batch, TOKENS, width), dtype=np.float32)


@pytest.mark.parametrize("batch", BATCHES, indirect=True)
def bench_layer(contest, linear, batch):
    x = tokens(batch)
    ways = {
        "NumPy": lambda: layer(x, linear, lambda one: one.numpy),
        "fastq": lambda: layer(x, linear, lambda one: one.fastq),
    }
    expected, answer = (way() for way in ways.values())
    assert np.linalg.norm(answer - expected) < 0.03 * np.linalg.norm(expected)
    contest(f"encoder layer, batch {batch}",
            [Entry(name, way, BASELINE if name == "NumPy" else {}) for name, way in ways.items()])  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("batch", BATCHES, indirect=True)
def bench_weights(contest, linear, batch, name):
    """One product in a loop of its own, and amid other work: x made anew, the result fresh and used."""
    one, gelu = linear[name], name == "MLP in"
    x, rest = tokens(batch, LAYERS[name][0]), tokens(batch)
    last = []

    def other_work():
        """What goes on between two products of a program: arrays come and go, and the last result is used."""
        if last:
            softmax(last.pop())
        normalized(rest + 1)
        return x + np.float32(0)

    def amid(way):
        return lambda x: last.append(way(x, gelu))

    contest(
        f"encoder: {name}, batch {batch}",
        [
            Entry("NumPy", lambda: one.numpy(x, gelu), BASELINE),
            Entry("fastq", lambda: one.fastq(x, gelu)),
            Entry("NumPy, amid other work", amid(one.numpy), {"library": NUMPY}, fresh=other_work),
            Entry("fastq, amid other work", amid(one.fastq), fresh=other_work),
        ],
    )


@pytest.mark.parametrize("name", ["scores", "context"])
@pytest.mark.parametrize("batch", BATCHES, indirect=True)
def bench_attention(contest, batch, name):
    """The products of two activations, which nobody has packed: small matrices, in stacks."""
    a, b = heads(tokens(batch)), heads(tokens(batch) + 1).mT
    if name == "context":
        a, b = softmax(a @ b), b.mT
    expected = a @ b
    assert np.linalg.norm(fq.matmul(a, b) - expected) < 0.03 * np.linalg.norm(expected)
    contest(
        f"encoder: attention {name}, batch {batch}",
        [Entry("NumPy", lambda: a @ b, BASELINE), Entry("fastq", lambda: fq.matmul(a, b))],
    )
