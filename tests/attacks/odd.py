"""Odd values in every argument of every public function: what comes out is a result, or an error that is documented.

:func:`leaks` calls functions with odd arguments and yields what should not have come out: an exception of a class that
nobody documents, or words from inside (``object of type 'int' has no len()``) that say nothing of the argument.
``python -m tests.attacks.odd SEED COUNT`` makes a longer run.
"""

# ruff: noqa: C408, T201
from __future__ import annotations

import contextlib
import decimal  # noqa: F401
import fractions  # noqa: F401
import io
import os
import pathlib  # noqa: F401
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import fastq as fq
from fastq.calibration.choose_bits import bits_per_weight
from fastq.qarray.parts import put_together, take_apart
from tests.attacks.finding import Finding

PACKAGE = os.path.dirname(fq.__file__) + os.sep
RNG = np.random.default_rng(0)
W = RNG.standard_normal((48, 32)).astype(np.float32)
X = RNG.standard_normal((5, 48)).astype(np.float32)
SEEN = RNG.standard_normal((300, 48)).cumsum(axis=1)  # channels that go together, which gptq can use
Q, QX, ONE = fq.quantize(W, 4, axis=0), fq.quantize(X, axis=-1), fq.quantize(W, 4)
LOOP: list[Any] = []
LOOP.append(LOOP)
DEEP: list[Any] = []
for _ in range(2000):
    DEEP = [DEEP]


class OddError(Exception):
    """What odd objects raise themselves; it may come out."""


def fails(*args: Any, **kwargs: Any) -> Any:
    """Any method."""
    raise OddError


class NoArray:
    __array__ = fails


class NoRepr:
    __repr__ = fails


class NoLength:
    __len__ = __iter__ = fails


class NoIndex:
    __index__ = __float__ = __int__ = fails


class NoTruth:
    __bool__ = fails


class NoHash:
    __hash__ = fails
    __eq__ = fails


class TextIndex:
    def __index__(self) -> Any:
        return "x"


class Liar:
    shape, dtype, ndim = (5, 48), np.dtype("f4"), 2

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return "no array"


class Equal(str):
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("relu")


class Text(str):
    __repr__ = __str__ = fails


class Sub(np.ndarray):
    pass


VALUES: dict[str, Callable[[], Any]] = {
    text: (lambda text=text: eval(text, globals()))  # made anew: generators are used up
    for text in (
        "None", "True", "False", "0", "-1", "1", "3", "10**30", "-(10**30)", "10**5000", "2**31", "2**63", "2**64",
        "1.5", "-0.0", "np.nan", "np.inf", "1e308", "1j", "'x'", "''", "'float32'", "'int8'", "'relu'", "'mse'",
        "'gptq'", "b'x'", "b'\\xff'", "'\\ud800'", "'a\\0b'", "'/proc/self/mem'", "'f4,f4'", "'ij,jk->iz'",
        "bytearray(b'x')", "()", "[]", "{}", "set()", "(1,)", "[1, 2]", "[[1, 2], [3]]", "LOOP", "DEEP",
        "(i for i in range(3))", "range(3)", "{'w': W}", "{'w': 1}", "[W, W]", "[object()] * 3", "[[1] * 32] * 48",
        "[np.ones(3), np.ones(4)]", "[Q, 3]", "object()", "int", "NoArray", "NoArray()", "NoRepr()", "[NoRepr()]",
        "NoLength()", "NoIndex()", "NoTruth()", "NoHash()", "TextIndex()", "Liar()", "Equal()", "Text('relu')",
        "lambda v: v", "len", "np", "fq", "slice(None)", "Ellipsis", "NotImplemented", "fractions.Fraction(1, 3)",
        "fractions.Fraction(10**400)", "decimal.Decimal(2)", "decimal.Decimal('nan')", "np.int64(3)", "np.uint8(200)",
        "np.float32(2)", "np.bool_(True)", "np.str_('a')", "np.datetime64(1, 's')", "np.timedelta64(1, 's')",
        "np.array(3)", "np.array(None)", "np.array('s')", "np.array(True)", "np.array([], float)", "np.empty((0, 0))",
        "np.empty((0, 32), np.float32)", "np.empty((48, 0))", "np.ones(48)", "np.array([1, None], object)",
        "np.array([[1, 2]], 'c8')", "np.zeros(3, [('a', 'f4')])", "np.zeros((2, 2), 'M8[s]')",
        "np.full((48, 32), np.nan)", "np.ones((48, 32), bool)", "np.ones((5, 48), np.longdouble)",
        "np.ones((1,) * 30)", "np.zeros((48, 32), 'S3')", "np.zeros((48, 32), 'V0')", "np.ma.masked_all((48, 32))",
        "np.matrix('1 2')", "np.zeros((48, 32)).view(Sub)", "np.broadcast_to(np.float32(1), (48, 32))", "np.ones(32)",
        "np.zeros(32)", "-np.ones((1, 32))", "np.ones((48, 32), '>f8')", "np.ones(48, np.float32)",
        "memoryview(b'abc')", "np.ones(2)", "Q", "QX", "Q.T", "Q[:, :0]", "fq.quantize(W, 3, axis=0, group_size=16)",
        "fq.quantize(np.float32(3))", "fq.quantize(W, 5, axis=1, group_size=7, scheme='affine')",
        "fq.quantize(W, axis=0, balance=np.ones(48))", "fq.quantize(W, 3, axis=0, rotate=True)",
        "fq.quantize(np.ones(3))", "fq.Percentile(50)", "fq.Gptq()", "fq.SecondMoment(48)", "fq.SecondMoment.of(X)",
        "fq.Calibrator()", "fq.Calibrator().update(X)", "np.dtype('f4')", "np.dtype('O')",
        "np.dtype('V4')", "np.float16", "np.int8", "np.dtype('f4').newbyteorder()", "pathlib.Path('nowhere/x')",
        "io.StringIO()", "io.BytesIO()",
    )
}  # fmt: skip
VALUES["'x' * 10**5"] = lambda: "x" * 10**5  # as a path too long for the system


