"""What a user's function is, in a few letters: the same in every process, and others for every other function.

A kernel that holds a user's function can be kept on disk only if its name tells all that was compiled: the function's
code, its constants, what its closure and the globals that it names hold, and the same of the functions that it calls.
Where something of that cannot be told for certain (an array, an object, a function of another library, whose address
would be in the machine code), there is no fingerprint.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, ModuleType
from typing import Any

import numpy as np

# Functions of these are known to Numba by name.
MODULES = ("builtins", "math", "cmath", "operator", "numpy")


class _UnknownError(Exception):
    """Something whose value in another process cannot be told."""


def fingerprint(function: Any) -> str | None:
    """A hash of a function compiled by ``numba.njit``; None if there is something in it that cannot be told."""
    import hashlib

    try:
        facts = sys.version, _facts(function, [])
    except _UnknownError:
        return None
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _facts(value: Any, seen: list[Any]) -> Any:
    """A value as nested tuples of text and numbers; `seen` are the functions around it."""
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
    """What Numba knows by its name."""
    if isinstance(value, ModuleType):
        if value.__name__ in MODULES:
            return "module", value.__name__
    elif isinstance(value, type | BuiltinFunctionType | np.ufunc):
        module, name = getattr(value, "__module__", None) or "numpy", value.__name__
        if module in MODULES and getattr(sys.modules.get(module), name, None) is value:
            return "name", module, name
    raise _UnknownError


def _function(function: Any, seen: list[Any]) -> Any:
    """A compiled function and all that it refers to."""
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
