"""The report of the benchmarks: tables, comparisons and plots of a small made run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "report.py"


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("benchmark_report", PATH)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def entry(group, contender, best, median, **info):
    return {
        "group": group,
        "stats": {"min": best, "median": median, "mean": 99.0},
        "extra_info": {"contender": contender, "isa": None, "operations": 0, "baseline": False, **info},
    }


FAST = {"operations": 2 * 10**9, "isa": "avx512vnni"}
SAMPLE = [
    entry("10x10x10", "int8 weights", 0.001, 0.0011, **FAST),
    entry("10x10x10", "int8 weights", 0.004, 0.005, **FAST | {"isa": "avx2"}),
    entry("10x10x10", "float32 np.matmul", 0.010, 0.012, operations=2 * 10**9, baseline=True),
    entry("peak", "product", 0.002, 0.002, peak=4e12, **FAST),
    entry("start", "import", 0.25, 0.5),
    {"group": None, "stats": {"min": 1, "median": 1}, "extra_info": {}},
]


@pytest.fixture
def write(tmp_path):
    def write(name, benchmarks=SAMPLE, **machine):
        facts = {"CPU": "A CPU", "instruction set": "avx512vnni", "threads": 2, **machine}
        path = tmp_path / name
        path.write_text(json.dumps({"machine_info": {"fastq": facts}, "benchmarks": benchmarks}))
        return str(path)

    return write


def changed(number, best, median):
    benchmarks = json.loads(json.dumps(SAMPLE))
    benchmarks[number]["stats"].update(min=best, median=median)
    return benchmarks


def test_table(report, write):
    assert report.table(report.load(write("run.json"))).splitlines() == [
        "A CPU; instruction set avx512vnni; threads 2",
        "",
        "| | | best, ms | median, ms | times faster than the first | 10^9 op/s |",
        "|---|---|--:|--:|--:|--:|",
        "| **10x10x10** | float32 np.matmul | 10.0 | 12.0 | 1 | 200 |",
        "|  | int8 weights, avx512vnni | 1.00 | 1.10 | 10.0 | 2000 |",
        "|  | int8 weights, avx2 | 4.00 | 5.00 | 2.50 | 500 |",
        "| **peak** | product, avx512vnni | 2.00 | 2.00 |  | 1000 (25% of the peak) |",
        "| **start** | import | 250 | 500 |  |  |",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1234"), (99.94, "99.9"), (10, "10.0"), (1, "1.00"), (0.1, "0.100"), (0.00123456, "0.00123")],
)
def test_three_digits(report, value, text):
    assert report._digits(value) == text


def test_blocks_of_one_contender_are_one_row(report, write):
    blocks = [entry("g", "c", best, median) for best, median in ((3.0, 4.0), (2.0, 9.0), (2.5, 5.0))]
    ((row,),) = report.load(write("run.json", blocks)).groups.values()
    assert (row.best, row.median) == (2.0, 5.0)


def test_compare_names_what_is_beyond_the_noise_of_both(report, write):
    old = report.load(write("old.json"))
    assert report.compare(old, old) == (["no change beyond the noise"], False)
    # The old best is 1 ms, its noise 0.1 ms.
    within = report.load(write("within.json", changed(0, 0.00125, 0.00145)))
    assert report.compare(old, within) == (["no change beyond the noise"], False)
    slower = report.load(write("slower.json", changed(0, 0.00125, 0.00135)))
    line = "10x10x10: int8 weights, avx512vnni: {} ms ({})"
    assert report.compare(old, slower) == (["slower: " + line.format("1.00 -> 1.25", "+25%")], True)
    assert report.compare(slower, old) == (["faster: " + line.format("1.25 -> 1.00", "-20%")], False)


def test_compare_names_what_came_and_went_and_another_machine(report, write):
    old, new = write("old.json", SAMPLE[:2]), write("new.json", SAMPLE[1:3], threads=4, numpy="3")
    assert report.compare(report.load(old), report.load(new)) == (
        [
            "gone: 10x10x10: int8 weights, avx512vnni",
            "new: 10x10x10: float32 np.matmul",
            "note: the two runs are not of the same CPU, instruction set and number of threads",
        ],
        False,
    )


def test_compare_exit_status(report, write, capsys):
    old, slower = write("old.json"), write("new.json", changed(0, 0.5, 0.5))
    assert report.main(["--compare", old, slower]) == 1
    assert capsys.readouterr().out.startswith("slower: 10x10x10")
    assert report.main(["--compare", slower, old]) == 0


def test_readme_keeps_what_is_around_the_markers(report, write, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{report.START}\nold\n{report.END}\n\nThe end ²\n", encoding="utf-8")
    assert report.main([write("run.json"), "--readme", str(readme)]) == 0
    summary = report.summary(report.load(write("run.json")))
    expected = f"# Title\n\n{report.START}\n{summary}\n{report.END}\n\nThe end ²\n"
    assert readme.read_text(encoding="utf-8") == expected
    report.main([write("run.json"), "--readme", str(readme)])
    assert readme.read_text(encoding="utf-8") == expected


def test_summary_has_the_best_instruction_set_in_columns(report, write):
    lines = report.summary(report.load(write("run.json"))).splitlines()
    assert lines[-3:] == [
        "| ms (times faster than float32) | float32 np.matmul | int8 weights |",
        "|---|--:|--:|",
        "| 10x10x10 | 10.0 | 1.00 (10.0) |",
    ]


@pytest.mark.parametrize("text", ["", "{start}", "{end}", "{end} {start}"])
def test_readme_without_markers_is_an_error(report, text):
    with pytest.raises(ValueError, match="must have the lines <!-- benchmark table --> and <!-- end -->"):
        report.replace(text.format(start=report.START, end=report.END), "table")


def test_plot(report, write, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file = tmp_path / "plot.png"
    assert report.main([write("run.json"), "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="nothing to plot"):
        report.plot(report.load(write("bare.json", SAMPLE[3:])), file)


def test_the_command_wants_one_run_or_two_to_compare(report, capsys):
    for arguments in ([], ["run.json", "--compare", "a.json", "b.json"]):
        with pytest.raises(SystemExit):
            report.main(arguments)
        assert "either one JSON file or --compare OLD NEW" in capsys.readouterr().err
