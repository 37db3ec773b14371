"""Fingerprints of users' functions: hashes that are equal in every process, and differ between functions.

A kernel with a user's function in it is kept on disk under a name that holds the fingerprint of the function. So the
fingerprint must cover everything that is compiled: the code of the function, its constants, the values of its closure
and of the globals that it names, and all of this for the functions that it calls. A function has no fingerprint if one
of these values may differ in another process: an array, an object, or a function of another library, whose address
would be in the machine code.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, ModuleType
from typing import Any

import numpy as np

# Modules whose functions Numba knows by name.
MODULES = ("builtins", "math", "cmath", "operator", "numpy")


class _UnknownError(Exception):
    """A value that may differ in another process."""


def fingerprint(function: Any) -> str | None:
    """The fingerprint of a function compiled by ``numba.njit``, or None if it has none."""
    import hashlib

    try:
        facts = sys.version, _facts(function, [])
    except _UnknownError:
        return None
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _facts(value: Any, seen: list[Any]) -> Any:
    """A value as nested tuples of text and numbers; `seen` holds the functions that enclose it."""
    if value is None or isinstance(value, bool | int | str | bytes):
        return value
    if isinstance(value, float):
        return "float", value.hex()
    if isinstance(value, complex):
        return "complex", value.real.hex(), value.imag.hex()
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return value.dtype.str, value.tobytes()
    if isinstance(value, tuple | list):
        return type(value).__name__, *(_facts(v, seen) for v in value)
    if isinstance(value, dict):
        return "dict", *sorted(repr((_facts(k, seen), _facts(v, seen))) for k, v in value.items())
    if isinstance(value, set | frozenset):
        return "set", *sorted(repr(_facts(v, seen)) for v in value)
    if isinstance(value, CodeType):
        inner = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        table = getattr(value, "co_exceptiontable", b"")
        return "code", value.co_code, value.co_argcount, value.co_flags, table, inner, _facts(value.co_consts, seen)
    if hasattr(value, "py_func") and hasattr(value, "targetoptions"):
        return _function(value, seen)
    return _named(value)


def _named(value: Any) -> Any:
    """A module, type, builtin or ufunc that Numba knows by its name."""
    if isinstance(value, ModuleType):
        if value.__name__ in MODULES:
            return "module", value.__name__
    elif isinstance(value, type | BuiltinFunctionType | np.ufunc):
        module, name = getattr(value, "__module__", None) or "numpy", value.__name__
        if module in MODULES and getattr(sys.modules.get(module), name, None) is value:
            return "name", module, name
    raise _UnknownError


def _function(function: Any, seen: list[Any]) -> Any:
    """A compiled function and everything that it refers to."""
    if function in seen:  # it calls itself
        return "outer", seen.index(function)
    seen = [*seen, function]
    python = function.py_func
    cells = [cell.cell_contents for cell in python.__closure__ or ()]
    names = sorted({name for code in _codes(python.__code__) for name in code.co_names})
    known = {name: python.__globals__[name] for name in names if name in python.__globals__}
    shadowed = [name for name in names if name not in known and not hasattr(builtins, name)]  # attributes, say
    parts = python.__code__, python.__defaults__, python.__kwdefaults__, cells, known, shadowed, function.targetoptions
    return "function", *(_facts(part, seen) for part in parts)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
