"""Imports go down only, rooms of one floor do not know each other, and files stay readable."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "fastq"

# From the ground up, a row per folder (and one for the loose files between two of them). A module may import its own
# room and what is below it.
FLOORS = [
    {"errors", "numpys", "scheme", "version"},
    {"progress", "promotion"},
    {"validation"},
    {"machine"},
    {"layout"},
    {"kernels"},
    {"engine"},
    {"quant"},
    {"products", "storage"},
    {"qarray"},
    {"accuracy", "api", "config"},
    {"calibration"},
    {"__init__"},
    {"cli", "interop"},
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
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_the_walk_sees_imports():
    """The test above would pass on an empty set."""
    assert "kernels.table" in imports(PACKAGE / "engine" / "plan.py")
    assert "machine.pool_kernels" in imports(PACKAGE / "machine" / "pool.py")  # inside a function
