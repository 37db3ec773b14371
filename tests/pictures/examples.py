"""What pages are made of, in the tests: plain objects with the attributes of a benchmark, a file, a difference."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from fastq.models.levels import levels
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
CONTENDERS = (
    ("float32 np.matmul", "numpy", 32, None, None),
    ("int8 weights", "fastq", 8, None, 39.2),
    ("ONNX Runtime, int8 weights", "onnxruntime", 8, None, 38.7),
    ("int3 weights, group 64", "fastq", 3, 64, 14.9),
    ("ONNX Runtime, MatMulNBits, 4 bits", "onnxruntime", 4, 32, 20.1),
)
PEAKS = {"amx": 15.3e12, "avx512vnni": 2.0e12, "avxvnni": 0.782e12, "avx2": 0.349e12, "portable": 0.164e12}
BANDWIDTH = 55e9


def row(shape, contender, best, baseline, busy=False):
    """A row of a benchmark; times in seconds."""
    (name, library, bits, group, sqnr), (m, k, n) = contender, map(int, shape.split("x"))
    operations, nbytes = 2 * m * k * n, 4.0 * m * k + k * n * bits / 8
    compute, read = operations / PEAKS["amx"], nbytes / BANDWIDTH
    roofed = library != "numpy" and best > 0
    return SimpleNamespace(
        shape=(m, k, n), size=shape, name=name, library=library, bits=bits, group=group, best=best, median=1.07 * best,
        times_faster=baseline / best if best else float("inf"), sqnr_db=sqnr, operations=operations, nbytes=nbytes,
        roof=("compute" if compute > read else "reading") if roofed else None,
        share=max(compute, read) / best if roofed else None, unsteady=busy, busy=busy,
    )  # fmt: skip


def result(busy="", times=TIMES, roofs=True):
    """A benchmark."""
    rows = [
        row(shape, contender, 1e-3 * t, 1e-3 * of_shape[0], bool(busy))
        for shape, of_shape in times.items()
        for contender, t in zip(CONTENDERS, of_shape)
    ]
    peaks = {isa: {"isa": isa, "bits": [2, 3, 4, 8], "one": rate / 2, "all": rate} for isa, rate in PEAKS.items()}
    machine = SimpleNamespace(
        cpu="Intel(R) Xeon(R) Processor <at 2.1 GHz>", system="Linux x86_64", isa="amx", threads=2,
        blas="openblas 0.3.31 SkylakeX 2 threads", busy=busy,
        versions={"fastq": "0.1.0", "numpy": "2.4.6", "numba": "0.68.1", "onnxruntime": "1.32.0"},
    )  # fmt: skip
    return SimpleNamespace(
        machine=machine, rows=rows, notes=("NumKong takes no part in 16x4096x4096: 3 of 65536 sums are wrong",),
        roofs={"threads": 2, "peaks": peaks, "bandwidth": {"one": 30e9, "all": BANDWIDTH}} if roofs else {},
        taken="2026-11-29T12:00:00+00:00", by_shape=lambda: {s: [r for r in rows if r.size == s] for s in times},
    )  # fmt: skip


def layer_names(count):
    """Names of arrays, as models have them."""
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
    return [f"model.layers.{i // 5}.{parts[i % 5]}.weight" for i in range(count)]


def inspection(count=40, forms=tuple((b, g) for g in (None, 64) for b in (2, 3, 4, 8))):
    """The arrays of a file."""
    rng = np.random.default_rng(0)
    rows = []
    for i, name in enumerate(["embed_tokens.weight", "norm.bias", *layer_names(count - 2)][:count]):
        shape = ((32000, 1024), (1024,))[i] if i < 2 else (1024, 1024 * (1 + i % 3))
        n, extra = int(np.prod(shape)), 2.5 * rng.standard_normal() if i else -3.0
        tried = forms if len(shape) == 2 else ()
        rows.append(
            SimpleNamespace(
                name=name, shape=shape, kind="float32", bits_per_weight=32.0, nbytes=4 * n, form="", problem="",
                stays="" if tried else "a vector", sizes={(b, g): n * b // 8 + n // (g or 1024) for b, g in tried},
                sqnr={(b, g): 6.02 * b - 4.0 + extra + 3.1 * (g is not None) for b, g in tried},
            )
        )  # fmt: skip
    total = sum(row.nbytes for row in rows)
    return SimpleNamespace(
        path="/models/small/model.safetensors", format="safetensors", rows=tuple(rows), forms=tuple(forms),
        nbytes=total, size=total // 4, quantized=lambda form: sum(row.sizes.get(form, row.nbytes) for row in rows),
    )  # fmt: skip


def difference(count=40):
    """The errors of the arrays of two files."""
    rng = np.random.default_rng(2)
    rows = []
    for i, name in enumerate(layer_names(count)):
        rounding, clipping, scales = 1 - 0.02 * (i % 7), 0.02 * (i % 7), float(rng.uniform(0, 0.2))
        sqnr = float("inf") if i % 17 == 16 else 19.0 - 6 * (i % 5 == 4) + 0.1 * i + 1.5 * rng.standard_normal()
        row = SimpleNamespace(
            name=name, shape=(1024, 1024), kind="float32", other="3 bits", nbytes=400_000, problem="", sqnr_db=sqnr,
            error=SimpleNamespace(sqnr_db=sqnr, max_abs=0.01 if i % 17 != 16 else 0.0),
            shares=SimpleNamespace(rounding=rounding, clipping=clipping, scales=scales) if i % 17 != 16 else None,
        )  # fmt: skip
        if i == 7:
            row.error = row.sqnr_db = row.shares = None
            row.problem = "shapes differ: (1024, 1024) and (1024, 512)"
        rows.append(row)
    rows.sort(key=lambda row: np.inf if row.sqnr_db is None else row.sqnr_db)
    return SimpleNamespace(rows=tuple(rows), only_first=("lm_head.weight",), only_second=())


def weights():
    """How numbers like those of a trained layer lie about the codes of 3 bits."""
    x = np.random.default_rng(1).standard_t(6, (200, 512)).astype(np.float32)
    return levels(x, bits=3, group_size=64)


def pages():
    """The text of a page of each kind, by name."""
    return {
        "bench": bench_page(result(busy="load 22 on 2 cores")),
        "inspect": inspect_page(inspection(), ("embed_tokens.weight", weights())),
        "diff": diff_page(difference(), "model.safetensors", "model-3bit.safetensors"),
    }
