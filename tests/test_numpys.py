"""``np.matmul = fq.matmul`` in a program: what fastq leaves to NumPy goes to NumPy's own functions."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import fastq as fq
from fastq import numpys

from .cases import instruction_set

PACKAGE = Path(fq.__file__).parent
NAMES = ("matmul", "dot", "vdot", "inner", "tensordot", "einsum", "vecdot", "matvec", "vecmat")
SOLVERS = ("matmul", "tensordot", "vecdot", "multi_dot", "solve", "cholesky", "inv")

rng = np.random.default_rng(5)
F, G = rng.standard_normal((4, 8)).astype(np.float32), rng.standard_normal((8, 5)).astype(np.float32)
Q, LEFT = fq.quantize(G, axis=0), fq.quantize(F, axis=-1)
M, N = (30 * F).astype(np.int32), (30 * G).astype(np.int32)
SEEN = rng.standard_normal((100, 8)).cumsum(axis=1)  # channels that go together, which gptq can use
MASKED = np.ma.array(F, mask=F > 1)


class Foreign:
    """An array of another library."""

    shape, ndim = (4, 8), 2

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return ufunc.__name__, ufunc.signature


CASES = {
    "floats": lambda: fq.matmul(F, G),
    "integers": lambda: fq.matmul(M, N),
    "integers and a bias": lambda: fq.matmul(M, N, bias=1),
    "bool": lambda: fq.matmul(F > 0, G > 0),
    "complex": lambda: fq.matmul(F * 1j, G),
    "objects": lambda: fq.matmul(F.astype(object), G.astype(object)),
    "longdouble": lambda: fq.matmul(F.astype(np.longdouble), G),
    "matrix": lambda: fq.matmul(np.matrix(F), np.matrix(G)),
    "masked": lambda: fq.matmul(MASKED, G),
    "masked integers": lambda: fq.matmul(np.ma.array(M, mask=M > 9), N),
    "shapes that differ": lambda: fq.matmul(F, F),
    "an out of another shape": lambda: fq.matmul(F, G, np.empty((1, 1), np.float32)),
    "axes that are none": lambda: fq.matmul(F, G, axes=3),
    "a type that no cast gives": lambda: fq.matmul(F, G, dtype=np.int32),
    "bound": lambda: fq.matmul_error_bound(F, Q),
    "bound of integers": lambda: fq.matmul_error_bound(M, N),
    "bound of complex": lambda: fq.matmul_error_bound(F * 1j, G),
    "another library's": lambda: fq.matmul(Foreign(), G),
    "x @ q": lambda: F @ Q,
    "q @ another library's": lambda: Q @ Foreign(),
    "q @ x": lambda: LEFT @ G,
    "q @ q": lambda: LEFT @ Q,
    "q.dot": lambda: LEFT.dot(G),
    "q.dot of a stack": lambda: LEFT.dot(np.stack([G, G])),
    "gptq": lambda: fq.quantize(G, 3, axis=0, method="gptq", calibration=SEEN).codes,
    "error": lambda: str(fq.error(F, LEFT)),
    "error_matmul": lambda: str(fq.error_matmul(F, G, Q)),
    "choose_bits": lambda: fq.choose_bits(G, sqnr=10, calibration=F, report=False),
    "balance": lambda: fq.balance(F, G),
    "moment": lambda: fq.SecondMoment.of(F).matrix,
}

# NumPy's functions of other names, which are what they were, with quantized arrays and without.
OTHERS = {
    "ndarray.dot": lambda: M.dot(N),
    "masked @": lambda: MASKED @ G,
    "masked add": lambda: MASKED + 1,
    "einsum": lambda: np.einsum("ij,jk", F, Q),
    "einsum, optimized": lambda: np.einsum("ij,jk,kl", F, G, G.T, optimize=True),
    "tensordot": lambda: np.tensordot(F, Q, 1),
    "inner": lambda: np.inner(F, Q.T),
    "linalg.matmul": lambda: np.linalg.matmul(M, N),
    "multi_dot": lambda: np.linalg.multi_dot([F, Q]),
    "matrix_power": lambda: np.linalg.matrix_power(M[:, :4], 3),
    "lstsq": lambda: np.linalg.lstsq(G, G[:, 0], rcond=None)[0],
    "cov": lambda: np.cov(F),
}


def outcome(call):
    """What can be compared: a type with elements, or the class of an exception and its words."""
    try:
        y = call()
    except Exception as error:
        return type(error), str(error)
    return (type(y), y.dtype, np.ma.getmaskarray(y).tolist(), y.tolist()) if isinstance(y, np.ndarray) else repr(y)


@pytest.fixture
def patched(monkeypatch):
    """A function that puts ``fq.matmul`` where NumPy's functions of these names are."""

    def patch(*names, linalg=()):
        for name in names:
            monkeypatch.setattr(np, name, fq.matmul, raising=False)
        for name in linalg:
            monkeypatch.setattr(np.linalg, name, fq.matmul)

    return patch


@pytest.mark.parametrize("name", CASES)
def test_products_are_what_they_are_without(patched, name):
    wanted = outcome(CASES[name])
    patched("matmul")
    assert outcome(CASES[name]) == wanted
    patched(*NAMES, linalg=SOLVERS)
    assert outcome(CASES[name]) == wanted


@pytest.mark.parametrize("name", OTHERS)
def test_other_functions_of_numpy_are_what_they_are_without(patched, name):
    wanted = outcome(OTHERS[name])
    patched("matmul", "dot")
    assert outcome(OTHERS[name]) == wanted


def test_the_reference_too(patched):
    with instruction_set("reference"):
        wanted = F @ Q
        patched(*NAMES, linalg=SOLVERS)
        assert np.array_equal(F @ Q, wanted)


def test_the_name_in_numpy_is_of_fastq(patched):
    patched("matmul", "dot")
    assert np.array_equal(np.matmul(F, Q), F @ Q)
    assert np.array_equal(np.dot(F, G), fq.matmul(F, G))


def test_no_other_file_takes_them_from_numpy():
    """Each ``np.matmul`` and the like in the source, in code, not in words."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute) or path.name == "numpys.py":
                continue
            owner = ast.unparse(node.value)
            if (owner in ("np", "numpy", "np.ma") and node.attr in NAMES) or (
                owner in ("np.linalg", "numpy.linalg") and node.attr in (*SOLVERS, "cross", "outer", "inv", "lstsq")
            ):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not found


def test_what_is_kept_is_numpys():
    assert numpys.matmul is np.matmul
    assert isinstance(numpys.matmul, np.ufunc)