class Target(NamedTuple):
    """A function with arguments that are right, and what it may raise beside TypeError and ValueError."""

    name: str
    call: Callable[..., Any]
    arguments: dict[str, Any]
    may: tuple[type[BaseException], ...] = ()


FORM = dict(
    x=W, bits=4, axis=0, group_size=16, scheme="symmetric", group_scale=None, method="minmax", calibration=None,
    scale=None, zero_point=None, balance=None, rotate=False, out=None, progress=False,
)  # fmt: skip
PARTS = fq.quantize(W, 4, axis=0, group_size=16, scheme="asymmetric", group_scale="float").parts()
PARTS |= dict(packed=False, shape=(48, 32), order=RNG.permutation(48), balance=np.ones(48), rotation=16,
              activations="row")  # fmt: skip
GROUPED = fq.quantize(W, 3, axis=0, group_size=16).parts(packed=True) | dict(group_scale=2)
OPTIONS = dict(axes=[(0, 1), (0, 1), (0, 1)], casting="same_kind", order="K", subok=True)


def _public() -> Iterator[Target]:
    yield Target("quantize", fq.quantize, FORM, (OSError,))
    yield Target("quantize, gptq", fq.quantize, FORM | dict(method="gptq", calibration=SEEN), (OSError,))
    own = dict(scheme="asymmetric", scale=0.1, zero_point=3, group_scale="float")
    yield Target("quantize, static", fq.quantize, FORM | own, (OSError,))
    yield Target("quantize, rotated", fq.quantize, FORM | dict(balance=np.ones(48), rotate=True), (OSError,))
    yield Target("from_parts", fq.from_parts, PARTS)
    yield Target("from_parts, packed", fq.from_parts, GROUPED)
    right = dict(bits=8, bias=None, epilogue=None, dtype=None)
    yield Target("matmul", fq.matmul, dict(a=X, b=Q, out=None, **right))
    floats = dict(a=X, b=W, out=np.empty((5, 32), np.float32), bits=8, bias=np.ones(32), epilogue="relu", dtype="f4")
    yield Target("matmul, floats", fq.matmul, floats | OPTIONS)
    integers = dict(a=X.astype(np.int8), b=W.astype(np.int8), out=None, **right)
    yield Target("matmul, integers", fq.matmul, integers, (OverflowError,))
    yield Target("matmul, codes", fq.matmul, dict(a=X, b=Q, **right) | dict(dtype=np.uint8, scale=0.5, zero_point=3))
    search = dict(x=X, q=Q, k=3, axis=0, largest=True, rescore=None, oversample=2, bias=None, where=None, out=None)
    yield Target("top_k", fq.top_k, search, (OverflowError,))
    again = dict(
        rescore=W.T, bias=np.ones(32), where=np.ones(32, bool), out=(np.ones((5, 3)), np.ones((5, 3), np.int64))
    )
    yield Target("top_k, rescored", fq.top_k, search | again, (OverflowError,))
    found = [(np.ones((5, 3)), np.ones((5, 3), np.int64))] * 2
    yield Target("merge_top_k", fq.merge_top_k, dict(parts=found, k=2, largest=True))
    yield Target("matmul_error_bound", fq.matmul_error_bound, dict(a=X, b=Q, bits=8))
    yield Target("dequantize", fq.dequantize, dict(q=Q, dtype=np.float32, out=None))
    yield Target("error", fq.error, dict(x=W, y=Q, axis=0, group_size=16))
    yield Target("error_matmul", fq.error_matmul, dict(x=X, w=W, q=Q))
    yield Target("balance", fq.balance, dict(x_stats=X, w=W, strength=0.5))
    choice = dict(calibration=X, group_sizes=(None, 16), bits=(3, 8), method="mse", scheme="symmetric", report=False)
    yield Target("choose_bits", fq.choose_bits, dict(w=W, sqnr=20, budget=None, **choice))
    yield Target("choose_bits, mix", fq.choose_bits, dict(w={"w": W}, budget=6, **choice) | dict(calibration={"w": X}))
    yield Target("bits_per_weight", lambda scheme: bits_per_weight(64, 3, 16, scheme), dict(scheme="affine"))
    yield Target("set_num_threads", fq.set_num_threads, dict(threads=None))
    yield Target("show_config", fq.show_config, dict(file=None))
    yield Target("load", fq.load, dict(path="nowhere", mmap=True), (OSError,))
    yield Target("open", fq.open, dict(path="nowhere"), (OSError,))
    yield Target("save", fq.save, dict(path="model", mapping={"w": W}), (OSError,))
    whole = dict(
        mapping={"w": W}, bits={"w": 4}, axis=0, group_size=16, scheme="symmetric", group_scale=None, method="mse",
        calibration={"w": X}, include=["w"], exclude=None, out=None, progress=None,
    )  # fmt: skip
    yield Target("quantize_all", fq.quantize_all, whole, (OSError,))
    by_function = dict(bits=8, include=None, exclude=lambda name: name == "x", calibration=None, out="model")
    yield Target("quantize_all, out", fq.quantize_all, whole | by_function, (OSError,))
    yield Target("Percentile", fq.Percentile, dict(share=99))
    yield Target("Gptq", fq.Gptq, dict(damping=0.01, activation_order=False, sweeps=1))
    yield Target("Calibrator", fq.Calibrator, dict(bits=8, scheme="symmetric", axis=None, method="minmax"))
    yield Target("Calibrator.update", lambda **k: fq.Calibrator().update(**k), dict(batch=X))
    yield Target("Calibrator.parameters", lambda x: fq.Calibrator(method="mse").update(x).parameters(), dict(x=X))
    yield Target("Calibrator.run", lambda **k: fq.Calibrator().run(**k), dict(batches=[X], progress=False, total=2))
    yield Target("Calibrator.quantize", lambda **k: fq.Calibrator().update(X).quantize(**k), dict(x=X))
    yield Target("SecondMoment", fq.SecondMoment, dict(k=48))
    yield Target("SecondMoment.of", fq.SecondMoment.of, dict(calibration=[X, X], progress=None))
    yield Target("SecondMoment.update", lambda **k: fq.SecondMoment(48).update(**k), dict(x=X))
    yield Target("QArray", fq.QArray, dict(x=X))
    yield Target("put_together", put_together, dict(zip(("arrays", "attributes"), take_apart(Q))))


