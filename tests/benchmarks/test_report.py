"""The report of the benchmarks: tables, comparisons and the picture of a small made run."""

from __future__ import annotations

import json

import pytest

from fastq.bench.compare import digits
from tests.benchmarks.made import ROWS, data


@pytest.fixture
def write(tmp_path):
    def write(name, *args, **facts):
        path = tmp_path / name
        path.write_text(json.dumps(data(*args, **facts)))
        return str(path)

    return write


def changed(number, best, median):
    return [{**row, "best": best, "median": median} if i == number else row for i, row in enumerate(ROWS)]


def test_table(report, write):
    note = "x takes no part: 3 sums are wrong"
    assert report.table(report.load(write("run.json", notes=[note], torch="not installed"))).splitlines() == [
        "A CPU; instruction set avx512vnni; threads 2; torch not installed",
        f"* {note}",
        "",
        "| | | best, ms | median, ms | times faster than the first | 10^9 op/s | of the nearer roof | packing, ms |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
        "| **10x10x10** | float32 np.matmul | 10.0 | 12.0 | 1 | 200 |  |  |",
        "|  | int8 weights, avx512vnni | 1.00 | 1.10 | 10.0 | 2000 | 50% compute | 3.00 |",
        "|  | int8 weights, avx2 | 4.00 | 5.00 | 2.50 | 500 | 50% compute |  |",
        "|  | slow | 3.00 | 3.00 | 3.33 | 667 | 17% compute |  |",
        "|  | quick | 2.00 | 3.00 | 5.00? | 1000 | 25% compute |  |",
        "|  | other | 0.100 | 0.100 | 100 | 20000 | 500% compute |  |",
        "| **start** | import | 250 | 500 |  |  |  |  |",
    ]


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


def test_a_run_that_drifts_has_more_noise(report, write):
    old = report.load(write("old.json", [{**ROWS[0], "drift": 0.0003}]))
    slower = report.load(write("slower.json", [{**ROWS[0], "best": 0.00125, "median": 0.00130}]))
    assert report.compare(old, slower) == (["no change beyond the noise"], False)


def test_compare_names_what_came_and_went(report, write):
    old, new = write("old.json", ROWS[:2]), write("new.json", ROWS[1:3], numpy="3")
    assert report.compare(report.load(old), report.load(new)) == (
        [
            "gone: 10x10x10, int8 weights, avx512vnni",
            "new: 10x10x10, float32 np.matmul",
        ],
        False,
    )


def test_compare_two_machines_by_ratio(report, write):
    """Seconds are ten times as long there, and NumPy's, too."""
    slow = [{**row, "best": 10 * row["best"], "median": 10 * row["median"]} for row in ROWS]
    slow[0] |= {"best": 0.02, "median": 0.021}
    old, new = report.load(write("old.json")), report.load(write("new.json", slow, CPU="Another"))
    lines, slower = report.compare(old, new)
    assert lines[:2] == [
        report.OTHER,
        "10x10x10: int8 weights: 10.0 -> 5.00 times faster than NumPy (0.500 of it)",
    ]
    assert "10x10x10: quick: 5.00? -> 5.00? times faster than NumPy (1.00 of it)" in lines
    assert not slower


def test_a_busy_run_says_so_on_top(report, write):
    rows = [{**row, "busy": "load 22 on 2 cores"} if row["name"] == "other" else row for row in ROWS]
    lines = report.table(report.load(write("run.json", rows))).splitlines()
    assert lines[0] == f"BUSY: load 22 on 2 cores, while 1 of {len(ROWS)} rows were timed"
    assert "|  | other | 0.100 | 0.100 | 100? | 20000 | 500% compute |  |" in lines


def test_figures_of_a_busy_run_are_told(report, write):
    """They have no mark of their own."""
    for busy, heading in (("", "## Figures"), ("load 22 on 2 cores", "## Figures, of a busy machine: they say little")):
        rows = [{**row, "busy": busy} for row in ROWS]
        assert heading in report.whole(report.load(write("run.json", rows, {"memory": 1}))).splitlines()


def described(**machine):
    facts = {"cpu": "A CPU", "system": "Linux", "isa": "avx2", "isas": ["avx2"], "cores": 2, "threads": 2, "blas": "b"}
    return facts | machine


