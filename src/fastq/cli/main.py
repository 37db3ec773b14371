"""Arguments of the command line; what a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from fastq.errors import IsaError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        The exit code: 0, or 1 if the command cannot run here.
    """
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "config":
            return _config()
        return _demo(arguments.quick)
    except IsaError as error:
        return _fail(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastq", description="Quantized matrix multiplication for NumPy.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("config", help="show the CPU, instruction set, threads, kernel cache and versions")
    demo = commands.add_parser("demo", help="run a small network and two large products, and compare with NumPy float32")
    demo.add_argument("--quick", action="store_true", help="take small matrices for the products")
    return parser


def _config() -> int:
    from fastq.config import show_config

    show_config()
    return 0


def _demo(quick: bool) -> int:
    if importlib.util.find_spec("sklearn") is None:
        return _fail('the demo needs scikit-learn: pip install "fastq[demo]"')
    from fastq.cli import demo

    demo.run(quick)
    return 0


def _fail(message: str) -> int:
    print(f"fastq: {message}", file=sys.stderr)
    return 1