def _attribute(**changed: Any) -> Any:
    arrays, attributes = take_apart(Q)
    return put_together(arrays, attributes | changed)


def _methods() -> Iterator[Target]:
    yield Target("put_together, attributes", _attribute, take_apart(Q)[1])
    yield Target("q.dequantize", Q.dequantize, dict(dtype=None, out=None))
    yield Target("q.parts", Q.parts, dict(packed=False))
    yield Target("q.astype", Q.astype, dict(dtype="f4"))
    yield Target("q.save", Q.save, dict(path="there", overwrite=True), (OSError,))
    yield Target("q.equals", Q.equals, dict(other=Q))
    yield Target("q.dot", QX.dot, dict(other=W))
    yield Target("q.swapaxes", Q.swapaxes, dict(axis1=0, axis2=1))
    for name, value in dict(reshape=(48, 2, 16), transpose=(1, 0), __mul__=2, __rmul__=2, __rmatmul__=X).items():
        yield Target(f"q.{name}", lambda v, name=name: getattr(Q, name)(v), dict(v=value))
    yield Target("q @ v", lambda v: QX @ v, dict(v=W))
    index = IndexError, OverflowError  # NumPy raises the latter for 2**63
    yield Target("q[v]", lambda v: Q[v], dict(v=1), index)
    yield Target("q[i, j]", lambda i, j: Q[i, j], dict(i=0, j=slice(None)), index)
    yield Target("q.reshape(i, j)", lambda i, j: Q.reshape(i, j), dict(i=48, j=32))
    yield Target("q / v", lambda v: Q / v, dict(v=2), (ZeroDivisionError,))
    yield Target("q[0] = v", lambda v: Q.__setitem__(0, v), dict(v=2))
    yield Target("x @ q", lambda x: x @ Q, dict(x=X))
    yield Target("x @ q, reordered", lambda x: x @ fq.from_parts(**PARTS | dict(rotation=1, balance=None)), dict(x=X))


