"""Compile kernels for ordinary use now, on all cores, and keep them in the kernel cache, from which later processes
load them: for images and fleets. All widths take one to three minutes on two cores.
"""

from __future__ import annotations

import argparse
import time

from fastq.cli import output, shared
from fastq.cli.output import WrongArgumentsError
from fastq.scheme import GROUP, MAX_BITS, MIN_BITS, TWO_PLANE

BITS = list(range(MIN_BITS, MAX_BITS + 1))


class NotKeptError(RuntimeError):
    """The cache did not keep a kernel."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    which = parser.add_mutually_exclusive_group()
    widths = "widths of right operands, all by default: those of weights, and 8 for floats that matmul quantizes"
    which.add_argument("--bits", type=shared.bits, nargs="+", default=BITS, metavar="BITS", help=widths)
    which.add_argument("--all", action="store_true", help="all widths, on every instruction set that this CPU has")
    functions = "activation functions besides none, such as relu"
    parser.add_argument("--epilogue", nargs="+", default=(), metavar="NAME", help=functions)
    finer = "ways of quantizing floats on the fly besides by row"
    parser.add_argument("--activations", nargs="+", choices=(GROUP, TWO_PLANE), default=(), help=finer)
    parser.add_argument("--float16", action="store_true", help="products in float16, too")
    parser.add_argument("--search", action="store_true", help="top_k, too")


def run(given: argparse.Namespace) -> None:
    """Compile the kernels, and tell of each. Raises NotKeptError if the cache does not keep one.

    With AVX2 on two cores, all widths took 159 s (276 kernels, 310 s of CPU time), and two widths (8 and 3) 45 s. On
    one core 160 kernels took 226 s when Numba compiled each function by itself.
    """
    from fastq.cli.compiling import CACHED, NOT_KEPT, compiled, wanted_kernels
    from fastq.engine.plan import this_machine
    from fastq.kernels.epilogue.outputs import ACTIVATIONS
    from fastq.kernels.table import ISAS
    from fastq.machine import cpu, jit

    if unknown := set(given.epilogue) - set(ACTIVATIONS):
        raise WrongArgumentsError(f"--epilogue must be of {', '.join(ACTIVATIONS)}; got {min(unknown)}")
    machine, start = this_machine(), time.perf_counter()
    isas, bits = (cpu.available(ISAS), BITS) if given.all else ((machine.isa,), given.bits)
    which = list(isas), list(bits), list(given.epilogue), list(given.activations), given.float16, given.search
    wanted, results = wanted_kernels(*which), dict[str, float | None]()  # seconds; None: it was there
    width, tell = max(map(len, wanted), default=0), output.note if given.json else _print
    for name, result in compiled(wanted, which):
        if result == NOT_KEPT:
            raise NotKeptError(
                "warmup needs a kernel cache: a folder that belongs to this user, that nobody else may write to, and "
                f"that has room; {name} could not be kept in {jit.cache_folder()}; set FASTQ_CACHE_DIR to such a folder"
            )
        results[name] = None if result == CACHED else float(result.split()[0])
        tell(f"{name:<{width}}  {result}")
    cached, seconds = sum(result is None for result in results.values()), time.perf_counter() - start
    if given.json:
        output.document(
            {
                "instruction_sets": list(isas),
                "kernels": [{"name": name, "seconds": took} for name, took in results.items()],
                "compiled": len(results) - cached,
                "cached": cached,
                "seconds": round(seconds, 3),
                "cache": jit.cache_folder(),
            }
        )
        return
    print(
        f"{len(wanted)} kernels for {', '.join(isas)}: {len(results) - cached} compiled in {seconds:.1f} s, "
        f"{cached} cached\n{'kernel cache:':<17} {jit.cache_folder()}"
    )


def _print(line: str) -> None:
    print(line, flush=True)
