"""Files with mistakes in them: each is refused with an error that names the file, or read right.

    python -m tests.formats.mutations safetensors --count 10000
    python -m tests.formats.mutations safetensors --seed 7 --first 1234 --count 1   # one of them again

A mutation changes bytes, cuts, splices, puts extremes where a length, offset, count or type may stand, and edits JSON.
The files of a case depend on its seed and number alone. What must hold: FileFormatError, at opening or at reading; or
arrays of the shape that their entries tell, the same as another library reads where there is one (samples.READERS); no
other exception; memory of a small factor of the files; and an end in time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import fastq as fq

from .samples import READERS, SAMPLES

MEMORY, FACTOR = 4 << 20, 64  # bytes that a case may take, and so many per byte of its files
SECONDS = 10
EXTREMES = (0, 1, 2, 3, 7, 31, 32, 33, 64, 65, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
            2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
VALUES = (
    *(str(n).encode() for n in EXTREMES),
    *(b"null", b"true", b'""', b'"x"', b"[]", b"{}", b"[0]", b"-1", b"0.5", b"1e999", b"NaN", b"1e3"),
    *(b'"F4"', b'"U4"', b'"F8_E8M0"', b'"../model"', b'"\\ud800"', b"9" * 30, b"9" * 5000),
    *(b"[" * 100_000, b'{"a":' * 50_000),
)
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+|[\[\]{},:]|true|false|null')


class Finding(AssertionError):
    """What must not be."""


# Mutations: bytes to bytes


def flipped(rng: np.random.Generator, data: bytes) -> bytes:
    """A few bytes that are others."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        changed[_place(rng, data)] = rng.integers(256) if rng.random() < 0.5 else 1 << rng.integers(8)
    return bytes(changed)


def extreme(rng: np.random.Generator, data: bytes) -> bytes:
    """An integer of 1 to 8 bytes that is an extreme, or near the size of the file."""
    width, at = int(rng.choice([1, 2, 4, 8])), _place(rng, data)
    if rng.random() < 0.7:
        at -= at % width
    values = (*EXTREMES, len(data), len(data) - 1, len(data) - 8, len(data) + 1)
    value = values[rng.integers(len(values))] % 256**width
    return (data[:at] + value.to_bytes(width, "little") + data[at + width :])[: len(data)]


def cut(rng: np.random.Generator, data: bytes) -> bytes:
    """A file that ends too early."""
    return data[: _place(rng, data) if rng.random() < 0.7 else -int(rng.integers(1, 9))]


def longer(rng: np.random.Generator, data: bytes) -> bytes:
    """A file that goes on."""
    return data + rng.bytes(int(rng.choice([1, 7, 8, 4096])))


def spliced(rng: np.random.Generator, data: bytes) -> bytes:
    """A part of the file put, or written over, somewhere else; or left out."""
    start, at = _place(rng, data), _place(rng, data)
    part = data[start : start + int(rng.choice([1, 4, 8, 30, 200]))]
    kind = rng.integers(3)
    if kind == 0:
        return data[:start] + data[start + len(part) :]
    return data[:at] + part + data[at + (len(part) if kind == 1 else 0) :]


def edited(rng: np.random.Generator, data: bytes) -> bytes:
    """JSON, in the header of safetensors or as a file, with a value, a sign or a name that is another one."""
    start, end = (8, 8 + int.from_bytes(data[:8], "little")) if data[8:9] == b"{" else (0, len(data))
    text = _edited(rng, data[start:end])
    return (len(text).to_bytes(8, "little") if start else b"") + text + data[end:]


def _edited(rng: np.random.Generator, text: bytes) -> bytes:
    """JSON with one or two mistakes, half of the time in a text that is JSON itself, if there is one."""
    inner = re.search(rb'"\{(?:[^"\\]|\\.)*"', text)
    if inner and rng.random() < 0.5:
        with contextlib.suppress(ValueError):
            new = _edited(rng, json.loads(inner[0]).encode())
            return text[: inner.start()] + json.dumps(new.decode()).encode() + text[inner.end() :]
    for _ in range(rng.integers(1, 3)):
        tokens = list(TOKEN.finditer(text))
        if not tokens:
            break
        one, other = (tokens[i] for i in rng.integers(len(tokens), size=2))
        new = other[0] if rng.random() < 0.4 else VALUES[rng.integers(len(VALUES))]
        if rng.random() < 0.1:
            new = one[0] + new
        text = text[: one.start()] + new + text[one.end() :]
    return text


MUTATIONS: tuple[Callable[[np.random.Generator, bytes], bytes], ...] = (
    flipped, extreme, extreme, cut, longer, spliced, edited, edited, edited,
)  # fmt: skip


