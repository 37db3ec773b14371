"""The commands and their arguments. A command imports its modules when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from typing import NoReturn

from fastq import __version__
from fastq.cli.bench import arguments as bench_arguments
from fastq.config import show_config
from fastq.engine.plan import this_machine
from fastq.errors import IsaError
from fastq.kernels.epilogue.outputs import ACTIVATIONS
from fastq.scheme import GROUP, TWO_PLANE


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; `argv` are its arguments without the name of the program, by default those of the process.

    The result is the exit code: 0, or 1 if the command cannot run here. Wrong arguments end the process with code 2.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    if arguments.command == "demo" and importlib.util.find_spec("sklearn") is None:
        return _fail('the demo needs scikit-learn: pip install ".[demo]" in a clone of fastq brings it')
    try:
        this_machine()
    except (IsaError, ValueError) as error:  # a wrong setting in the environment
        return _fail(str(error))
    if arguments.command == "warmup":
        from fastq.cli import warmup

        try:
            more = arguments.epilogue, arguments.activations, arguments.float16, arguments.search
            warmup.run(arguments.bits or warmup.BITS, arguments.all, *more)
        except warmup.NotKeptError as error:
            return _fail(str(error))
    elif arguments.command == "bench":
        from fastq.cli import bench

        return bench.run(arguments)
    elif arguments.command == "roofline":
        from fastq.cli import roofline

        roofline.run()
    else:
        show_config()
    if arguments.command == "demo":
        from fastq.cli import demo

        demo.run(arguments.quick)
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help tells what there is\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m fastq", description="Quantized matrix multiplication for NumPy.")
    parser.add_argument("--version", action="version", version=f"fastq {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("config", help="show the CPU, instruction set, threads, kernel cache and versions")
    warmup = commands.add_parser(
        "warmup", help="compile kernels now and keep them, so that first uses are quick; takes 1 to 2 minutes"
    )
    which = warmup.add_mutually_exclusive_group()
    widths = "widths of right operands, all by default: those of weights, and 8 for floats that matmul quantizes"
    which.add_argument("--bits", type=int, nargs="+", choices=range(2, 9), help=widths)
    which.add_argument("--all", action="store_true", help="all widths, on every instruction set that this CPU has")
    warmup.add_argument(
        "--epilogue", nargs="+", choices=ACTIVATIONS, default=(), help="activation functions besides none"
    )
    finer = "ways of quantizing floats on the fly besides by row"
    warmup.add_argument("--activations", nargs="+", choices=(GROUP, TWO_PLANE), default=(), help=finer)
    warmup.add_argument("--float16", action="store_true", help="products in float16, too")
    warmup.add_argument("--search", action="store_true", help="top_k, too")
    commands.add_parser("roofline", help="measure how fast this machine can multiply and read memory")
    bench = commands.add_parser("bench", help="time products: float32 NumPy, fastq, and other libraries")
    bench_arguments(bench)
    bench.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    demo = commands.add_parser("demo", help="compare a small network and large products with NumPy's float32")
    demo.add_argument("--quick", action="store_true", help="small products, measured once")
    return parser


def _fail(message: str) -> int:
    print(f"fastq: {message}", file=sys.stderr)
    return 1
