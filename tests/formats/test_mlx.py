"""Weights of MLX, from files that are written here, and compared with MLX where it is installed."""

from __future__ import annotations

from itertools import product

import ml_dtypes
import numpy as np
import pytest

import fastq as fq

from .checkpoint_files import FLOATS, some_scales, stream, with_library, write

N, K = 6, 384
WIDTHS = list(product((2, 3, 4, 5, 6, 8), (32, 64, 128)))


def config(bits=4, group_size=64, **more):
    return {"quantization": {"bits": bits, "group_size": group_size, **more}}


def layer(bits=4, size=64, kind=np.float32, batch=()):
    rng = np.random.default_rng(0)
    codes = rng.integers(2**bits, size=(*batch, N, K))
    shape = (*batch, N, K // size)
    scale, biases = some_scales(rng, shape, kind), rng.standard_normal(shape).astype(kind)
    tensors = {
        "m.weight": stream(codes, bits).view(np.uint32),
        "m.scales": scale,
        "m.biases": biases,
        "m.bias": np.ones(N, kind),
    }
    products = codes.astype(kind) * np.repeat(scale, size, -1)  # rounded to the type
    return tensors, products + np.repeat(biases, size, -1)


def check(folder, tensors, expected, settings):
    opened = fq.open(write(folder, tensors, settings))
    assert (opened.format, set(opened)) == ("safetensors, MLX", {"m.weight", "m.bias"})
    entry, q = opened.entry("m.weight"), opened["m.weight"]
    assert entry.shape == q.shape == expected.shape
    assert (q.scheme, q.axis, q.dtype) == ("affine", q.ndim - 1, expected.dtype)
    assert (q.dequantize() == expected).all()
    return entry, q


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize(("bits", "size"), WIDTHS)
def test_mlx(tmp_path, bits, size, kind):
    entry, q = check(tmp_path, *layer(bits, size, kind), config(bits, size, mode="affine"))
    assert (q.bits, q.group_size) == (bits, size)
    assert entry.kind == f"{bits} bits, groups of {size}"
    assert {q.scale.dtype, q.offset.dtype} == {np.dtype(kind)}


def test_experts(tmp_path):
    """Stacks of matrices."""
    check(tmp_path, *layer(batch=(3,)), config())


def test_settings_of_one_module(tmp_path):
    check(tmp_path, *layer(3, 32), config(4, 64, m={"bits": 3, "group_size": 32}))
    check(tmp_path, *layer(4, 64), config(4, 64, m=True))


def test_what_the_configuration_lacks(tmp_path):
    """Widths that follow from the shapes, alone or from one another."""
    check(tmp_path, *layer(5, 32), None)
    check(tmp_path, *layer(3, 64), {"quantization": {"bits": 3}})
    check(tmp_path, *layer(3, 64), {"quantization": {"group_size": 64}})
    check(tmp_path, *layer(4, 64), {"quantization_config": {"bits": 4, "group_size": 64}})


def test_what_cannot_be_read(tmp_path):
    tensors, _ = layer()

    def refused(tensors, settings, reason):
        opened = fq.open(write(tmp_path, tensors, settings))
        assert (opened["m.bias"] == 1).all()
        with pytest.raises(fq.FileFormatError, match=reason) as error:
            opened["m.weight"]
        assert str(tmp_path) in str(error.value)
        assert "'m.weight'" in str(error.value)

    for mode in "mxfp4", "nvfp4", "mxfp8", None:
        refused(tensors, config(mode=mode), f"got {mode!r}")
    refused(tensors, config(m={"bits": 4, "group_size": 64, "mode": "mxfp4"}), "got 'mxfp4'")
    refused(tensors, config(8), "0 pairs fit")
    refused(tensors, config(group_size=0), "0 pairs fit")
    refused(tensors, config(bits=2.5), "bits must be an integer, got 2.5")
    (tmp_path / "config.json").unlink()
    refused(tensors, None, "3 pairs fit")  # 2 bits and 128, 4 and 64, 8 and 32
    refused({name: v for name, v in tensors.items() if name != "m.biases"}, config(), "no tensor 'm.biases'")
    refused({**tensors, "m.biases": tensors["m.biases"][:, 1:]}, config(), "one entry per group")
    refused({**tensors, "m.biases": tensors["m.biases"].astype(np.float16)}, config(), "must be of float32")
    refused({**tensors, "m.scales": tensors["m.scales"].astype(np.uint8)}, config(), "must be of float16")
    for shape in (N * K // 8,), ():
        refused({**tensors, "m.weight": np.zeros(shape, np.uint32)}, config(), "each row of weight")
    alone = {"m.weight": np.zeros(3, np.uint32), "m.scales": tensors["m.scales"], "m.bias": tensors["m.bias"]}
    refused(alone, config(), "no tensor 'm.biases'")
    tensors["m.biases"][1, 1] = np.nan
    refused(tensors, config(), "finite")


@pytest.mark.parametrize(
    ("bits", "size", "kind"), with_library("mlx", [(*form, kind) for form in WIDTHS for kind in FLOATS])
)
def test_as_mlx_dequantizes(tmp_path, bits, size, kind):
    mx = pytest.importorskip("mlx.core")
    theirs = {np.float16: mx.float16, np.float32: mx.float32, ml_dtypes.bfloat16: mx.bfloat16}[kind]
    w = mx.array(np.random.default_rng(1).standard_normal((N, K), np.float32)).astype(theirs)
    with mx.stream(mx.cpu):
        parts = mx.quantize(w, group_size=size, bits=bits)
        right = np.array(mx.dequantize(*parts, group_size=size, bits=bits).astype(mx.float32))
        tensors = dict(zip(("m.weight", "m.scales", "m.biases"), parts))
        mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors, {"format": "mlx"})
    (tmp_path / "config.json").write_text(f'{{"quantization": {{"bits": {bits}, "group_size": {size}}}}}')
    q = fq.open(tmp_path)["m.weight"]
    assert (q.dequantize().astype(np.float32) == right).all()