def products(tmp_path, name, factor=1, **machine):
    """A run whose rows have shapes, and whose machine is described."""
    rows = [{**row, "best": factor * row["best"], "median": factor * row["median"], "shape": [10, 10, 10]}
            for row in ROWS[:4]]  # fmt: skip
    found = data(rows) | {"datetime": "2026-01-02T03:04:05.678+00:00"}
    found["machine_info"]["machine"] = described(**machine)
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(found))
    return str(path)


def test_save_keeps_the_products(report, tmp_path, capsys):
    assert report.main([products(tmp_path, "run"), "--save", str(tmp_path / "folder")]) == 0
    (path,) = (tmp_path / "folder").iterdir()
    assert path.name == "a-cpu_avx2_2026-01-02t03-04-05-678.json"
    kept = report.load(path)
    assert [(row.name, row.times_faster) for row in kept.rows][:2] == [("float32 np.matmul", 1), ("int8 weights", 10)]
    assert str(path) in capsys.readouterr().err


def test_a_run_without_its_machine_cannot_be_kept(report, write, tmp_path):
    with pytest.raises(ValueError, match="did not describe the machine"):
        report.main([write("run.json"), "--save", str(tmp_path / "folder")])


def test_compare_results_of_a_folder(report, tmp_path, capsys):
    """By time on one machine, by ratio on two."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, factor in ((one, 1), (other, 3)):
        for cpu in ("A", "B"):
            report.main([products(tmp_path, cpu, factor, cpu=cpu), "--save", str(folder)])
    capsys.readouterr()
    (a, b), (slower_a, _) = sorted(one.iterdir()), sorted(other.iterdir())
    assert report.main(["--compare", str(a), str(slower_a)]) == 1
    assert capsys.readouterr().out.startswith("slower: 10x10x10: ")
    assert report.main(["--compare", str(a), str(b)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == report.OTHER
    assert "10x10x10: int8 weights: 10.0 -> 10.0 times faster than NumPy (1.00 of it)" in out
    assert report.main(["--compare", str(a), products(tmp_path, "run", 3, cpu="A")]) == 1  # a result and a run
    assert "slower: 10x10x10: slow: 3.00 -> 9.00 ms (+200%)" in capsys.readouterr().out


def test_the_command_and_the_report_tell_one_ratio(report, tmp_path):
    """``fastq bench`` prints what is kept, and the report what pytest-benchmark kept, of the same rows."""
    path = products(tmp_path, "run")
    kept = {row.name: f"{digits(row.times_faster)}{row.mark}" for row in report.products(path).rows[1:]}
    table = report.table(report.load(path)).splitlines()
    assert kept
    for name, ratio in kept.items():
        assert any(line.startswith(f"|  | {name}") and line.split(" | ")[4] == ratio for line in table)


def test_a_result_is_no_run(report, tmp_path, capsys):
    report.main([products(tmp_path, "run"), "--save", str(tmp_path / "folder")])
    (path,) = (tmp_path / "folder").iterdir()
    with pytest.raises(SystemExit):
        report.main([str(path)])
    assert "is a result of products" in capsys.readouterr().err


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


def test_summary_has_fastq_and_the_fastest_peer_of_its_kind(report, write):
    lines = report.summary(report.load(write("run.json"))).splitlines()
    heads = "float32 np.matmul | int8 weights | fastest peer | int8 codes | fastest peer | int3 weights | fastest peer"
    assert lines[2:] == [
        f"| ms (times faster than float32) | {heads} | two floats |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        "| 10x10x10 | 10.0 | 1.00 (10.0) | 2.00 (5.00?) MKL |  |  |  |  |  |",
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
    for bare in (write("bare.json", ROWS[-1:]), write("roofless.json", roofs={})):
        with pytest.raises(ValueError, match="nothing to plot"):
            report.main([bare, "--plot", str(file)])


def test_the_command_wants_one_run_or_two_to_compare(report, capsys):
    for arguments in ([], ["run.json", "--compare", "a.json", "b.json"]):
        with pytest.raises(SystemExit):
            report.main(arguments)
        assert "either one JSON file or --compare OLD NEW" in capsys.readouterr().err
