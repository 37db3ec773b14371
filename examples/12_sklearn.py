"""Lesson 12: models of scikit-learn, whose weights become quantized arrays in one line each.

A trained model keeps its weights in an attribute, and predicts by x @ weights. Assign quantized arrays to it; then
predict, predict_proba and score use them. Scales must not differ along the summed axis, so the layout decides:

- a network (MLPClassifier, MLPRegressor) has coefs_ of shape K x N, and multiplies x @ w: axis=0, a scale per column;
- a linear model (LogisticRegression, LinearSVC, Ridge, PCA's components_) has coef_ of shape N x K, and multiplies
  x @ w.T: axis=1, a scale per row. The other axis is an error that names the right one.

Lesson 6 writes the products out; this one leaves them to scikit-learn, and trains nothing again.
"""

import copy
import importlib.util
import pickle

import numpy as np

import fastq as fq

if importlib.util.find_spec("sklearn") is None:
    raise SystemExit('This lesson needs scikit-learn: pip install ".[demo]" in a clone of fastq brings it.')

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
seen, unseen = (images[::2], labels[::2]), (images[1::2], labels[1::2])
linear = LogisticRegression(tol=0.01, max_iter=500).fit(*seen)
mlp = MLPClassifier((64, 32), tol=0.01, n_iter_no_change=3, random_state=0).fit(*seen)

print(f"accuracy for {len(unseen[1])} images; bytes of the weights")
print(f"{'':14}LogisticRegression    MLPClassifier")


def show(name, linear, mlp):
    values = f"{100 * linear.score(*unseen):6.1f} %{linear.coef_.nbytes:9,}"
    print(f"{name:14}{values}{100 * mlp.score(*unseen):12.1f} %{sum(w.nbytes for w in mlp.coefs_):9,}")


show("before", linear, mlp)
models = {}
for name, form in {"8 bits": {"bits": 8}, "4 bits": {"bits": 4}, "3 bits": {"bits": 3},
                   "3 bits, mse": {"bits": 3, "method": "mse"}}.items():  # fmt: skip
    smaller, network = copy.deepcopy((linear, mlp))
    smaller.coef_ = fq.quantize(linear.coef_, axis=1, **form)
    network.coefs_ = [fq.quantize(w, axis=0, **form) for w in mlp.coefs_]
    show(name, smaller, network)
    models[name] = network

print("\nModels with such weights are copied, pickled and sent to workers like any others:")
again = pickle.loads(pickle.dumps(models["3 bits, mse"]))
same = (again.predict(unseen[0]) == models["3 bits, mse"].predict(unseen[0])).all()
print(f"  the same answers after pickle: {same}")

try:
    linear.coef_ = fq.quantize(linear.coef_, 8, axis=0)
    linear.predict(unseen[0])
except ValueError as error:
    print(f"\nWith the wrong axis: {error}")