def _numpys() -> Iterator[Target]:
    for name, arguments in {
        "concatenate": dict(arrays=[Q, Q], axis=0, out=None, dtype=None, casting="same_kind"),
        "stack": dict(arrays=[Q, Q], axis=0), "vstack": dict(tup=[Q, Q]), "column_stack": dict(tup=[Q, Q]),
        "take": dict(a=Q, indices=[1, 2], axis=0, out=None, mode="raise"), "hsplit": dict(ary=Q, indices_or_sections=2),
        "split": dict(ary=Q, indices_or_sections=2, axis=0), "moveaxis": dict(a=Q, source=0, destination=1),
        "rollaxis": dict(a=Q, axis=0, start=1), "expand_dims": dict(a=Q, axis=0), "squeeze": dict(a=Q, axis=None),
        "tensordot": dict(a=X, b=Q, axes=1), "rot90": dict(m=Q, k=1, axes=(0, 1)), "array_equal": dict(a1=Q, a2=Q),
        "flip": dict(m=Q, axis=0), "compress": dict(condition=[True] * 48, a=Q, axis=0), "size": dict(a=Q, axis=0),
        "zeros_like": dict(a=Q, dtype=None, order="K", subok=True, shape=None), "ravel": dict(a=ONE, order="C"),
        "full_like": dict(a=Q, fill_value=1, dtype=None), "reshape": dict(a=Q, shape=(48, 2, 16), order="C"),
        "transpose": dict(a=Q, axes=None), "swapaxes": dict(a=Q, axis1=0, axis2=1), "dot": dict(a=X, b=Q, out=None),
        "inner": dict(a=X, b=Q.T), "vdot": dict(a=ONE, b=W), "allclose": dict(a=Q, b=W, rtol=1e-5, atol=1e-8),
        "can_cast": dict(from_=Q, to="f8", casting="safe"),
    }.items():  # fmt: skip
        func = getattr(np, name)
        positional = name in ("concatenate", "inner", "reshape", "dot", "vdot", "can_cast")
        named = ("concatenate", *("reshape",) * (np.lib.NumpyVersion(np.__version__) >= "2.1.0"))  # but for the first
        call = _in_order(func, 1 if name in named else 2) if positional else func
        yield Target(f"np.{name}", call, arguments, (IndexError,))
    yield Target("np.einsum", lambda s, a, out, dtype: np.einsum(s, a, Q, out=out, dtype=dtype),
                 dict(s="ij,jk", a=X, out=None, dtype=None))  # fmt: skip
    yield Target("np.einsum of lists", lambda i, j, k: np.einsum(X, i, Q, j, k), dict(i=[0, 1], j=[1, 2], k=[0, 2]))
    yield Target("np.multiply", lambda v: np.multiply(Q, v), dict(v=2))
    yield Target("np.divide", lambda v: np.divide(Q, v), dict(v=2), (ZeroDivisionError,))
    for name in ("vecdot", "matvec"):
        if hasattr(np, name):
            yield Target(f"np.{name}", lambda v, name=name: getattr(np, name)(Q.T, v), dict(v=X[0]))
            yield Target(f"np.{name}, left", lambda v, name=name: getattr(np, name)(v, Q[:, 0]), dict(v=X))
    keywords = dict(out=None, dtype=None, casting="same_kind", order="K")
    yield Target("np.matmul", lambda a, **k: np.matmul(a, Q, **k), dict(a=X, **keywords))


def _in_order(func: Any, count: int) -> Callable[..., Any]:
    """A function some of whose arguments have no names."""

    def call(**arguments: Any) -> Any:
        values = list(arguments.values())
        return func(*values[:count], **dict(list(arguments.items())[count:]))

    return call


