"""The page of the command line: its options are those of the commands, and what it prints is what they print."""

from __future__ import annotations

import re
import shlex
from importlib import import_module

import numpy as np
import pytest

import fastq as fq
from fastq.cli.main import COMMANDS, _Parser, main

from .keys import PAGE, keys, section, undocumented


def test_every_command_has_a_section_and_a_row():
    assert re.findall(r"^\| `fastq (\w+)", PAGE, re.MULTILINE) == list(COMMANDS)
    assert re.findall(r"^## (\w+)$", PAGE, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_told(command):
    parser = _Parser(add_help=False)
    import_module(f"fastq.cli.{command}").arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings} - {"--html"}  # of several
    assert {option for option in options if option not in section(command)} == set()
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", section(command)))
    assert told - options <= {"--json"}


def test_what_it_shows_is_what_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    up = np.random.default_rng(0).standard_normal((128, 256), dtype=np.float32)
    fq.save("model.safetensors", {"up.weight": up, "up.bias": np.zeros(128)})
    blocks = re.findall(r"^```text\n\$ fastq (.*?)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert [line.split()[0] for line, _ in blocks] == ["inspect", "quantize", "diff"]
    for line, shown in blocks:
        assert main(shlex.split(line)) == 0
        assert capsys.readouterr().out == shown, line


def test_a_key_that_is_not_told_is_found():
    assert keys({"a": [{"b": 1}], "operations_per_second": {"avx2": {"one": 2}}}) == {
        "a", "b", "operations_per_second", "one"
    }  # fmt: skip
    assert undocumented("roofline", {"cpu": "", "price": 1}) == {"price"}
