"""Products that repeat: what the short way gives is what the long way gave."""

from __future__ import annotations

import numba
import numpy as np
import pytest

import fastq as fq
from fastq.engine import prepared
from fastq.kernels.table import ISAS
from fastq.machine import cpu
from fastq.products import repeated
from fastq.qarray.parts import put_together, take_apart
from tests.cases import NATIVE, instruction_set


@numba.njit
def halved(y):
    return y / 2


def short_way(a, b, out=None, bias=None, epilogue=None, dtype=None):
    """A product by the fast path; None where there is none."""
    return repeated.again(a, b, out, bias, (epilogue, dtype, None))


def long_way(a, q, **options):
    """A product whose right operand keeps none that is prepared."""
    q.ready.clear()
    return fq.matmul(a, q, **options)


FORMS = [{"bits": 8}, {"bits": 3, "group_size": 32}, {"bits": 4, "scheme": "asymmetric"}]
EPILOGUES = [{"epilogue": "gelu"}, {"epilogue": halved}, {"dtype": np.float16}]


@pytest.mark.parametrize("isa", NATIVE, indirect=True)
@pytest.mark.parametrize(
    ("form", "every"),
    [
        pytest.param(form, every, marks=pytest.mark.exhaustive if every == EPILOGUES and form != FORMS[0] else [])
        for form in FORMS
        for every in ([{}, {"bias": True}], EPILOGUES)
    ],
)
@pytest.mark.parametrize("shape", [(1, 64), (64,), (5, 70), (33, 200), (2, 3, 64)])
@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(np.float16, marks=pytest.mark.exhaustive),
        np.float32,
        pytest.param(np.float64, marks=pytest.mark.exhaustive),
    ],
)
def test_short_way_is_the_long_way(isa, form, every, shape, dtype, rng):
    q = fq.quantize(rng.standard_normal((shape[-1], 37)).astype(np.float32), axis=0, **form)
    for options in every:
        if "bias" in options:
            options = {"bias": rng.standard_normal(37).astype(np.float64 if dtype == np.float64 else np.float32)}
        narrowed = dtype == np.float64 and "dtype" in options
        for repeat in range(3):
            x = rng.standard_normal(shape).astype(dtype)
            short, kept = short_way(x, q, **options), dict(q.ready)
            got = fq.matmul(x, q, **options)
            long = repeat == 0 and "bias" not in options  # which makes no kind of its own
            assert (short is None) == (long or narrowed)
            assert (q.ready != kept) == (long and not narrowed)  # the long way keeps what it prepares
            expected = long_way(x, q, **options)
            for result in (got,) if short is None else (got, short):
                assert result.dtype == expected.dtype
                assert result.shape == expected.shape
                assert (result == expected).all()
            out = np.empty_like(expected)
            assert fq.matmul(x, q, out, **options) is out
            assert (out == expected).all()


def test_quantized_rows_take_it_too(rng):
    q = fq.quantize(rng.standard_normal((70, 30)).astype(np.float32), 5, axis=0)
    for repeat in range(3):
        a = fq.quantize(rng.standard_normal((20, 70)).astype(np.float32), 8, axis=-1)
        assert (short_way(a, q) is None) == (repeat == 0)
        kept = dict(q.ready)
        got = a @ q
        assert (q.ready != kept) == (repeat == 0)
        assert (got == long_way(a, q)).all()
    raw = rng.integers(-128, 128, (20, 70)).astype(np.int8)  # of the same shape and type as the codes of a
    assert (raw @ q == long_way(raw, q)).all()
    asymmetric = fq.quantize(rng.standard_normal((20, 70)).astype(np.float32), 8, axis=-1, scheme="asymmetric")
    assert (asymmetric @ q == long_way(asymmetric, q)).all()
    whole = fq.quantize(rng.standard_normal((20, 70)).astype(np.float32), 8)
    assert (whole @ q == long_way(whole, q)).all()


