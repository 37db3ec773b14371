"""Lesson 6: a network that reads handwritten digits, with weights of 32, 8 and 3 bits.

The network is trained in float32 by scikit-learn. Its forward pass is a product per layer; with quantized weights each
layer's input is quantized to int8 on the fly, by row. Nothing is trained again.
"""

import importlib.util

import fastq as fq
from fastq.cli import digits

if importlib.util.find_spec("sklearn") is None:
    raise SystemExit('This lesson needs scikit-learn: pip install ".[demo]" in a clone of fastq brings it.')

network = digits.train()
forms = {
    "float32": network.weights,
    "int8": digits.quantize(network.weights, bits=8),
    "int3": digits.quantize(network.weights, bits=3, method="mse"),
}
exact = digits.forward(network.images, network.weights, network.biases)

print(f"{len(network.labels)} test images; weights of {', '.join(str(w.shape) for w in network.weights)}")
for name, weights in forms.items():
    logits = digits.forward(network.images, weights, network.biases)
    changed = (logits.argmax(axis=1) != exact.argmax(axis=1)).sum()
    print(
        f"{name:>7}: accuracy {network.accuracy(logits):.2f} %, {changed} answers changed, "
        f"SQNR of the logits {fq.error(exact, logits).sqnr_db:.1f} dB, {sum(w.nbytes for w in weights):,} bytes"
    )

print("\nWhere int3 loses: the error of each layer's weights")
for number, (w, q) in enumerate(zip(network.weights, forms["int3"]), start=1):
    print(f"  layer {number}: SQNR {fq.error(w, q).sqnr_db:.1f} dB, {q}")
