"""Attacks on fastq, for as long as you like: what must never happen is looked for in random cases.

    python tests/attack.py --minutes 30              # all of them share the time
    python tests/attack.py programs --minutes 5      # some of them, by name
    python tests/attack.py programs --case 123       # one case, on every instruction set
    python tests/attack.py guard --case 123 --isa avx2

Cases run in processes of their own, one for each instruction set where that matters: one that dies or hangs has found
something, and the next one goes on behind it. It ends with each kind of finding, and how to see that again.

With FASTQ_TEST_EMULATED=x86 in the environment, instructions of AMX and AVX512-VNNI are emulated
(kernels/emulated.py), with FASTQ_TEST_EMULATED=neon those of NEON.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import re
import subprocess
import sys
import time
import traceback
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent

# By name: a module of tests/attacks, which has
#     instruction_sets(have)    those of the CPU's to run cases on; None: one will do; nothing: not on this system
#     case(seed)                runs one; what it raises, a Finding or anything else, is a finding. Bytes that it
#                               returns are the same on every instruction set.
# and may have
#     prepare()                 done first in each process that runs its cases
ATTACKS = ("programs", "guard", "history", "blocks", "damage", "storms", "odd")

HANGS = 300  # seconds that no case takes, even if it has to compile its kernels


def module_of(name: str) -> Any:
    """A module of tests/."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"tests.{name}")


def attack_of(name: str) -> Any:
    """A module of tests/attacks."""
    return module_of(f"attacks.{name}")


# In the process that runs cases