def _place(rng: np.random.Generator, data: bytes) -> int:
    """A place in a file, half of the time near its start, where headers are."""
    return int(rng.integers(min(len(data), 256) if rng.random() < 0.5 else len(data)))


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """A file with a mistake, seldom with two."""
    for _ in range(2 if rng.random() < 0.1 else 1):
        if data:
            data = MUTATIONS[rng.integers(len(MUTATIONS))](rng, data)
    return data


# Cases


@cache
def sample(make: Callable[[Path], Path]) -> tuple[dict[str, bytes], str]:
    """The files that a maker writes, and which of them is opened, relative to the folder."""
    with tempfile.TemporaryDirectory() as place:
        opened = make(Path(place))
        files = {str(f.relative_to(place)): f.read_bytes() for f in sorted(Path(place).rglob("*")) if f.is_file()}
        return files, str(opened.relative_to(place))


def case(form: str, seed: int, number: int, folder: Path) -> str:
    """Write the files of a case, and open them; the outcome in a word."""
    rng = np.random.default_rng([seed, number])
    make = SAMPLES[form][rng.integers(len(SAMPLES[form]))]
    files, opened = sample(make)
    wrong = list(files)[rng.integers(len(files))]
    files = {**files, wrong: mutated(rng, files[wrong])}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    reader = READERS.get(make)
    with in_time():
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        outcome, values = read(folder / opened, folder)
        peak = tracemalloc.get_traced_memory()[1] - before
        must(peak <= MEMORY + FACTOR * sum(map(len, files.values())), f"memory: {peak} bytes")
        if reader:
            compare(outcome, values, reader(folder / opened))
    return outcome


def read(path: Path, folder: Path) -> tuple[str, dict[str, Any]]:
    """Open a file and read its arrays: the outcome, and those that can be read."""
    values: dict[str, Any] = {}
    refused = False
    try:
        opened = fq.open(path)
    except fq.FileFormatError as error:
        must(str(folder) in str(error), f"an error without the file: {error}")
        return "refused at opening", values
    must(isinstance(repr(opened), str), "repr")
    for name in opened:
        entry = opened.entry(name)
        try:
            value = opened[name]
        except fq.FileFormatError as error:
            must(str(folder) in str(error), f"an error without the file: {error}")
            refused = True
            continue
        must(value.shape == entry.shape, f"shape {value.shape} of {entry}")
        if isinstance(value, fq.QArray):
            must(value.dequantize().shape == entry.shape, f"dequantize of {entry}")
        else:
            must(isinstance(value, np.ndarray), f"a {type(value)}")
            value.tobytes()  # all of it lies in the file
        values[name] = value
    return "refused at reading" if refused else "read", values


def compare(outcome: str, values: dict[str, Any], theirs: dict[str, Any] | None) -> None:
    """With what another library reads: what it refuses is not read whole, and what it reads is the same."""
    if theirs is None:
        must(outcome != "read", "the library refuses this file")
        return
    must(outcome != "refused at opening", "the library opens this file")
    for name in values.keys() & theirs.keys():
        mine, other = values[name], theirs[name]
        must((mine.dtype, mine.shape) == (other.dtype, other.shape), f"{mine.dtype} {mine.shape}, not {other.dtype}")
        must(mine.tobytes() == other.tobytes(), f"other values of {name}")


def must(holds: Any, message: str) -> None:
    """Report it, unless it holds."""
    if not holds:
        raise Finding(message)


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """An error if the block takes too long; where there are no alarms, only behind its end."""

    def late(*_: Any) -> None:
        raise Finding(f"more than {SECONDS} seconds")

    start = time.monotonic()
    if hasattr(signal, "SIGALRM"):
        before = signal.signal(signal.SIGALRM, late)
        signal.alarm(SECONDS)
    try:
        yield
    finally:
        if hasattr(signal, "SIGALRM"):
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
    must(time.monotonic() - start <= SECONDS, f"more than {SECONDS} seconds")


def run(form: str, count: int, seed: int = 0, first: int = 0) -> tuple[Counter[str], list[str]]:
    """Many cases: how often each outcome, and what was found."""
    outcomes, findings = Counter[str](), []
    tracemalloc.start()
    try:
        for number in range(first, first + count):
            with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # mutated scales overflow
                try:
                    outcomes[case(form, seed, number, Path(place))] += 1
                except Exception as error:
                    findings.append(f"--seed {seed} --first {number}: {type(error).__name__}: {str(error)[:500]}")
    finally:
        tracemalloc.stop()
    return outcomes, findings


if __name__ == "__main__":
    import resource  # which Windows lacks

    parser = argparse.ArgumentParser()
    parser.add_argument("format", choices=SAMPLES)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    outcomes, findings = run(options.format, options.count, options.seed, options.first)
    print(f"{options.format}: {dict(outcomes)}, {len(findings)} findings", *findings, sep="\n  ")
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")
