"""Imports go down only, rooms of one floor do not know each other, and files stay readable."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "fastq"

# From the ground up, a row per folder (and one for the loose files between two of them). A module may import its own
# room and what is below it.
FLOORS = [
    {"errors", "lock", "numpys", "scheme", "typed", "version"},
    {"pictures", "progress", "promotion"},
    {"validation"},
    {"machine"},
    {"layout"},
    {"kernels"},
    {"engine"},
    {"quant"},
    {"products", "storage"},
    {"qarray"},
    {"accuracy", "api", "config", "search"},
    {"calibration"},
    {"formats"},
    {"models"},
    {"__init__"},
    {"bench", "interop"},
    {"cli"},
    {"__main__"},
]
LONGEST = 400


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def floor_of(module: str) -> int:
    module = module.removesuffix(".__init__")
    for number, rooms in enumerate(FLOORS):
        if any(module == room or module.startswith(room + ".") for room in rooms):
            return number
    raise AssertionError(f"{module} is on no floor: give it a place in FLOORS")


def room_of(module: str) -> str:
    return module.split(".")[0]


def imports(path: Path) -> set[str]:
    """The fastq modules that a file imports, wherever in it."""
    return imports_in(ast.walk(ast.parse(path.read_text())))


def imports_in(nodes: Iterable[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                deeper = PACKAGE.parent / node.module.replace(".", "/") / f"{alias.name}.py"
                found.add(f"{node.module}.{alias.name}" if deeper.exists() else node.module)
    return {m.removeprefix("fastq.") if m != "fastq" else "__init__" for m in found if m.split(".")[0] == "fastq"}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path):
    module = name_of(path)
    for other in imports(path):
        same_room = room_of(other) == room_of(module) and floor_of(other) <= floor_of(module)
        assert same_room or floor_of(other) < floor_of(module), f"{module} imports {other}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_stay_readable(path):
    assert path.read_text().count("\n") <= LONGEST


def at_import(path: Path) -> set[str]:
    """The fastq modules that are imported as soon as a file is: not those for types, and not inside functions."""
    body = ast.parse(path.read_text()).body
    return imports_in(node for node in body if not isinstance(node, ast.If | ast.FunctionDef))


def in_circles(needs: dict[str, set[str]]) -> set[str]:
    """Take away what needs nothing that is left, until nothing changes: what stays is in a circle, or needs one."""
    left = dict(needs)
    while free := [name for name in left if not left[name] & (left.keys() - {name})]:
        for name in free:
            del left[name]
    return set(left)


def test_no_files_import_each_other_in_a_circle():
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {"a", "b", "c"}
    assert not in_circles({name_of(path).removesuffix(".__init__"): at_import(path) for path in FILES})


def test_each_room_is_there():
    for room in set().union(*FLOORS):
        assert (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").exists(), room


def test_only_the_command_imports_the_benchmark():
    """No product pays for it, not even at the import."""
    users = {name_of(path) for path in FILES if "bench" in {room_of(other) for other in imports(path)}}
    assert {name for name in users if room_of(name) != "bench"} == {"cli.bench"}


def test_the_walk_sees_imports():
    """The test above would pass on an empty set."""
    assert "kernels.table" in imports(PACKAGE / "engine" / "plan.py")
    assert "machine.pool_kernels" in imports(PACKAGE / "machine" / "pool.py")  # inside a function
