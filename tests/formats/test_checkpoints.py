"""How tensors of a checkpoint are told apart and put together, whatever is said beside them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import fastq as fq
from fastq.formats.checkpoints import quantized
from fastq.formats.entries import Entry

from . import altered_checkpoints, test_awq, test_compressed_tensors, test_gptq, test_mlx
from .checkpoint_files import write

LAYERS = {
    "GPTQ": (test_gptq.layer, test_gptq.config),
    "AWQ": (test_awq.layer, test_awq.config),
    "MLX": (test_mlx.layer, test_mlx.config),
    "compressed-tensors": (test_compressed_tensors.layer, test_compressed_tensors.config),
}


def entries(tensors, read=True):
    def made(name):
        assert read, f"{name} was read"
        return tensors[name]

    return {name: Entry(v.shape, v.dtype.name, v.nbytes, lambda name=name: made(name)) for name, v in tensors.items()}


@pytest.mark.parametrize("scheme", LAYERS)
def test_nothing_is_read_before_it_is_asked_for(scheme):
    layer, config = LAYERS[scheme]
    tensors, expected = layer()
    name, found = quantized(entries(tensors, read=False), config(), "file")
    weight = next(n for n in found if n.endswith(".weight") and "norm" not in n)
    assert (name, found[weight].shape) == (scheme, expected.shape)


def outcome(name, entry, expected):
    try:
        value = entry.read()
    except fq.FileFormatError as error:
        return "refused" if str(error).startswith(f"file: array '{name}': ") else str(error)
    assert value.shape == entry.shape
    if isinstance(value, fq.QArray):
        assert (value.dequantize() == expected).all()
        return "read"
    return "plain"


@pytest.mark.parametrize("scheme", LAYERS)
def test_garbage_in_the_configuration(scheme, tmp_path):
    """It is disregarded, or the weight is refused with a reason."""
    layer, config = LAYERS[scheme]
    tensors, expected = layer()
    values = [None, True, 3, -1, 2**70, 0.5, "x", [], [[1]], {}, {"a": {"b": []}}]

    def replaced(settings):
        """All settings, with each value in turn put in each place."""
        for key, setting in settings.items():
            for value in values:
                yield {**settings, key: value}
            if isinstance(setting, dict):
                for inner in replaced(setting):
                    yield {**settings, key: inner}

    outcomes = [
        outcome(name, entry, expected)
        for settings in replaced({**config(), "text_config": 3})
        for name, entry in quantized(entries(tensors), json.loads(json.dumps(settings)), "file")[1].items()
    ]
    read, refused = outcomes.count("read"), outcomes.count("refused")
    assert read > 10
    assert refused > 5
    assert set(outcomes) == {"read", "refused", "plain"}


def test_formats_are_told_by_the_names_of_tensors():
    for scheme, (layer, _) in LAYERS.items():
        tensors, _ = layer()
        name, found = quantized(entries(tensors), {}, "file")
        ambiguous = scheme == "MLX"  # 4 bits and 64, or 8 and 32
        assert name == scheme
        assert sum(v.kind.startswith("4 bits") for v in found.values()) == (not ambiguous)


def test_weights_keep_the_place_of_their_first_tensor():
    tensors, _ = test_awq.layer()
    more = {"a.weight": np.ones(2), **tensors, "z.weight": np.ones(3)}
    assert list(quantized(entries(more), {}, "file")[1]) == ["a.weight", "m.weight", "m.bias", "z.weight"]


def test_settings_of_the_text_of_a_model():
    tensors, expected = test_gptq.layer(start=0)
    config = {"text_config": test_gptq.config(checkpoint_format="gptq_v2")}
    assert (quantized(entries(tensors), config, "file")[1]["model.up.weight"].read().dequantize() == expected).all()


def test_several_files(tmp_path):
    """Tensors of one weight in two files."""
    tensors, expected = test_gptq.layer()
    names = list(tensors)
    for number, half in enumerate((names[:2], names[2:])):
        write(tmp_path, {name: tensors[name] for name in half}, test_gptq.config())
        (tmp_path / "model.safetensors").rename(tmp_path / f"{number}.safetensors")
    weights = {name: f"{number}.safetensors" for number, half in enumerate((names[:2], names[2:])) for name in half}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert (fq.open(tmp_path)["model.up.weight"].dequantize() == expected).all()


@pytest.mark.parametrize("scheme", LAYERS)
def test_tensors_and_settings_that_do_not_fit(scheme):
    outcomes, findings = altered_checkpoints.run(scheme, 150)
    assert not findings
    assert set(outcomes) == {"read", "refused"}
    assert min(outcomes.values()) > 10


def test_nothing_quantized():
    tensors = {"m.weight": np.ones((2, 2)), "m.scales": np.ones(2), "w": np.ones(2, np.uint32)}
    name, found = quantized(entries(tensors), {"quantization_config": {"quant_method": "fp8"}}, "file")
    assert (name, list(found)) == ("", list(tensors))


def test_bfloat16_needs_no_ml_dtypes(tmp_path):
    """Without it, numbers are the same as float32."""
    tensors, expected = test_gptq.layer(kind=test_gptq.FLOATS[1])
    write(tmp_path, tensors, test_gptq.config())
    code = f"""
import sys
sys.modules["ml_dtypes"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name == "ml_dtypes" else find(name, *args)
import fastq as fq, numpy as np
q = fq.open({str(tmp_path)!r})["model.up.weight"]
assert q.dtype == np.float32
np.save({str(tmp_path / "out.npy")!r}, q.dequantize())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (np.load(tmp_path / "out.npy").astype(expected.dtype) == expected).all()