TARGETS = [*_public(), *_methods(), *_numpys()]
CALLBACKS = ("progress", "report")  # what a user's function raises comes out
# Of what NumPy shapes, NumPy's own words are good enough; Python's about our code are not.
PYTHONS = re.compile(
    "has no len|has no attribute|index out of range|unhashable|not in list|recursion|positional argument"
)
INSIDE = re.compile(
    r"cannot reshape|has no len|index out of range|not subscriptable|not iterable|unsupported operand|not supported "
    r"between|bad operand|has no attribute|truth value|unhashable|not in list|to unpack|positional argument|recursion|"
    r"could not be broadcast together with shapes|scalar arrays can be converted|not callable|modulo by zero|Cannot "
    r"compare|Cannot cast array data|an integer is required|negative dimensions|invalid literal|could not convert|null "
    r"byte|expected str|too large to convert|Exceeds the limit|can't multiply|local variable|NoneType"
)


class Case(NamedTuple):
    """A call with odd values, by their names in VALUES."""

    target: Target
    odd: dict[str, str]

    def __str__(self) -> str:
        return f"{self.target.name}({', '.join(f'{k}={v}' for k, v in self.odd.items())})"


def singles() -> list[Case]:
    """Every argument with every odd value."""
    return [Case(target, {key: value}) for target in TARGETS for key in target.arguments for value in VALUES]


def calls(seed: int, count: int) -> Iterator[Case]:
    """Random calls with up to three odd values."""
    random, values = np.random.default_rng(seed), list(VALUES)
    for _ in range(count):
        target = TARGETS[random.integers(len(TARGETS))]
        keys = list(target.arguments)
        odd = {
            keys[random.integers(len(keys))]: values[random.integers(len(values))] for _ in range(random.integers(1, 4))
        }
        if target.name != "np.tensordot" or odd.get("axes") not in HUGE:
            yield Case(target, odd)


# Of so many axes NumPy's own tensordot, if no quantized array takes part, makes lists that fill the memory.
HUGE = ("2**31", "2**63", "2**64")


def leak(case: Case) -> str | None:
    """What comes out that should not, if anything does."""
    target = case.target
    try:
        target.call(**target.arguments | {key: VALUES[value]() for key, value in case.odd.items()})
    except OddError:
        return None
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(PACKAGE)]
        frames = [f for f in frames if f.name != "__getattr__"]  # what the module says when NumPy takes it for an array
        if not frames or (isinstance(error, Exception) and any(key in CALLBACKS for key in case.odd) and
                          "NumPy" not in str(error) and _callback(case)):  # fmt: skip
            return None  # NumPy has not asked fastq, or the user's function has failed
        documented = isinstance(error, (TypeError, ValueError, *target.may))
        if documented and (isinstance(error, OSError) or _in_words(case, error)):
            return None
        where = f"{os.path.relpath(frames[-1].filename, PACKAGE)}:{frames[-1].lineno}"
        return f"{case} -> {type(error).__name__}: {str(error)[:120]} [{where}]"
    return None


def _in_words(case: Case, error: BaseException) -> bool:
    """Whether the message is about an argument."""
    words = str(error)
    if "must" in words or "takes" in words:
        return True
    if not words and np.lib.NumpyVersion(np.__version__) < "2.1.0":
        return True  # NumPy 2.0 says nothing of some pairs of odd arguments of np.matmul
    if "unsupported operand" in words and case.target.name.startswith("matmul"):
        return True  # what objects say of each other, when NumPy multiplies them
    frames = [frame.filename.replace(os.sep, "/") for frame in traceback.extract_tb(error.__traceback__)]
    if any("/numpy/ma/" in name for name in frames):
        return True  # masked arrays wrap no product of their own shape, by np.matmul neither
    shaped = case.target.name.startswith(("np.", "q", "x @")) and not case.target.name.startswith("quantize")
    pattern = PYTHONS if shaped else INSIDE
    return bool(words.strip()) and ((shaped and "/numpy/" in frames[-1]) or not pattern.search(words))


def _callback(case: Case) -> bool:
    return any(callable(VALUES[value]()) for key, value in case.odd.items() if key in CALLBACKS)


def leaks(cases: Any) -> Iterator[str]:
    """Those of many calls, in a folder of their own and without a word on the screen."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(place)
        try:
            for case in cases:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    found = leak(case)
                if found is not None:
                    yield found
        finally:
            os.chdir(here)
            fq.set_num_threads(None)


# As an attack of many


def instruction_sets(have: Any) -> tuple[None]:
    """One will do: arguments are looked at before it matters."""
    return (None,)


def case(seed: int) -> None:
    """Calls with random pairs of odd arguments."""
    for found in leaks(calls(seed, 200)):
        raise Finding(found)


if __name__ == "__main__":
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    cases = [*singles(), *calls(seed, count)]
    found = list(leaks(cases))
    print(f"{len(cases)} calls, {len(found)} leaks", *found, sep="\n  ")
