"""Results that are the same bytes on every CPU: a hash of each, held in ``fixed_set.txt``.

    python -m tests.kernels.fixed_set              on every instruction set that this CPU has, the reference included
    python -m tests.kernels.fixed_set avx2 neon    on some
    python -m tests.kernels.fixed_set --write      hold what the reference computes now, after a change that was meant

The command names each result that differs, and returns 1 if one does. Inputs come from integers, not from a generator
or a function of NumPy, whose bits another version may change. The set holds what docs/guide/exactness.md promises; so
"gptq", SecondMoment, balance and `rescore`, which use BLAS, are not in it, nor is bfloat16, whose type is not NumPy's.
"""

from __future__ import annotations

import hashlib
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import fastq as fq
from fastq.errors import IsaError
from fastq.kernels.table import ISAS
from fastq.machine import cpu
from tests.cases import instruction_set
from tests.kernels.fixed_cases import cases

HELD = pathlib.Path(__file__).with_suffix(".txt")


def arrays(result: Any) -> Iterator[Any]:
    """The arrays that a result consists of, in order."""
    if isinstance(result, fq.QArray):
        yield from (result.codes, result.scale, result.zero_point, result.offset, result.dequantize())
    elif isinstance(result, np.ndarray | np.generic) or result is None:
        yield result
    else:
        for part in result:
            yield from arrays(part)


def digest(result: Any) -> str:
    """A hash of types, shapes and bytes."""
    found = hashlib.sha256()
    for array in arrays(result):
        if array is None:
            found.update(b"none")
        else:
            little = np.asarray(array, array.dtype.newbyteorder("<"))
            found.update(f"{little.dtype.str} {little.shape} ".encode() + little.tobytes())
    return found.hexdigest()[:16]


def digests(isa: str) -> dict[str, str]:
    """The hash of each result on an instruction set, by name."""
    with instruction_set(isa):
        return {name: digest(compute()) for name, compute in cases().items()}


def of_all(single: dict[str, str]) -> str:
    """One hash of all of them."""
    return hashlib.sha256("".join(f"{name} {value}\n" for name, value in single.items()).encode()).hexdigest()


def held() -> dict[str, str]:
    """The hashes that are held, by name; that of all is left out."""
    return dict(line.rsplit(" ", 1) for line in HELD.read_text().splitlines()[1:])


def differing(found: dict[str, str]) -> list[str]:
    """The results whose hashes are not those that are held, or that only one side has."""
    expected = held()
    return [name for name in {**expected, **found} if found.get(name) != expected.get(name)]


def write(found: dict[str, str]) -> None:
    """Hold these hashes."""
    lines = [f"all {of_all(found)}", *(f"{name} {value}" for name, value in found.items())]
    HELD.write_text("\n".join(lines) + "\n")


def main(arguments: list[str]) -> int:
    """The command."""
    writes = "--write" in arguments
    have, wanted = cpu.available(ISAS), [a for a in arguments if a != "--write"]
    if lacking := [isa for isa in wanted if isa not in have]:
        raise IsaError(f"instruction sets must be ones that this CPU has, {', '.join(have)}; got {', '.join(lacking)}")
    if writes:
        write(digests("reference"))
    wrong = 0
    for isa in wanted or have:
        began = time.perf_counter()
        found = digests(isa)
        names = differing(found)
        wrong += len(names)
        print(f"{isa:<12} {of_all(found)}  {len(found)} results, {time.perf_counter() - began:.0f} s", flush=True)
        for name in names:
            print(f"    differs: {name}")
    print(f"{wrong} differ from those that are held" if wrong else "all as held")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
