"""Weights of GPTQ, from files that are written here."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import fastq as fq

from .checkpoint_files import FLOATS, some_scales, stream, values, write

N, K, GROUP = 32, 96, 32


def config(bits=4, group_size=GROUP, **more):
    return {"quantization_config": {"quant_method": "gptq", "bits": bits, "group_size": group_size, **more}}


def layer(bits=4, kind=np.float16, groups=3, start=1, zeros=None, g_idx=None, shape=(N, K), seed=0):
    """Tensors of a layer, and the weight that they stand for; `start` is subtracted from stored zero points."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(2**bits, size=shape[::-1])
    zeros = rng.integers(start, 2**bits, (groups, shape[0])) if zeros is None else zeros
    scale = some_scales(rng, (groups, shape[0]), kind)
    size = -(-shape[1] // groups)
    index = np.arange(shape[1]) // size if g_idx is None else g_idx
    tensors = {
        "model.up.g_idx": index.astype(np.int32),
        "model.up.qweight": stream(codes.T, bits).T,
        "model.up.qzeros": stream(zeros - start, bits),
        "model.up.scales": scale,
        "model.norm.weight": np.ones(4, kind),
    }
    return tensors, values(codes, zeros[index], scale[index]).T


def shuffled(groups=3, seed=1):
    return np.random.default_rng(seed).permutation(np.arange(K) // -(-K // groups))


def check(folder, tensors, expected, settings, scheme="asymmetric"):
    opened = fq.open(write(folder, tensors, settings))
    assert opened.format == "safetensors, GPTQ"
    assert set(opened) == {"model.up.weight", "model.norm.weight"}
    entry, q = opened.entry("model.up.weight"), opened["model.up.weight"]
    assert entry.shape == q.shape == expected.shape
    assert (q.scheme, q.dtype) == (scheme, expected.dtype)
    assert entry.nbytes == sum(v.nbytes for name, v in tensors.items() if ".up." in name)
    assert (q.dequantize() == expected).all()
    return entry, q


def refused(folder, tensors, settings, reason):
    opened = fq.open(write(folder, tensors, settings))
    assert (opened["model.norm.weight"] == 1).all()
    with pytest.raises(fq.FileFormatError, match=reason) as error:
        opened["model.up.weight"]
    assert str(folder) in str(error.value)
    assert "'model.up.weight'" in str(error.value)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("start", [1, 0])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq(tmp_path, bits, start, kind):
    tensors, expected = layer(bits, kind, start=start)
    settings = config(bits, checkpoint_format="gptq" if start else "gptq_v2")
    entry, q = check(tmp_path, tensors, expected, settings)
    assert entry.kind == f"{bits} bits, groups of 32"
    assert (q.bits, q.group_size, q.axis) == (bits, GROUP, 1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_zero_points_in_the_middle_make_a_symmetric_array(tmp_path, bits):
    tensors, expected = layer(bits, zeros=np.full((3, N), 2 ** (bits - 1)))
    check(tmp_path, tensors, expected, config(bits), "symmetric")


@pytest.mark.parametrize("middle", [False, True])
@pytest.mark.parametrize("bits", [3, 4])
def test_act_order(tmp_path, bits, middle):
    zeros = np.full((3, N), 2 ** (bits - 1)) if middle else None
    tensors, expected = layer(bits, g_idx=shuffled(), zeros=zeros)
    _, q = check(tmp_path, tensors, expected, config(bits, desc_act=True), "symmetric" if middle else "asymmetric")
    x = np.random.default_rng(2).integers(-3, 4, (2, K)).astype(np.int8)
    right = x.astype(np.float64) @ expected.astype(np.float64).T
    assert np.allclose(x @ q.mT, right, rtol=1e-2, atol=1e-2 * np.abs(right).max())


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_zero_point_of_one_more_than_all_codes(tmp_path, bits, kind):
    zeros = np.random.default_rng(3).integers(1, 2**bits + 1, (3, N))
    zeros[1, 5] = 2**bits
    tensors, expected = layer(bits, kind, zeros=zeros)
    check(tmp_path, tensors, expected, config(bits), "affine")


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_borrows_between_zero_points_of_gptqmodel(tmp_path, bits):
    """It subtracts from words; of 3 bits, whose zero points lie across words, from each alone."""
    zeros = np.random.default_rng(4).integers(0, 2**bits, (3, N))
    tensors, expected = layer(bits, zeros=zeros, start=0)
    words = tensors["model.up.qzeros"].view(np.uint32)
    stored = stream((zeros - 1) % 2**bits, bits) if bits == 3 else words - np.uint32((2**32 - 1) // (2**bits - 1))
    tensors["model.up.qzeros"] = stored.view(np.int32)
    check(tmp_path, tensors, expected, config(bits, meta={"quantizer": ["gptqmodel:1.4.0"]}))


@pytest.mark.parametrize("g_idx", ["there", "missing", "empty"])
def test_without_a_configuration(tmp_path, g_idx):
    tensors, expected = layer(3)
    if g_idx == "missing":
        del tensors["model.up.g_idx"]
    elif g_idx == "empty":
        tensors["model.up.g_idx"] = np.empty(0, np.int32)
    _, q = check(tmp_path, tensors, expected, None)
    assert q.group_size == GROUP


def test_one_group(tmp_path):
    tensors, expected = layer(4, groups=1)
    entry, q = check(tmp_path, tensors, expected, config(group_size=-1))
    assert (entry.kind, q.group_size) == ("4 bits", None)


def test_a_shorter_last_group(tmp_path):
    g_idx = np.random.default_rng(5).permutation(np.arange(K) // 40)
    tensors, expected = layer(4, g_idx=g_idx)
    _, q = check(tmp_path, tensors, expected, config(group_size=40))
    assert q.group_size == 40


def test_the_width_of_one_module_differs(tmp_path):
    """GPTQModel says so by patterns of names, which are not needed."""
    tensors, expected = layer(8)
    check(tmp_path, tensors, expected, config(4, dynamic={"+:model\\.up": {"bits": 8}}))


def test_quantize_config(tmp_path):
    tensors, expected = layer(4, start=0)
    write(tmp_path, tensors)
    (tmp_path / "quantize_config.json").write_text('{"bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2"}')
    assert (fq.open(tmp_path)["model.up.weight"].dequantize() == expected).all()


def test_a_checkpoint_of_one_layer(tmp_path):
    tensors, expected = layer()
    opened = fq.open(write(tmp_path, {name.removeprefix("model.up."): v for name, v in tensors.items()}, config()))
    assert (opened["weight"].dequantize() == expected).all()


def test_what_cannot_be_read(tmp_path):
    tensors, _ = layer()

    def without(part):
        return {name: v for name, v in tensors.items() if not name.endswith(part)}

    def with_index(index):
        return {**tensors, "model.up.g_idx": index.astype(np.int32)}

    def with_shape(part, shape):
        return {**tensors, f"model.up.{part}": np.zeros(shape, tensors[f"model.up.{part}"].dtype)}

    for part in "qzeros", "scales":
        refused(tmp_path, without(part), config(), f"there is no tensor 'model.up.{part}'")
    refused(tmp_path, tensors, config(8), "bits must fit")
    refused(tmp_path, tensors, config("four"), "bits must be an integer, got 'four'")
    refused(tmp_path, tensors, config(group_size=64), "group_size=64")
    refused(tmp_path, tensors, config(group_size=0), "group_size=0")
    for layout in "marlin", "bitblas", 3:
        refused(tmp_path, tensors, config(checkpoint_format=layout), f"got {layout!r}")
    refused(tmp_path, tensors, config(is_marlin_format=True), "got 'marlin'")
    refused(tmp_path, layer(3)[0], config(3, checkpoint_format="gptq_p"), "planes of bits")
    refused(tmp_path, layer(6)[0], config(6), "planes of bits")
    refused(tmp_path, with_index(np.arange(K) % 2), config(), "the same number of rows")
    refused(tmp_path, with_index(np.arange(K) - 1), config(), "g_idx must be from 0 to 2")
    refused(tmp_path, with_index(np.arange(K - 9) // 32), config(), "bits must fit")
    refused(tmp_path, with_shape("scales", (3, N - 1)), config(), "a column for each of 32 outputs")
    refused(tmp_path, with_shape("qweight", (12, 0)), config(), "not empty")
    refused(tmp_path, with_shape("qweight", (12, N, 1)), config(), "2 axes")
    scales = tensors["model.up.scales"]
    refused(tmp_path, {**tensors, "model.up.scales": scales.astype(np.float64)}, config(), "got float64")
    scales[1, 3] = np.nan
    refused(tmp_path, tensors, config(), "finite")
    refused(tmp_path, {**tensors, "model.up.weight": np.ones((N, K), np.float16)}, config(), "two of it")


def test_other_methods_are_left_alone(tmp_path):
    tensors, _ = layer()
    opened = fq.open(write(tmp_path, tensors, {"quantization_config": {"quant_method": "auto-round"}}))
    assert (opened.format, set(opened)) == ("safetensors", set(tensors))


def test_bfloat16_is_the_logical_type(tmp_path):
    tensors, _ = layer(kind=ml_dtypes.bfloat16)
    assert fq.open(write(tmp_path, tensors, config()))["model.up.weight"].dtype == ml_dtypes.bfloat16
