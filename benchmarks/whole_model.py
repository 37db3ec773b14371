"""`fq.quantize_all` from file to file against `cp` of the file: rates and peak memory of a process for each.

    python benchmarks/whole_model.py FOLDER

The folder gets a file of 1 GiB of float32, as one matrix and as sixteen. Rates are bytes of that file per second of
wall time, the best of three in turns. The file is in the system's page cache. `quantize_all` waits until the disk has
the new file, and `cp` does not, so there is a second figure for `cp`, with `sync`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import fastq as fq

SHAPES = {"one": [(16384, 16384)], "sixteen": [(4096, 4096)] * 16}
FORMS = {
    "8 bits by column": "bits=8, axis=0",
    "8 bits by row": "bits=8, axis=-1",
    "4 bits, groups": "bits=4, group_size=64",
}
ROUNDS = 3
CODE = """
import sys, time, fastq as fq
model, begin = fq.open(sys.argv[1]), time.perf_counter()
fq.quantize_all(model, out=sys.argv[2], {form})
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.perf_counter() - begin, peak.split()[1])
"""


def seconds(*command: object) -> float:
    """Of wall time that a command takes."""
    begin = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True)
    return time.perf_counter() - begin


def compare(source: Path, other: Path) -> None:
    """Print the rates of a file."""
    best, peak = dict[str, float](), 0

    def took(name: str, time: float) -> None:
        best[name] = min(time, best.get(name, time))
        other.unlink()

    for _ in range(ROUNDS):
        took("cp", seconds("cp", source, other))
        took("cp and sync", seconds("sh", "-c", f"cp '{source}' '{other}' && sync '{other}'"))
        for name, form in FORMS.items():
            command = [sys.executable, "-c", CODE.format(form=form), str(source), str(other)]
            words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            took(name, float(words[0]))
            peak = max(peak, int(words[1]))
    size = os.path.getsize(source)
    for name, time_ in best.items():
        print(f"  {name:18} {size / time_ / 1e6:6.0f} MB/s, {best['cp'] / time_:.2f} of cp")
    print(f"  peak memory of a process: {peak >> 10} MiB")


def main(folder: Path) -> None:
    """Compare both files."""
    rng = np.random.default_rng(0)
    for name, shapes in SHAPES.items():
        source = folder / f"{name}.safetensors"
        fq.save(source, {f"{i}.weight": rng.standard_normal(shape, np.float32) for i, shape in enumerate(shapes)})
        print(f"1 GiB of float32, {name}:")
        compare(source, folder / "other")
        source.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
