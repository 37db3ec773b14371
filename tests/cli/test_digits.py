"""What quantized weights cost on real data: scikit-learn's handwritten digits."""

import numpy as np
import pytest

import fastq as fq
from fastq.cli import digits

FORMS = {8: {"method": "minmax"}, 3: {"method": "mse"}}


@pytest.fixture(scope="module")
def quantized(network):
    return {bits: digits.quantize(network.weights, bits=bits, **options) for bits, options in FORMS.items()}


@pytest.fixture(scope="module")
def logits(network, quantized):
    forms = {32: network.weights, **quantized}
    return {bits: digits.forward(network.images, weights, network.biases) for bits, weights in forms.items()}


@pytest.mark.exhaustive
def test_network_learned(network, logits):
    assert len(network.labels) == 899
    assert network.accuracy(logits[32]) > 95


def test_accuracy_counts_right_answers(network):
    right = np.eye(10, dtype=np.float32)[network.labels]
    assert network.accuracy(right) == 100
    assert network.accuracy(np.roll(right, 1, axis=1)) == 0


def test_forward_is_layer_by_layer():
    weights = [np.array([[1, -1]], np.float32), np.array([[1], [10]], np.float32)]
    biases = [np.array([0, 1], np.float32), np.array([5], np.float32)]
    images = np.array([[2], [-3]], np.float32)
    # 2 -> relu(2, -1) -> 2 + 5; -3 -> relu(-3, 4) -> 40 + 5
    assert digits.forward(images, weights, biases).tolist() == [[7], [45]]


@pytest.mark.parametrize(("bits", "points", "decibels"), [(8, 0.3, 40), (3, 3, 14)])
@pytest.mark.exhaustive
def test_loss(network, logits, bits, points, decibels):
    assert network.accuracy(logits[bits]) >= network.accuracy(logits[32]) - points
    assert fq.error(logits[32], logits[bits]).sqnr_db > decibels


@pytest.mark.parametrize(("bits", "share"), [(8, 0.3), (3, 0.14)])
def test_weights_are_smaller(network, quantized, logits, bits, share):
    # `logits` is asked for because weights are packed when they are first used.
    for w, q in zip(network.weights, quantized[bits]):
        rows, columns = -(-w.shape[0] // 64) * 64, -(-w.shape[1] // 16) * 16  # packed in tiles of 64 x 16
        codes = rows * columns * bits // 8
        assert codes < q.nbytes <= codes + 16 * columns  # up to four numbers of 4 bytes per column
    assert sum(q.nbytes for q in quantized[bits]) < share * sum(w.nbytes for w in network.weights)