def test_what_is_unusual_takes_the_long_way(rng):
    w = rng.standard_normal((64, 48)).astype(np.float32)
    q, x = fq.quantize(w, 8, axis=0), rng.standard_normal((16, 64)).astype(np.float32)
    exact = x @ q
    frozen = x.copy()
    frozen.flags.writeable = False
    assert (short_way(frozen, q) == exact).all()  # read-only input is nothing unusual
    wide = np.zeros((16, 80), np.float32)
    for a in (np.asfortranarray(x), x.astype(">f4"), x.view(np.matrix), list(x), x[::-1][::-1].T.copy().T):
        assert short_way(a, q) is None
        assert (np.asarray(fq.matmul(a, q)) == exact).all()
    assert short_way(x, q, wide[:, 10:58]) is None
    fq.matmul(x, q, wide[:, 10:58])
    assert (wide[:, 10:58] == exact).all()
    assert not wide[:, :10].any()
    assert not wide[:, 58:].any()
    assert short_way(x, q, bias=[1.0] * 48) is None
    assert (fq.matmul(x, q, bias=[1.0] * 48) == exact + 1).all()
    with pytest.raises(ValueError, match="read-only"):
        fq.matmul(x, q, np.broadcast_to(np.float32(0), exact.shape))
    with pytest.raises(TypeError, match="epilogue must be one of"):
        fq.matmul(x, q, epilogue=[])


def test_errors_and_settings_are_seen_the_second_time(rng):
    q = fq.quantize(rng.standard_normal((64, 48)).astype(np.float32), 8, axis=0)
    x = rng.standard_normal((16, 64)).astype(np.float32)
    exact = x @ q
    bad = x.copy()
    bad[3, 5] = np.nan
    with pytest.raises(fq.NotFiniteError, match=r"a must be finite.* index \(3, 5\)"):
        bad @ q
    for isa in cpu.available(ISAS):
        with instruction_set(isa):
            assert (x @ q == exact).all()
            assert (x @ q == exact).all()
    with fq.set_num_threads(1):
        assert (x @ q == exact).all()


def test_an_operand_remembers_only_so_many_kinds(monkeypatch, rng):
    monkeypatch.setattr(repeated, "KEPT", 3)
    q = fq.quantize(rng.standard_normal((8, 8)).astype(np.float32), 8, axis=0)
    for m in range(1, 9):
        np.ones((m, 8), np.float32) @ q
        assert 1 <= len(q.ready) <= 3


def own_rows(q):
    """Rows per ticket that a prepared product of this operand brings into tiles itself."""
    return [product.plan.own_rows for product in q.ready.values()]


