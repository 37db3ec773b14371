"""A short run of each attack, and that each of them finds what is wrong. ``python tests/attack.py`` makes long ones."""

from __future__ import annotations

import pytest

from . import attack
from .attacks.mistakes import MISTAKES

# Some cases of the first family of seeds, whose kernels other tests take too.
SHORT = {
    "programs": range(24),
    "guard": range(16),
    "history": range(5),
    "blocks": range(10),
    "damage": range(24),
    "storms": range(8),
    "odd": range(1),
}

# Mistakes that take longer than a second, or show at some moments only; one of each attack is not among them.
SLOW = (
    "a set rounds otherwise",
    "memory is let go",
    "kernels are not checked",
    "workspace is shared",
    "interrupts leave workers",
)


def possible(name):
    """The instruction sets to run an attack on, if it can run on this system."""
    return attack.isas_of(name) or pytest.skip(f"{name} needs another system")


def test_every_attack_has_a_short_run():
    assert tuple(SHORT) == attack.ATTACKS


@pytest.mark.parametrize("name", SHORT)
def test_a_short_run_finds_nothing(name):
    isas = possible(name)
    done = attack.attack(name, isas, SHORT[name], seconds=600)
    assert "\n".join(map(str, done.found)) == ""
    assert done.count == len(SHORT[name]) * len(isas)


@pytest.mark.parametrize(
    "mistake", [pytest.param(name, marks=pytest.mark.exhaustive if name in SLOW else []) for name in MISTAKES]
)
def test_a_mistake_is_found(mistake):
    name, seeds, finding, _ = MISTAKES[mistake]
    isas, compared = possible(name)[:1], finding == "instruction sets differ"
    done = attack.attack(name, ("portable", "reference") if compared else isas, seeds, 600, mistake)
    assert any(finding in found.what for found in done.found)
    assert done.count == len(seeds) * (1 + compared)  # also behind those that end the process


def test_a_finding_tells_how_to_see_it_again():
    found = attack.Found("programs", 12, "avx2", "error 0.25 beyond the bound 1e-3 at (0, 1)")
    assert str(found).endswith(": python tests/attack.py programs --case 12 --isa avx2")
    assert found.kind == "error # beyond the bound # at (# #)"


def test_results_of_instruction_sets_are_compared():
    runs = [attack.Run(2, [], {1: "a", 2: "b"}), attack.Run(2, [], {1: "a", 2: "c", 3: "d"})]
    assert [found.case for found in attack.differences("programs", runs)] == [2]
