"""Weights of AWQ, from files that are written here."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq

from .checkpoint_files import FLOATS, some_scales, stream, values, write

N, K, GROUP = 24, 64, 32
ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def config(**more):
    return {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", **more}}


def packed(codes):
    """Eight columns in a word, in AWQ's order."""
    return stream(codes.reshape(len(codes), -1, 8)[:, :, ORDER].reshape(codes.shape), 4)


def layer(kind=np.float16, groups=2):
    rng = np.random.default_rng(0)
    codes, zeros = rng.integers(16, size=(K, N)), rng.integers(16, size=(groups, N))
    scale, index = some_scales(rng, (groups, N), kind), np.arange(K) // (K // groups)
    tensors = {"m.qweight": packed(codes), "m.qzeros": packed(zeros), "m.scales": scale, "m.bias": np.ones(N, kind)}
    return tensors, values(codes, zeros[index], scale[index]).T


def check(folder, tensors, expected, settings):
    opened = fq.open(write(folder, tensors, settings))
    assert (opened.format, set(opened)) == ("safetensors, AWQ", {"m.weight", "m.bias"})
    q = opened["m.weight"]
    assert opened.entry("m.weight").shape == q.shape == (N, K)
    assert (q.bits, q.scheme, q.axis, q.dtype) == (4, "asymmetric", 1, expected.dtype)
    assert (q.dequantize() == expected).all()
    return q


@pytest.mark.parametrize("kind", FLOATS)
def test_awq(tmp_path, kind):
    q = check(tmp_path, *layer(kind), config())
    assert q.group_size == GROUP


def test_one_group(tmp_path):
    assert check(tmp_path, *layer(groups=1), config(group_size=-1)).group_size is None


def test_without_a_configuration(tmp_path):
    """The shape of qweight tells that it is not GPTQ's."""
    check(tmp_path, *layer(), None)
    check(tmp_path, *layer(), {"quantization_config": {"w_bit": 4, "q_group_size": 32}})


def test_what_cannot_be_read(tmp_path):
    tensors, _ = layer()

    def refused(tensors, settings, reason):
        opened = fq.open(write(tmp_path, tensors, settings))
        assert (opened["m.bias"] == 1).all()
        with pytest.raises(fq.FileFormatError, match=reason) as error:
            opened["m.weight"]
        assert str(tmp_path) in str(error.value)
        assert "'m.weight'" in str(error.value)

    for version in "gemv", "GEMV_fast", "marlin", 7:
        refused(tensors, config(version=version), f"got {version!r}")
    refused(tensors, config(version=None, checkpoint_format="llm-awq"), "got 'llm-awq'")
    refused(tensors, config(bits=8), "got bits=8")
    refused(tensors, config(group_size=16), "group_size=16")
    for part in "qzeros", "scales":
        refused({name: v for name, v in tensors.items() if name != f"m.{part}"}, config(), f"no tensor 'm.{part}'")
    refused({**tensors, "m.qzeros": tensors["m.qzeros"][:1]}, config(), "must agree")
    refused({**tensors, "m.qweight": tensors["m.qweight"][1:]}, config(), "must agree")
    refused({**tensors, "m.qweight": tensors["m.qweight"].T}, config(), "must agree")
    refused({**tensors, "m.qweight": tensors["m.qweight"].astype(np.int64)}, config(), "int32 or uint32")
    tensors["m.scales"][0, 0] = np.inf
    refused(tensors, config(), "finite")