@pytest.mark.parametrize("isa", NATIVE, indirect=True)
@pytest.mark.parametrize(
    ("form", "kind", "options"),
    [
        ({"bits": 8}, "f4", {}),
        ({"bits": 8}, "f4", {"epilogue": halved}),
        ({"bits": 8}, "f4", {"activations": "two-plane"}),
        ({"bits": 8, "group_size": 32}, "f4", {"activations": "group"}),
        ({"bits": 4, "group_size": 32, "scheme": "affine"}, "f4", {"bias": True}),
        ({"bits": 8, "rotate": True}, "f4", {}),
        pytest.param({"bits": 8}, "f2", {}, marks=pytest.mark.exhaustive),
        pytest.param({"bits": 8}, "f8", {}, marks=pytest.mark.exhaustive),
        pytest.param({"bits": 3}, "f4", {"dtype": np.float16}, marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_that_tickets_bring_themselves(isa, form, kind, options, threads, many_cores, rng):
    """The same bits as by one kernel after the other, at the edges of chunks; no row that is not finite passes."""
    # Rows so long that threads would meet in the room of rotated rows. Tile registers do not do it with so many.
    k = 2048 if "rotate" in form and isa != "amx" else 96
    q = fq.quantize(rng.standard_normal((k, 50)).astype("f8" if kind == "f8" else "f4"), axis=0, **form)
    if "bias" in options:
        options = {"bias": rng.standard_normal(50).astype(np.float32)}
    with fq.set_num_threads(threads):
        for m in (1600, 1601, 1735):
            x = rng.standard_normal((m, k)).astype(kind)
            expected = long_way(x, q, **options)
            out = np.full_like(expected, 7)
            assert all(own_rows(q)) or (isa == "amx" and form["bits"] < 8)
            assert (fq.matmul(x, q, **options) == expected).all()
            assert (fq.matmul(x, q, out, **options) == expected).all()
            for row in (0, 777, m - 1):
                bad = x.copy()
                bad[row, k - 1] = np.inf
                out[...] = 7
                for target in (None, out):
                    with pytest.raises(fq.NotFiniteError, match=rf"a must be finite.* index \({row}, {k - 1}\)"):
                        fq.matmul(bad, q, target, **options)
                assert (out == 7).all()


@pytest.mark.parametrize("isa", NATIVE, indirect=True)
@pytest.mark.parametrize(
    ("bits", "options"),
    [
        (8, {}),
        (8, {"activations": "two-plane"}),
        pytest.param(4, {"bias": True}, marks=pytest.mark.exhaustive),
        pytest.param(8, {"epilogue": halved}, marks=pytest.mark.exhaustive),
        pytest.param(8, {"dtype": np.float16}, marks=pytest.mark.exhaustive),
        pytest.param(8, {"dtype": np.float64}, marks=pytest.mark.exhaustive),
    ],
)
def test_large_output_that_is_not_aligned(isa, bits, options, monkeypatch, many_cores, rng):
    """It goes through rooms of the threads: the same bits, and nothing beside it is written."""
    for n in (80, 83, 5):
        q = fq.quantize(rng.standard_normal((40, n)).astype(np.float32), bits, axis=0)
        if "bias" in options:
            options = {"bias": rng.standard_normal(n).astype(np.float32)}
        x = rng.standard_normal((1700, 40)).astype(options.get("dtype", np.float32))
        monkeypatch.setattr(prepared, "STREAMED", 1 << 40)
        expected = long_way(x, q, **options)
        monkeypatch.setattr(prepared, "STREAMED", 0)
        q.ready.clear()
        size = expected.nbytes
        room = np.empty(size + 192, np.uint8)
        line = 64 - room.ctypes.data % 64
        with fq.set_num_threads(3):
            for first in (0, expected.itemsize, 16, 64 - expected.itemsize):
                room[...] = 77
                out = room[line + first :][:size].view(expected.dtype).reshape(expected.shape)
                for result in (out, out, None):
                    got = fq.matmul(x, q, result, **options)
                    assert (got == expected).all()
                assert (room[: line + first] == 77).all()
                assert (room[line + first + size :] == 77).all()
            wide = np.zeros((len(x), n + 7), expected.dtype)
            fq.matmul(x, q, wide[:, 3 : 3 + n], **options)
            assert (wide[:, 3 : 3 + n] == expected).all()
            assert not wide[:, :3].any()
            assert not wide[:, 3 + n :].any()


def test_codes_are_read_before_the_output_covers_them(rng):
    """Tickets bring rows of codes themselves even where the output is given, unless it lies over them."""
    q = fq.quantize(rng.standard_normal((96, 24)).astype(np.float32), axis=0)
    codes = fq.quantize(rng.standard_normal((2000, 96)).astype(np.float32), axis=-1)
    expected = codes @ q
    assert all(own_rows(q))
    room = np.zeros(2 * 2000 * 96, np.int8)
    for first in (0, 32, 96 * 2000 - 64, 96 * 2000):
        place = room[first : first + 2000 * 96].reshape(2000, 96)
        place[...] = codes.codes
        arrays, attributes = take_apart(codes, pack=False)
        a = put_together({**arrays, "codes": place}, attributes)
        out = room[96 * 1000 : 96 * 1000 + 4 * 2000 * 24].view(np.float32).reshape(2000, 24)
        assert (short_way(a, q, out) == expected).all()


def test_input_may_be_the_output(rng):
    q = fq.quantize(rng.standard_normal((64, 64)).astype(np.float32), 8, axis=0)
    for _ in range(3):
        x = rng.standard_normal((64, 64)).astype(np.float32)
        expected = x.copy() @ q
        fq.matmul(x, q, x)
        assert (x == expected).all()


@pytest.mark.parametrize("first", ["f2", "f4", "f8"])
def test_type_of_a_product_does_not_depend_on_what_was_multiplied_before(isa, rng, first):
    """The logical type of codes on the left is that of the product; what the kernels see is int8 in any case."""
    q = fq.quantize(rng.standard_normal((48, 20)).astype(np.float32), axis=0)
    rows = fq.quantize(rng.standard_normal((6, 48)).astype(np.float32), axis=-1)
    for kind in (first, "f8", "f4", "f2", first):
        for _ in range(2):
            fresh = fq.quantize(q.dequantize(), axis=0)
            got = rows.astype(kind) @ q
            assert got.dtype == np.result_type(np.float32, kind) == (rows.astype(kind) @ fresh).dtype
