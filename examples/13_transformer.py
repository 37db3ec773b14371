"""Lesson 13: a transformer in NumPy, its linear layers in 3 and 4 bits, calibrated layer by layer.

An encoder of two blocks with four linear layers each, written out in NumPy; benchmarks/minilm.py is a real one of this
kind. Weights are stored as N x K, as torch keeps them, and a layer is x @ w.T + b. A model is a dict of names to
arrays. Whether these are quantized makes no difference to the code of the encoder.

- Calibration: in one forward pass with floats, each layer shows its inputs to a fq.SecondMoment of its own.
- Then each layer is quantized by itself, with its moment as calibration: by "mse", and by "gptq".
- Normalization makes four channels 20 times larger than the others, as in real models. Balance and a rotation, which
  products apply to x, keep these four from taking the codes of all others.

What is shown is the error of each layer's output, for the inputs it really gets, and that of the whole encoder. The
weights are synthetic. What makes the methods differ is like in trained ones: outliers, and inputs that are correlated.
"""

import time

import numpy as np

import fastq as fq

BLOCKS, WIDTH, INNER, HEADS, TOKENS = 2, 128, 256, 4, 64
LINEAR = {"qkv": (3 * WIDTH, WIDTH), "mix": (WIDTH, WIDTH), "up": (INNER, WIDTH), "down": (WIDTH, INNER)}
FORMS = {
    "4 bits, mse": {"bits": 4, "method": "mse"},
    "3 bits, mse": {"bits": 3, "method": "mse"},
    "3 bits, gptq": {"bits": 3, "method": "gptq"},
    "3 bits, gptq, balanced": {"bits": 3, "method": "gptq", "rotate": True},
}
BALANCED = "3 bits, gptq, balanced"


def synthetic(random):
    """Weights, biases and gains of all blocks, by name."""
    weights = {}
    for block in range(BLOCKS):
        for name, (n, k) in LINEAR.items():
            w = 0.7 * random.standard_t(5, (n, k)) / np.sqrt(k)
            if name in ("qkv", "up"):  # they have a normalized input
                gain = np.exp(0.3 * random.standard_normal(k))
                gain[random.permutation(k)[:4]] *= 20
                weights[f"{block}.{name}.gain"] = gain.astype(np.float32)
                w /= np.sqrt(gain)  # training keeps weights small that meet large channels
            weights[f"{block}.{name}.weight"] = w.astype(np.float32)
            weights[f"{block}.{name}.bias"] = random.standard_normal(n, dtype=np.float32) / 10
    return weights


def tokens(random, count):
    """Embedded texts, count x TOKENS x WIDTH: they vary in a quarter of the directions, for the most part."""
    mixture = np.random.default_rng(1).standard_normal((WIDTH // 4, WIDTH), dtype=np.float32)
    x = random.standard_normal((count, TOKENS, WIDTH // 4), dtype=np.float32) @ mixture / 6
    return x + random.standard_normal((count, TOKENS, WIDTH), dtype=np.float32) / 4


def normalized(x, gain):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * gain


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def forward(x, weights, see=lambda name, x: None):
    """The encoder. The function `see` gets the input of each linear layer, with the name of its weights."""

    def linear(name, x):
        see(f"{name}.weight", x)
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    for block in range(BLOCKS):
        qkv = linear(f"{block}.qkv", normalized(x, weights[f"{block}.qkv.gain"]))
        query, key, value = np.moveaxis(qkv.reshape(*qkv.shape[:-1], 3, HEADS, -1), (-3, -2), (0, -3))
        scores = softmax(query @ key.swapaxes(-1, -2) / np.float32(np.sqrt(WIDTH / HEADS)))
        x = x + linear(f"{block}.mix", (scores @ value).swapaxes(-2, -3).reshape(x.shape))
        inner = linear(f"{block}.up", normalized(x, weights[f"{block}.up.gain"]))
        x = x + linear(f"{block}.down", np.maximum(inner, 0))
    return x


def quantized(weights, moments, form):
    """The model with all linear layers quantized; biases and gains stay as they are."""
    smaller = dict(weights)
    for name, moment in moments.items():
        w = weights[name]
        d = fq.balance(np.sqrt(moment.diagonal), w.T) if form.get("rotate") else None
        smaller[name] = fq.quantize(w, axis=-1, group_size=64, calibration=moment, balance=d, **form)
    return smaller


random = np.random.default_rng(0)
weights = synthetic(random)
seen, unseen = tokens(random, 24), tokens(random, 8)

start = time.perf_counter()
moments = {name: fq.SecondMoment() for name in weights if name.endswith(".weight")}
forward(seen, weights, see=lambda name, x: moments[name].update(x))
print(f"calibration: {len(moments)} layers, {seen[..., 0].size} rows each, {time.perf_counter() - start:.1f} s")
models = {label: quantized(weights, moments, form) for label, form in FORMS.items()}

inputs = {}
exact = forward(unseen, weights, see=inputs.__setitem__)
print("\nSQNR of the layers' products in dB, for the inputs that they have in the float model")
print(f"{'':14}" + "".join(f"{label:>24}" for label in models))
for name, x in inputs.items():
    found = (fq.error(x @ weights[name].T, x @ model[name].T).sqnr_db for model in models.values())
    print(f"{name:14}" + "".join(f"{value:24.1f}" for value in found))

whole = {label: fq.error(exact, forward(unseen, model)).sqnr_db for label, model in models.items()}
print(f"{'the encoder':14}" + "".join(f"{value:24.1f}" for value in whole.values()))
sizes = (sum(model[name].nbytes for name in moments) for model in (weights, *models.values()))
print(f"bytes {next(sizes):>8,}" + "".join(f"{size:24,}" for size in sizes))

finer = {name: w.with_activations("two-plane") if name in moments else w for name, w in models[BALANCED].items()}
print(f"\nat 3 bits, gptq with balance and rotation gains {whole[BALANCED] - whole['3 bits, mse']:.1f} dB;")
print(f"16 bits instead of 8 for the inputs of products would add "
      f"{fq.error(exact, forward(unseen, finer)).sqnr_db - whole[BALANCED]:.1f} dB")  # fmt: skip
assert whole[BALANCED] > whole["3 bits, gptq"] > whole["3 bits, mse"]