def run_here(name: str, seeds: range, seconds: float, mistake: str | None) -> None:
    """Run cases until the time is up, and write a line when one begins, and when it has ended."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "calibration must show", UserWarning)
    # Later Pythons warn when a process with threads forks.
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)
    end = time.monotonic() + seconds
    attack = attack_of(name)
    getattr(attack, "prepare", lambda: None)()
    if mistake is not None:
        attack_of("mistakes").MISTAKES[mistake].make()
    for seed in seeds:
        if time.monotonic() > end:
            break
        print("begin", seed, flush=True)
        faulthandler.dump_traceback_later(HANGS, exit=True)
        result, what = None, ""
        try:
            result = attack.case(seed)
        except attack_of("finding").Finding as error:
            what = str(error)
        except Exception as error:
            places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-3:]]
            what = f"{type(error).__name__} at {' '.join(places)}: {error}"
        faulthandler.cancel_dump_traceback_later()
        print("end", json.dumps([seed, what, None if result is None else sha256(result).hexdigest()[:16]]), flush=True)
    os._exit(0)  # an attack may leave the process in a state in which it would not end well


# In the process that starts others


class Found(NamedTuple):
    """What a case has found."""

    attack: str
    case: int
    isa: str | None  # None: on whichever, or by comparing them
    what: str

    @property
    def kind(self) -> str:
        """What it has in common with others of its kind: the first words, without the numbers."""
        return re.sub(r"\d[\d.,]*(e[-+]?\d+)?|\b(nan|inf)\b", "#", self.what)[:60]

    def __str__(self) -> str:
        isa = "" if self.isa is None else f" --isa {self.isa}"
        return f"{self.what}: python tests/attack.py {self.attack} --case {self.case}{isa}"


class Run(NamedTuple):
    """What cases of an attack gave on an instruction set."""

    count: int
    found: list[Found]
    digests: dict[int, str]  # of results, by case


def run(name: str, isa: str | None, seeds: range, seconds: float = 600, mistake: str | None = None) -> Run:
    """Run cases in a process, and in another one behind each case that ends it."""
    count, found, digests = 0, [], {}
    end = time.monotonic() + seconds
    while seeds and (left := end - time.monotonic()) > 0:
        out, died = _child(name, isa, seeds, left, mistake)
        ended = [json.loads(line[4:]) for line in out if line.startswith("end ")]
        count += len(ended)
        found += [Found(name, seed, isa, what) for seed, what, _ in ended if what]
        digests |= {seed: digest for seed, what, digest in ended if digest is not None}
        if not died:
            break
        begun = [int(line[6:]) for line in out if line.startswith("begin ")]
        if not begun or len(begun) == len(ended):
            raise RuntimeError(f"{name} does not run: {died}")
        count += 1
        found.append(Found(name, begun[-1], isa, died))
        seeds = range(begun[-1] + 1, seeds.stop)
    return Run(count, found, digests)


def _child(name: str, isa: str | None, seeds: range, seconds: float, mistake: str | None) -> tuple[list[str], str]:
    """What a process wrote, and how it ended, unless it ended well."""
    options = ["--child", "--start", str(seeds.start), "--stop", str(seeds.stop), "--seconds", str(seconds)]
    options += [] if mistake is None else ["--mistake", mistake]
    environment = {**os.environ, **({} if isa is None else {"FASTQ_ISA": isa})}
    command = [sys.executable, "-X", "faulthandler", __file__, name, *options]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, errors="replace")
    out = process.stdout.splitlines()
    if process.returncode == 0:
        return out, ""
    told = process.stderr.splitlines()
    hung = any(line.startswith("Timeout") for line in told)
    ours = [line.strip() for line in told if "fastq" in line and line.lstrip().startswith("File")][:2]
    last = ours or told[-2:]
    how = f"hangs for {HANGS} s" if hung else f"ends the process with {process.returncode}"
    return out, f"{how}: {'; '.join(last)}"


def isas_of(name: str) -> tuple[str | None, ...]:
    """The instruction sets to run an attack on; none where it is not possible."""
    from fastq.kernels.table import ISAS
    from fastq.machine import cpu

    sets: tuple[str | None, ...] = attack_of(name).instruction_sets(cpu.available(ISAS))
    return sets


def differences(name: str, runs: list[Run]) -> list[Found]:
    """Cases whose results are not the same on two instruction sets."""
    first, *others = (r.digests for r in runs)
    cases = sorted({case for other in others for case in first.keys() & other if first[case] != other[case]})
    return [Found(name, case, None, "instruction sets differ") for case in cases]


def attack(name: str, isas: tuple[str | None, ...], seeds: range, seconds: float, mistake: str | None = None) -> Run:
    """Run cases on some instruction sets, and compare."""
    runs = [run(name, isa, seeds, seconds / len(isas), mistake) for isa in isas]
    found = [one for r in runs for one in r.found] + differences(name, runs)
    return Run(sum(r.count for r in runs), found, runs[0].digests)


def report(found: list[Found]) -> None:
    """A line for each kind of finding."""
    kinds: dict[tuple[str, str], list[Found]] = {}
    for one in found:
        kinds.setdefault((one.attack, one.kind), []).append(one)
    for (name, _), same in kinds.items():
        print(f"{name}, {len(same)} times: {same[0]}")


def main() -> int:
    """Attack as the command line says."""
    parser = argparse.ArgumentParser(description="Look for what must never happen.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of an attack: {', '.join(ATTACKS)}; all by default")
    parser.add_argument("--minutes", type=float, default=1, help="the time that they share")
    parser.add_argument("--start", type=int, help="the first case; by default one that the time of day gives")
    parser.add_argument("--case", type=int, help="run this case alone")
    parser.add_argument("--isa", help="on this instruction set alone")
    for hidden, kind in (("--stop", int), ("--seconds", float), ("--mistake", str)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.names) - set(ATTACKS):
        parser.error(f"names must be of {', '.join(ATTACKS)}; got {', '.join(sorted(unknown))}")
    if emulated := os.environ.get("FASTQ_TEST_EMULATED"):
        module_of({"x86": "kernels.emulated", "neon": "kernels.emulated_neon"}[emulated])
    if given.child:
        run_here(given.names[0], range(given.start, given.stop), given.seconds, given.mistake)
    start = int(time.time()) % 10**7 * 100 if given.start is None else given.start
    seeds = range(start, 10**12) if given.case is None else range(given.case, given.case + 1)
    names = given.names or [name for name in ATTACKS if isas_of(name)]
    found = []
    for name in names:
        isas = (given.isa,) if given.isa else isas_of(name)
        if not isas:
            print(f"{name}: not possible on this system")
            continue
        done = attack(name, isas, seeds, 60 * given.minutes / len(names))
        found += done.found
        print(f"{name}: {done.count} cases from {seeds.start}, {len(done.found)} findings", flush=True)
    report(found)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
