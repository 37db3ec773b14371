"""What pages are made of, in the tests: plain objects with the attributes of a run, of a file, of a difference."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from fastq.pictures import distribution
from fastq.pictures.bench_page import bench_page
from fastq.pictures.diff_page import diff_page
from fastq.pictures.inspect_page import inspect_page

# Milliseconds of contenders, as a machine with AMX gave them once.
TIMES = {
    "1x4096x4096": (1.10, 0.323, 0.339, 0.131, 0.244),
    "16x4096x4096": (6.00, 0.356, 0.384, 0.385, 1.77),
    "128x768x3072": (2.35, 0.191, 0.224, 0.202, 1.31),
    "1024x4096x4096": (91.4, 6.26, 9.52, 6.18, 115.0),
    "64x64x64": (0.00407, 0.00931, 0.00815, 0.00929, 0.0158),
}
LIBRARIES = ("numpy", None, "onnxruntime", None, "onnxruntime")
NAMES = ("float32 np.matmul", "int8 weights", "ONNX Runtime, int8 weights", "int3 weights, group 64",
         "ONNX Runtime, MatMulNBits, 4 bits")  # fmt: skip


def contender(group, i, milliseconds, busy=""):
    m, k, n = map(int, group.split("x"))
    bits = (32, 8, 8, 3, 4)[i]
    return SimpleNamespace(
        group=group, title=NAMES[i] + ", amx" * (LIBRARIES[i] is None), library=LIBRARIES[i], baseline=i == 0,
        best=milliseconds / 1e3, median=1.07 * milliseconds / 1e3, bits=bits, size=(None, None, None, 64, 32)[i],
        sqnr=(None, 39.2, 38.7, 14.9, 20.1)[i], operations=2 * m * k * n, nbytes=4.0 * m * k + k * n * bits / 8,
        busy=busy,
    )  # fmt: skip


PEAKS = {"amx": 15.3e12, "avx512vnni": 2.0e12, "avxvnni": 0.782e12, "avx2": 0.349e12, "portable": 0.164e12}


def run(busy="", groups=TIMES):
    roofs = {
        "threads": 2,
        "peaks": {name: {"isa": name, "bits": [8], "one": rate / 2, "all": rate} for name, rate in PEAKS.items()},
        "bandwidth": {"one": 30e9, "all": 55e9},
    }
    rows = {g: [contender(g, i, t, busy) for i, t in enumerate(times)] for g, times in groups.items()}

    def roof(row):
        if row.baseline:
            return None
        multiply, read = row.operations / 15.3e12, row.nbytes / 55e9
        return SimpleNamespace(name="compute" if multiply > read else "reading", seconds=max(multiply, read))

    machine = {"CPU": "Intel(R) Xeon(R) Processor <at 2.1 GHz>", "instruction set": "amx", "threads": "2",
               "versions": "fastq 0.1.0, numpy 2.4.6, onnxruntime 1.32.0"}  # fmt: skip
    notes = ["NumKong takes no part in 16x4096x4096: 3 of 65536 sums are wrong"]
    return SimpleNamespace(machine=machine, groups=rows, roofs=roofs, notes=notes, roof=roof)


def layer_names(layers):
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
    return [f"model.layers.{i // 5}.{parts[i % 5]}.weight" for i in range(layers)]


def inspected(layers=40):
    rng = np.random.default_rng(0)
    rows = []
    for i, name in enumerate(["embed_tokens.weight", *layer_names(layers)]):
        shape = (32000, 1024) if i == 0 else (1024, 1024 * (1 + i % 3))
        base = 2.5 * rng.standard_normal() if i else -3.0
        sqnr = {(b, g): 6.02 * b - 4.0 + base + 3.1 * (g is not None) for b in range(2, 9) for g in (None, 64)}
        rows.append(
            SimpleNamespace(
                name=name, shape=shape, kind="float32", bits_per_weight=32.0, nbytes=4 * shape[0] * shape[1], sqnr=sqnr
            )
        )
    return rows


def weights():
    """Numbers like those of a trained layer, in steps of a scale, and the levels of 3 bits."""
    x = np.random.default_rng(1).standard_t(6, 60_000) * 1.4
    return distribution.of_numbers([np.clip(x, -6, 6)], np.arange(-4, 4), 32_768_000, "value over its scale")


def differences(layers=40):
    rng = np.random.default_rng(2)
    rows = []
    for i, name in enumerate(layer_names(layers)):
        shares = rng.dirichlet((6, 2, 0.5))
        sqnr = float("inf") if i % 17 == 16 else 19.0 - 6 * (i % 5 == 4) + 0.1 * i + 1.5 * rng.standard_normal()
        rounding, scales, clipping = (float("nan"),) * 3 if sqnr == float("inf") else map(float, shares)
        rows.append(SimpleNamespace(name=name, sqnr_db=sqnr, rounding=rounding, scales=scales, clipping=clipping))
    return rows


def pages():
    """A page of each kind, by name."""
    file, array = {"File": "/models/small/model.safetensors"}, ("embed_tokens.weight", weights())
    return {
        "bench": bench_page(run(busy="load 22 on 2 cores")),
        "inspect": inspect_page("model.safetensors", inspected(), array, file),
        "diff": diff_page("model-3bit.safetensors against model.safetensors", differences()),
    }
