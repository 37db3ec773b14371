"""A folder of results, and two of them compared."""

from __future__ import annotations

import pytest

from fastq.bench import compare, folder
from tests.bench.made import numpy, ours, result


def test_names_and_files(tmp_path):
    path = folder.save(result(), tmp_path / "new" / "folder")
    assert path.name == "a-cpu-r_avx2_2026-01-02t03-04-05.json"
    again = folder.save(result(), path.parent)
    assert again.name == "a-cpu-r_avx2_2026-01-02t03-04-05_2.json"
    assert folder.load(path) == folder.load(again) == result()
    assert folder.load_all(path.parent) == [result()] * 2
    assert len(list(path.parent.iterdir())) == 2


def test_a_file_that_is_no_result(tmp_path):
    for text in ("{}", "nothing", '{"schema": "fastq-bench/1"}', '{"schema": "fastq-bench/1", "rows": 3}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match=r"other\.json: "):
            folder.load_all(tmp_path)


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no room")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no room"):
        folder.save(result(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_ratios_of_two_machines():
    """Ten times as slow, and the ratio half: of which only the ratio is told."""
    one = compare.ratios_of(result())
    other = compare.ratios_of(result(numpy(best=0.1), ours(best=0.04, drift=0.03)))
    assert compare.by_ratio(one, other) == [
        "8x16x32: int8 weights: 5.00 -> 2.50? times faster than NumPy (0.500 of it)"
    ]
    assert compare.by_ratio(one, {}) == ["gone: 8x16x32, int8 weights"]


def test_times_of_one_machine():
    one, other = compare.times_of(result()), compare.times_of(result(numpy(), ours(best=0.003)))
    line = "8x16x32: int8 weights: 2.00 -> 3.00 ms (+50%)"
    assert compare.by_time(one, other) == ([f"slower: {line}"], True)
    assert compare.by_time(one, one) == ([], False)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1234"), (99.94, "99.9"), (10, "10.0"), (1, "1.00"), (0.1, "0.100"), (0.00123456, "0.00123"), (0, "0")],
)
def test_three_digits(value, text):
    assert compare.digits(value) == text
