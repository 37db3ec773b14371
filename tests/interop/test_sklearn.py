"""Models of scikit-learn whose weights are quantized: they predict, are stored and sent about as they were."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastq as fq

pytest.importorskip("sklearn")

import joblib
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return (x[::3] / 16).astype(np.float32), y[::3]


@pytest.fixture(scope="module")
def trained(digits):
    """Trained models, by name."""
    small = {"hidden_layer_sizes": (24, 16), "tol": 0.01, "n_iter_no_change": 3, "random_state": 0, "max_iter": 500}
    two = np.c_[digits[1], digits[1] % 2].astype(np.float32)
    return {
        "classifier": MLPClassifier(**small).fit(*digits),
        "regressor": MLPRegressor(**small).fit(digits[0], two),
        "logistic": LogisticRegression(max_iter=2000, tol=0.01).fit(*digits),
        "binary": LogisticRegression(max_iter=2000, tol=0.01).fit(digits[0], digits[1] > 4),
        "ridge": Ridge().fit(digits[0], two),
        "line": Ridge().fit(*digits),
        "pca": PCA(8).fit(digits[0]),
    }


def quantized(model, bits=8, **form):
    """The model with quantized weights, along the axis that its products sum over."""
    model = copy.deepcopy(model)
    if hasattr(model, "coefs_"):
        model.coefs_ = [fq.quantize(c, bits, axis=0, **form) for c in model.coefs_]
    else:
        name = "components_" if hasattr(model, "components_") else "coef_"
        setattr(model, name, fq.quantize(w := getattr(model, name), bits, axis=w.ndim - 1, **form))
    return model


def outcome(model, x):
    return model.transform(x) if hasattr(model, "transform") else model.predict(x)


def test_networks_multiply_with_the_codes(digits, trained):
    x, model = digits[0], quantized(trained["regressor"])
    values = x
    for q, bias in zip(model.coefs_, model.intercepts_):
        values = np.maximum(values @ q + bias, 0) if q is not model.coefs_[-1] else values @ q + bias
    assert np.array_equal(model.predict(x), values)


@pytest.mark.parametrize(("bits", "form"), [(8, {}), (4, {"group_size": 8}), (3, {"method": "mse"})])
def test_networks_classify_as_before(digits, trained, bits, form):
    x, y = digits
    plain, model = trained["classifier"], quantized(trained["classifier"], bits, **form)
    likely = model.predict_proba(x)
    assert np.array_equal(model.predict(x), likely.argmax(axis=1))
    assert np.allclose(likely.sum(axis=1), 1, rtol=0, atol=1e-5)
    assert model.score(x, y) > plain.score(x, y) - {8: 0.01, 4: 0.05, 3: 0.1}[bits]
    assert np.array_equal(model.predict_log_proba(x), np.log(likely))


@pytest.mark.parametrize("name", ["logistic", "binary"])
def test_linear_models_want_one_scale_per_row(digits, trained, name):
    """Their weights are stored N x K, and multiplied by their transpose."""
    x, plain = digits[0], trained[name]
    model = quantized(plain)
    found = np.atleast_2d(model.decision_function(x).T).T
    assert np.array_equal(found, x @ model.coef_.T + model.intercept_)
    exact = x.astype(np.float64) @ plain.coef_.T.astype(np.float64) + plain.intercept_
    bound = fq.matmul_error_bound(x, model.coef_.T) + np.abs(x) @ np.abs(plain.coef_ - model.coef_.dequantize()).T
    assert (np.abs(found - exact) <= bound + 1e-5).all()
    assert (model.predict(x) == plain.predict(x)).mean() > 0.98
    assert model.predict_proba(x).shape == (len(x), len(model.classes_))


@pytest.mark.parametrize("name", ["ridge", "line", "pca"])
def test_others(digits, trained, name):
    assert fq.error(outcome(trained[name], digits[0]), outcome(quantized(trained[name]), digits[0])).sqnr_db > 30


def test_a_wrong_axis_is_told(digits, trained):
    """In terms of the array that was quantized, whichever way round the product takes it."""
    network, line = copy.deepcopy(trained["classifier"]), copy.deepcopy(trained["logistic"])
    network.coefs_ = [fq.quantize(c, 8, axis=1) for c in network.coefs_]
    with pytest.raises(ValueError, match=r"whose scale varies there: quantize it with axis=-2 or axis=None, or"):
        network.predict(digits[0])
    line.coef_ = fq.quantize(line.coef_, 8, axis=0)
    with pytest.raises(ValueError, match=r"it is a transpose; quantize the original with axis=-1, one scale per row"):
        line.predict(digits[0])


@pytest.mark.parametrize("name", ["classifier", "logistic", "pca"])
@pytest.mark.parametrize("bits", [8, 3])
def test_models_are_stored(digits, trained, tmp_path, name, bits):
    """Packed, if they were used; by pickle, and by joblib in all of its ways."""
    x, model = digits[0], quantized(trained[name], bits)
    expected = outcome(model, x)
    copies = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for number, ways in enumerate(({}, {"compress": 3}, {"protocol": 4})):
        joblib.dump(model, tmp_path / f"{number}", **ways)
        copies.append(joblib.load(tmp_path / f"{number}"))
    copies.append(joblib.load(tmp_path / "0", mmap_mode="r"))
    for one in copies:
        assert np.array_equal(outcome(one, x), expected)


def test_a_clone_is_trained_anew(digits, trained):
    model = quantized(trained["logistic"])
    again = clone(model)
    assert not hasattr(again, "coef_")
    assert isinstance(again.fit(*digits).coef_, np.ndarray)


def test_sent_to_workers(digits, trained):
    x, model = digits[0], quantized(trained["classifier"], 3)
    parts = joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(model.predict)(x[i::2]) for i in range(2))
    assert all(np.array_equal(part, model.predict(x)[i::2]) for i, part in enumerate(parts))
