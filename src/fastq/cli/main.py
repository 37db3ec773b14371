"""The commands: which there are, how a run of one ends, and what its exit code is.

A command is a module of this room with two functions: ``arguments(parser)`` adds its arguments, and ``run(arguments)``
does the work. Only the module of the command that was asked for is imported. So ``fastq --help`` answers before NumPy
would be there.

To add one, write the module, and give it a line in :data:`COMMANDS`.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from fastq.cli.output import WrongArgumentsError, note
from fastq.version import __version__

COMMANDS = {
    "info": "tell what this machine has: CPU, instruction sets, threads, kernel cache, versions, load",
    "inspect": "show the arrays of a file, their sizes, and what quantizing them would cost and gain",
    "quantize": "quantize the weights in a file, from file to file",
    "diff": "compare the arrays of two files, and tell where the error comes from",
    "bench": "time products: float32 NumPy, fastq, and other libraries",
    "demo": "compare large products and a small network with NumPy's float32",
    "roofline": "measure how fast this machine can multiply and read memory",
    "warmup": "compile kernels now and keep them, so that first uses are quick",
}
FINE, FAILED, WRONG, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141  # the last two as shells have them: 128 + the signal
EPILOG = "Each command has --help, and --json for programs. docs/guide/commands.md has more."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; `argv` are its arguments without the name of the program, by default those of the process.

    The result is the exit code. Wrong arguments that the parser finds end the process with code 2.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        _replace_what_cannot_be_written()
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has enough, as ``| head`` does
        _discard_output()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        note("fastq: interrupted")
        return INTERRUPTED
    return code


def _run(argv: list[str]) -> int:
    named = next((word for word in argv if not word.startswith("-")), None)
    parser = _parser(named)
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return FINE
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code: int | None = import_module(f"fastq.cli.{arguments.command}").run(arguments)
        return code or FINE
    except BrokenPipeError:
        raise
    except WrongArgumentsError as error:
        return _fail(f"error: {error}; see fastq {arguments.command} --help", WRONG)
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError, ImportError) as error:
        # What files, settings and machines do not allow. What is left is a fault of fastq, which its traceback shows.
        return _fail(str(error) or type(error).__name__, FAILED)


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, f"fastq: error: {message}; see {self.prog} --help\n")


class _Paragraphs(argparse.HelpFormatter):
    """Help in which the paragraphs of a description stay apart."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))


def _parser(named: str | None) -> _Parser:
    """The parser, with the arguments of the command that is named, and the names of the others."""
    about = "Quantized matrix multiplication for NumPy."
    parser = _Parser(prog="fastq", description=about, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fastq {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, line in COMMANDS.items():
        command = commands.add_parser(name, help=line, allow_abbrev=False)
        if name == named:
            module = import_module(f"fastq.cli.{name}")
            command.description, command.formatter_class = module.__doc__, _Paragraphs
            module.arguments(command)
            command.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    return parser


def _fail(message: str, code: int) -> int:
    note(f"fastq: {' '.join(message.split())}")
    return code


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning is for who gave the command, whom the line of code does not concern."""
    note(f"fastq: warning: {' '.join(str(message).split())}")


def _replace_what_cannot_be_written() -> None:
    """A terminal that lacks a letter shows its number instead."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """What is left in the buffer, which Python would try to write once more at the end, and tell of the error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
