"""Damaged parts, folders and kernels: an error or a right answer, never a crash, a hang or a wrong number.

What fits together after the damage may stand for other numbers, as a scale does that was changed; products must then
be those of the numbers that the array says it holds. Tiles and the sums of their codes are taken on trust, because to
check them would be to read them all; only their form is damaged here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import fastq as fq
from fastq.qarray.parts import put_together, take_apart
from fastq.storage.folder import DOCUMENT

from . import guard
from .draw import Draw, exact
from .finding import REFUSALS, Finding, must

Array = npt.NDArray[Any]
K, N = 300, 80


def instruction_sets(have: tuple[str, ...]) -> tuple[str | None, ...]:
    """The one in use: what is damaged is the same for all of them."""
    return (None,)


def prepare() -> None:
    """Have arrays beside guard pages, where that is possible: to read beyond them ends the process then."""
    if sys.platform.startswith("linux"):
        guard.prepare()


def case(seed: int) -> None:
    """Damage something, and use it."""
    d = Draw(seed)
    with np.errstate(all="ignore"):
        d.one_of(*(_parts,) * 10, *(_folder,) * 8, _kernels)(d)


@cache
def _whole() -> tuple[fq.QArray, ...]:
    """Arrays of all forms."""
    w = np.random.default_rng(0).standard_normal((K, N)).astype(np.float32)
    balance = np.linspace(0.5, 2, K)
    return (
        fq.quantize(w, 3, axis=0),
        fq.quantize(w, 3, axis=0, group_size=16),
        fq.quantize(w, 3, axis=0, group_size=32, scheme="asymmetric"),
        fq.quantize(w, 8, axis=0, group_size=10, scheme="affine"),
        fq.quantize(w, 8, scheme="asymmetric"),
        fq.quantize(w, 8, axis=0, balance=balance),
        fq.quantize(w.T.copy(), 3, axis=-1, group_size=64, scheme="asymmetric"),
        fq.quantize(w[:288], 8, axis=0, rotate=True),
        fq.quantize(np.stack([w, -w]), 3, axis=1, scheme="asymmetric"),
        fq.quantize(np.stack([w, -w]), 3, axis=0, group_size=16),
        fq.quantize(w[0], 8, axis=0, group_size=16, scheme="asymmetric"),
    )


# What is damaged is used


def _use(q: fq.QArray, how: str) -> None:
    """Products, numbers and cuts of an array that seems whole."""
    repr(q), q.nbytes
    numbers = exact(q)
    values = q.dequantize(np.float64)
    room = 2.0**-20 * numbers.magnitudes * q.rotation + 1e-37
    off = ~(np.abs(values - numbers.values) <= room) & (numbers.magnitudes * q.rotation < 1e37)
    must(not off.any(), f"{how}: numbers of {q!r}")
    if q.ndim < 2:
        return
    for b in (q, q.mT):
        k = b.shape[-2]
        for rows, kind in ((3, np.float32), (3, np.uint8), (40, np.float32)):
            x = np.arange(rows * k, dtype=np.float64).reshape(rows, k) % 17
            try:
                got = x.astype(kind) @ b
                bound = fq.matmul_error_bound(x.astype(kind), b)
            except (*REFUSALS, guard.LostError):
                continue
            other = exact(b)
            want = x @ other.values
            slack = 2.0**-40 * (x @ other.magnitudes)
            off = ~(np.abs(got - want) <= bound + slack) & np.isfinite(bound)
            must(not off.any(), f"{how}: a product with {q!r}")
    with suppress(ValueError):  # what is mixed or grouped there
        q[..., :16, :]
    q.equals(q)


# Parts


def _parts(d: Draw) -> None:
    """Arrays and attributes of a quantized array, one or two of them changed."""
    q = d.one_of(*_whole())
    arrays, attributes = take_apart(q)
    told = []
    for _ in range(1 + d.below(2)):
        name = d.one_of(*arrays, *attributes)
        if name in arrays:
            if not isinstance(arrays[name], np.ndarray):
                continue  # it has been damaged so that it is none any more
            damage = d.one_of(*ARRAYS)
            arrays[name] = damage(d, name, arrays[name])
            told.append(f"{name} {damage.__name__.strip('_')}")
            if arrays[name] is None:
                del arrays[name]
        else:
            attributes[name] = _other_value(d, name)
            told.append(f"{name}={attributes[name]!r}")
    how = f"parts with {', '.join(told)}"
    try:
        damaged = put_together(arrays, attributes)
    except (TypeError, ValueError, guard.LostError):
        return
    _use(damaged, how)


def _cut_short(d: Draw, name: str, array: Array) -> Array:
    return array[: d.below(len(array) + 1)].copy()


def _in_another_shape(d: Draw, name: str, array: Array) -> Any:
    return d.one_of(array[None], array.reshape(-1), array.T, np.repeat(array, 2, axis=0), array[..., ::-1])


def _of_another_type(d: Draw, name: str, array: Array) -> Any:
    return array.astype(d.one_of("u1", "i1", "i4", "i8", "f2", "f4", "f8", ">f4", "O", "c8", "?", "U8"))


def _with_other_values(d: Draw, name: str, array: Array) -> Any:
    """Some elements at the ends of their type, or beyond what they may be."""
    array = array.copy()
    if name == "tiles":
        return array
    if name == "sums":
        return array + d.one_of(2**30, -(2**30))
    info: Any = np.finfo(array.dtype) if array.dtype.kind == "f" else np.iinfo(array.dtype)
    special = [np.nan, np.inf, -1.0, 0.0, -0.0] if array.dtype.kind == "f" else [0, 1]
    array.flat[d.below(array.size)] = d.one_of(info.min, info.max, *special)
    return array


def _missing(d: Draw, name: str, array: Array) -> Any:
    return None


def _of_no_array(d: Draw, name: str, array: Array) -> Any:
    return d.one_of(array.tolist(), b"", "tiles", 7, np.ma.array(array), memoryview(array))


ARRAYS: tuple[Callable[[Draw, str, Array], Any], ...] = (
    _cut_short, _in_another_shape, _of_another_type, _with_other_values, _with_other_values, _missing, _of_no_array,
)  # fmt: skip


# What attributes are in other arrays: damage that is not seen at once.
PLAUSIBLE: dict[str, tuple[Any, ...]] = {
    "shape": ([K, N], [N, K], [2, K, N], [K + 1, N], [K, N + 1], [K - 12, N], [K, N - 16], [1, K, N], [320, N], [N]),
    "dtype": ("float16", "float32", "float64", "bfloat16"),
    "bits": (2, 3, 4, 5, 7, 8),
    "scheme": ("symmetric", "asymmetric", "affine"),
    "axis": (None, 0, 1, 2),
    "group_size": (None, 1, 7, 10, 16, 32, 48, 64, 288, 10**6),
    "rotation": (1, 2, 4, 16, 32),
    "flipped": (True, False),
    "cuts": (None, 1, 10, 16, 60, 64, N, K - 12, K),
}
ODD = (
    None,
    True,
    False,
    0,
    1,
    2,
    9,
    64,
    2**20,
    2**40,
    10**30,
    -1,
    1.5,
    float("nan"),
    "",
    "x",
    [],
    {},
    [[]],
    [-1],
    [2**40],
)


def _other_value(d: Draw, name: str) -> Any:
    """What an attribute might be in place of what it is."""
    return d.one_of(*PLAUSIBLE.get(name, ODD)) if d.chance(0.8) else d.one_of(*ODD)


# Folders


def _folder(d: Draw) -> None:
    """A saved array, one or two of whose files are damaged."""
    q = d.one_of(*_whole())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "q"
        q.save(folder)
        told = []
        for _ in range(1 + d.below(2)):
            files = sorted(folder.iterdir())
            file: Path = d.one_of(*files) if d.chance(0.6) else folder / DOCUMENT
            if file.exists():
                told.append(f"{file.name} {_damage_file(d, file, q)}")
        how = f"a folder with {', '.join(told)}"
        try:
            damaged = fq.load(folder, mmap=d.chance(0.5))
        except (ValueError, OSError, guard.LostError):
            return
        _use(damaged, how)


def _damage_file(d: Draw, file: Path, q: fq.QArray) -> str:
    """Damage a file; returns how."""
    data = file.read_bytes()
    if file.name == DOCUMENT and d.chance(0.7):
        with suppress(ValueError, LookupError, AttributeError):  # of one that was damaged before
            return _damage_document(d, file, json.loads(data))
    head = 10 + int.from_bytes(data[8:10], "little")
    reach = min(head if file.name in ("tiles.npy", "sums.npy") else len(data), len(data))  # see above
    kind = d.one_of("cut short", "flipped", "flipped in its head", "longer", "empty", "gone", "another's")
    if kind == "cut short":
        data = data[: d.below(len(data) + 1)]
    elif kind.startswith("flipped") and data:
        at = d.below(min(reach, 128) if kind.endswith("head") else reach)
        data = data[:at] + bytes([data[at] ^ 1 << d.below(8)]) + data[at + 1 :]
    elif kind == "longer":
        data += b"\0" * 64
    elif kind == "empty":
        data = b""
    elif kind == "gone":
        file.unlink()
        return kind
    elif kind == "another's":
        data = d.one_of(*sorted(file.parent.iterdir())).read_bytes()
    file.write_bytes(data)
    return kind


def _damage_document(d: Draw, file: Path, document: dict[str, Any]) -> str:
    """Change or delete an entry of the JSON document; returns which."""
    name = d.one_of(*document)
    document[name] = _other_value(d, name)
    if d.chance(0.1):
        del document[name]
    file.write_text(json.dumps(document))
    return f"with {name}={document.get(name, 'missing')!r}"


# Compiled kernels

PROGRAM = """
import numpy as np, fastq as fq
from fastq.machine import jit
a = np.arange(9 * 70).reshape(9, 70).astype("i1")
b = np.arange(70 * 40).reshape(70, 40).astype("i1")
q = fq.quantize(b.astype("f4"), 3, axis=0)
print((fq.matmul(a, b) == a.astype("i8") @ b.astype("i8")).all(), (a.astype("f4") @ q).tobytes().hex())
print(jit.cache_folder(), *jit.loaded_names())
"""


def _printed(**variables: str) -> tuple[str, str]:
    """The two lines that the program prints: its results, and what kernels it took, from where."""
    arguments = {"capture_output": True, "text": True, "env": {**os.environ, **variables}}
    try:
        done = subprocess.run([sys.executable, "-c", PROGRAM], timeout=60, **arguments)
    except subprocess.TimeoutExpired:
        raise Finding("a process hangs") from None
    if done.returncode:
        raise Finding(f"a process ends with {done.returncode}: {' '.join(done.stderr.splitlines()[-1:])}")
    results, kernels = done.stdout.splitlines()
    return results, kernels


@cache
def _whole_kernels() -> tuple[str, str]:
    """What the program prints with kernels that are whole; they are in the cache then."""
    return _printed()


def _kernels(d: Draw) -> None:
    """A cache of which one or two files are damaged."""
    results, kernels = _whole_kernels()
    folder, *names = kernels.split()
    if folder == "none":
        return
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / Path(folder).name
        copy.mkdir(mode=0o700)
        for name in names:
            shutil.copy(Path(folder) / f"{name}.kernel", copy)
        told = [_damage_kernel(d, copy, d.one_of(*names)) for _ in range(1 + d.below(2))]
        try:
            got, _ = _printed(FASTQ_CACHE_DIR=place)
        except Finding as finding:
            raise Finding(f"kernels {', '.join(told)}: {finding}") from None
        must(got == results, f"kernels {', '.join(told)}: other results")


def _damage_kernel(d: Draw, folder: Path, name: str) -> str:
    """Damage a file of object code; returns how."""
    file = folder / f"{name}.kernel"
    if not file.is_file():
        return "missing"
    data = file.read_bytes()
    kind = d.one_of(
        "cut short", "flipped", "flipped in the head", "empty", "longer", "another's", "swapped", "a folder"
    )
    if kind in ("another's", "swapped"):
        other: Path = d.one_of(*sorted(f for f in folder.iterdir() if f.is_file()))
        file.write_bytes(other.read_bytes())
        if kind == "swapped":
            other.write_bytes(data)
    elif kind == "a folder":
        file.unlink()
        file.mkdir()
    else:
        at = d.below(100 if kind == "flipped in the head" else max(1, len(data)))
        flipped = data[:at] + bytes(byte ^ 1 << d.below(8) for byte in data[at : at + 1]) + data[at + 1 :]
        file.write_bytes({"cut short": data[:at], "empty": b"", "longer": data + b"\0"}.get(kind, flipped))
    return kind
