"""Lesson 11: a model file of another tool: opened, measured and multiplied in ten lines.

Three questions about weights that others have quantized: how small, how fast, how wrong.

The file is one of GGUF, as llama.cpp reads them. This lesson writes it, because it is small and needs no download: a
matrix in the type Q4_0 and one in Q8_0. Both have blocks of 32 numbers under one scale of float16, and 4 or 8 bits per
number. Files from a hub are opened by the same line: fq.open looks at what is in them.

Codes that are in memory already, whatever library made them, become a quantized array by fq.from_parts.
"""

import pathlib
import struct
import tempfile
import time

import numpy as np

import fastq as fq

N, K = 2048, 2048
F32, Q4_0, Q8_0 = 0, 2, 8  # types, as ggml numbers them


def blocks(w, bits):
    """Blocks of ggml: a scale of float16 and 32 codes, rounded to the nearest."""
    x = w.reshape(-1, 32)
    scale = np.abs(x).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    scale = scale.astype(np.float16)
    codes = np.rint(x / scale.astype(np.float32)).astype(np.int8)
    if bits == 4:  # a byte holds codes i and i + 16, plus 8
        codes = (codes + 8).astype(np.uint8)
        codes = codes[:, :16] | codes[:, 16:] << 4
    return np.hstack([scale.view(np.uint8), codes.view(np.uint8)])


def write_gguf(path, tensors):
    """Write tensors, each as (shape, type, bytes): a header, what it says of each tensor, and the data."""

    def text(name):
        return struct.pack("<Q", len(name)) + name.encode()

    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1)
    header += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    offset = 0
    for name, (shape, kind, data) in tensors.items():
        header += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, offset)
        offset += data.nbytes  # each is a multiple of 32 here, as it must be
    with path.open("wb") as file:
        file.write(header + bytes(-len(header) % 32))
        for _, _, data in tensors.values():
            file.write(data.tobytes())


def milliseconds(function):
    """The shortest of twenty times."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


random = np.random.default_rng(0)
plain = {f"blk.{i}.ffn_up.weight": random.standard_normal((N, K), dtype=np.float32) / 32 for i in (0, 1)}
x = random.standard_normal((1, K), dtype=np.float32)

with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "model.gguf"
    first, second = plain
    tensors = {
        first: ((N, K), Q4_0, blocks(plain[first], 4)),
        second: ((N, K), Q8_0, blocks(plain[second], 8)),
        "output_norm.weight": ((K,), F32, np.ones(K, np.float32)),
    }
    write_gguf(path, tensors)

    # The ten lines.
    model = fq.open(path)  # reads the header
    for name in model:
        print(f"{name:20} {model.entry(name)}")
    for name, w in plain.items():
        q = model[name]  # read now
        y = x @ q.T
        print(f"\n{name}: {q}")
        print(f"  how small: {q.nbytes:,} bytes, of {w.nbytes:,} as float32")
        print(
            f"  how fast:  {milliseconds(lambda q=q: x @ q.T):.2f} ms, float32 {milliseconds(lambda w=w: x @ w.T):.2f}"
        )
        print(f"  how wrong: the weights {fq.error(w, q).sqnr_db:.1f} dB; what the product adds to that "
              f"{fq.error(x @ q.dequantize().T, y).sqnr_db:.1f} dB")  # fmt: skip

    # From GGUF to safetensors, array by array; every number stays the same.
    fq.save(pathlib.Path(folder) / "model.safetensors", model)
    again = fq.open(pathlib.Path(folder) / "model.safetensors")
    print(f"\nsaved as safetensors and opened again: equal {again[name].equals(q)}")
    del model, again  # files that are mapped cannot be removed everywhere

print("\nCodes of others, in memory")
# torch.quantize_per_channel(w, scales, zero_points, axis=0, dtype=torch.quint8): its axis is the one along which scales
# differ. Here axis is the one along which numbers share a scale: the other one.
w = plain[first]
scales = (w.max(axis=1) - w.min(axis=1)) / 255
zeros = np.rint(-w.min(axis=1) / scales).astype(np.int64)
codes = np.clip(np.rint(w / scales[:, None]) + zeros[:, None], 0, 255).astype(np.uint8)
q = fq.from_parts(codes, scales[:, None], zero_point=zeros[:, None], bits=8, axis=-1)
print(f"torch, per_channel_affine: {q}, {fq.error(w, q).sqnr_db:.1f} dB")

# mlx.core.quantize(w, group_size=64, bits=4): words of eight codes, a scale and a bias (here: offset) per group.
groups = w.reshape(N, K // 64, 64)
biases = groups.min(axis=-1)
scales = (groups.max(axis=-1) - biases) / 15
codes = np.rint((groups - biases[..., None]) / scales[..., None]).astype(np.uint32).reshape(N, K // 8, 8)
words = (codes << np.arange(0, 32, 4, dtype=np.uint32)).sum(axis=-1, dtype=np.uint32)
q = fq.from_parts(words, scales, offset=biases, bits=4, group_size=64, packed=True, shape=(N, K))
print(f"MLX, affine: {q}, {fq.error(w, q).sqnr_db:.1f} dB")
print(f"its parts give the same array: {fq.from_parts(**q.parts()).equals(q)}")
