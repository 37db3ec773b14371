"""A small network for scikit-learn's handwritten digits, to see the error of quantized weights on real data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import fastq as fq
from fastq import numpys

Floats = npt.NDArray[np.float32]
Weights = Sequence[Floats | fq.QArray]


@dataclass(frozen=True)
class Digits:
    """A trained network, and images of 8 x 8 pixels from 0 to 1, one per row."""

    weights: tuple[Floats, ...]  # a K x N matrix per layer
    biases: tuple[Floats, ...]  # a vector of N per layer
    images: Floats  # test images
    labels: npt.NDArray[np.int64]  # the digits of the test images
    seen: Floats  # training images, which serve as calibration data

    def accuracy(self, logits: Floats) -> float:
        """Percentage of the test images whose largest logit is that of the right digit."""
        return 100 * float(np.mean(logits.argmax(axis=1) == self.labels))


def train() -> Digits:
    """Train layers of 128, 64 and 10 neurons on one half of the 1,797 images; test images are the other half."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    seen, unseen, seen_labels, unseen_labels = train_test_split(
        images, labels, test_size=0.5, random_state=0, stratify=labels
    )
    network = MLPClassifier((128, 64), random_state=0, tol=1e-3, max_iter=500).fit(seen, seen_labels)
    return Digits(tuple(network.coefs_), tuple(network.intercepts_), unseen, unseen_labels, seen)


def quantize(weights: Sequence[Floats], bits: int, **options: Any) -> tuple[fq.QArray, ...]:
    """Quantize the weights of every layer, with one scale per column; options are those of :func:`fastq.quantize`."""
    return tuple(fq.quantize(w, bits=bits, axis=0, **options) for w in weights)


def forward(images: Floats, weights: Weights, biases: Sequence[Floats]) -> Floats:
    """The network's logits, a row of ten per image: a product per layer, with ReLU between layers.

    ``np.matmul`` multiplies arrays, :func:`fastq.matmul` quantized arrays.
    """
    x = images
    for layer, (w, bias) in enumerate(zip(weights, biases)):
        if layer:
            x = np.maximum(x, 0)
        x = fq.matmul(x, w, bias=bias) if isinstance(w, fq.QArray) else numpys.matmul(x, w) + bias
    return x
