"""The package as a whole: its names, what importing it costs, the variables it reads, what it tells about itself."""

from __future__ import annotations

import doctest
import importlib
import importlib.metadata
import importlib.util
import inspect
import io
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastq as fq
from fastq.kernels.table import ISAS
from fastq.machine import cores, cpu, pool

PRODUCT = """
import numpy as np, fastq as fq
rng = np.random.default_rng(0)
x, w = rng.standard_normal((9, 70), np.float32), rng.standard_normal((70, 20), np.float32)
print((x @ fq.quantize(w, 3, axis=0)).tobytes().hex())
"""


def python(code, *options, **variables):
    """What a fresh interpreter prints, with these environment variables on top of ours."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**os.environ, **variables}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def product():
    """What PRODUCT must print."""
    return python(PRODUCT, FASTQ_ISA="reference")


# Names


def test_public_names():
    assert fq.__all__ == [
        "Calibrator",
        "Choice",
        "Error",
        "FileFormatError",
        "Gptq",
        "IsaError",
        "MatmulError",
        "NotFiniteError",
        "Percentile",
        "QArray",
        "SecondMoment",
        "balance",
        "choose_bits",
        "dequantize",
        "error",
        "error_matmul",
        "from_parts",
        "load",
        "matmul",
        "matmul_error_bound",
        "merge_top_k",
        "open",
        "quantize",
        "quantize_all",
        "save",
        "set_num_threads",
        "show_config",
        "top_k",
    ]
    assert all(hasattr(fq, name) for name in fq.__all__)  # some are imported now
    modules = {name for name, value in vars(fq).items() if inspect.ismodule(value)}
    others = {name for name in vars(fq) if not name.startswith("_")} - modules
    assert others == set(fq.__all__)


@pytest.mark.parametrize("name", fq.__all__)
def test_public_names_are_documented(name):
    """And each shows how it is used; test_examples_in_docstrings runs what they show."""
    value = getattr(fq, name)
    assert ">>> " in value.__doc__
    if inspect.isclass(value):
        members = {n: m for n, m in vars(value).items() if not n.startswith("_") and callable(m)}
        assert all(m.__doc__ for m in members.values())


def test_dir_shows_public_names():
    """And no modules: what a user sees when completing ``fq.``."""
    assert set(dir(fq)) == {*fq.__all__, "__version__"}
    assert python("import fastq; print(*dir(fastq))").split() == sorted(dir(fq))


def test_version():
    """Under the name of the distribution, which is not that of the import."""
    assert importlib.metadata.version(DISTRIBUTION) == fq.__version__
    assert fq.show_config.__globals__["__version__"] == fq.__version__


def test_types_are_announced():
    assert (Path(fq.__file__).parent / "py.typed").exists()


# Importing


def test_importing_imports_nothing_heavy():
    """Neither the compiler nor a guest: only what the first use of something needs, at that use."""
    heavy = ("numba", "llvmlite", "scipy", "sklearn", "matplotlib", "ml_dtypes", "hypothesis", "multiprocessing")
    code = f"import sys, fastq; print(sorted({{m.split('.')[0] for m in sys.modules}} & set({heavy})))"
    assert python(code).strip() == "[]"


def test_importing_waits_for_the_first_use():
    """So that the command line answers at once; NumPy comes with the first public name that needs it."""
    code = (
        "import sys, fastq; print('numpy' in sys.modules, len(dir(fastq))); fastq.QArray; print('numpy' in sys.modules)"
    )
    assert python(code).split() == ["False", str(len(fq.__all__) + 1), "True"]


@pytest.mark.parametrize("first", ["fastq", "numpy"])
def test_numpys_own_products_are_kept_in_time(first):
    """A program replaces NumPy's product before it has used anything of fastq."""
    second = {"fastq": "numpy", "numpy": "fastq"}[first]
    replaced = {"fastq": "fastq.matmul", "numpy": "lambda a, b: fastq.matmul(a, b)"}[first]
    code = f"""
import {first}, {second}
numpy.matmul = {replaced}
print(numpy.matmul(numpy.eye(2) * 1j, numpy.eye(2)).tolist() == [[1j, 0], [0, 1j]])  # which fastq leaves to NumPy
"""
    assert python(code).strip() == "True"


def test_importing_starts_no_thread_and_writes_nothing(tmp_path):
    code = "import threading, fastq; print(threading.active_count())"
    assert python(code, FASTQ_CACHE_DIR=str(tmp_path / "cache")).strip() == "1"
    assert not (tmp_path / "cache").exists()


def test_importing_warns_of_nothing():
    assert python("import fastq", "-W", "error") == ""


def test_bad_variables_do_not_break_the_import():
    """They are errors where they matter: at the first use."""
    assert python("import fastq", FASTQ_ISA="sse9", FASTQ_NUM_THREADS="two", FASTQ_CACHE_DIR="/dev/null/x") == ""


# FASTQ_ISA


@pytest.mark.parametrize("name", cpu.available(ISAS))
def test_forced_instruction_set(name, product):
    told = "from fastq.machine import cpu; from fastq.kernels.table import ISAS; print(cpu.chosen(ISAS), end='')"
    assert python(PRODUCT + told, FASTQ_ISA=name) == product + name
    assert f"instruction set:  {name} (FASTQ_ISA)\n" in python("import fastq; fastq.show_config()", FASTQ_ISA=name)


@pytest.mark.parametrize("use", ["fq.quantize([1.0])", "fq.matmul([[1.0]], [[1.0]])", "fq.show_config()"])
def test_impossible_instruction_set(use):
    code = f"""
import fastq as fq
try:
    {use}
except fq.IsaError as error:
    print(error)
"""
    have = ", ".join(cpu.available(ISAS))
    assert python(code, FASTQ_ISA="sse9").strip() == (
        "FASTQ_ISA must be an instruction set that this CPU has, one of "
        f"{have}; got 'sse9', which is not one that fastq knows"
    )


def test_an_instruction_set_that_the_cpu_lacks(monkeypatch):
    monkeypatch.setattr(cpu, "features", lambda: frozenset())
    monkeypatch.setenv("FASTQ_ISA", "avx2")
    words = "one of portable, reference; got 'avx2', which needs what this CPU lacks"
    with pytest.raises(fq.IsaError, match=f"FASTQ_ISA must be an instruction set that this CPU has, {words}"):
        fq.quantize([1.0])
    monkeypatch.delenv("FASTQ_ISA")
    assert cpu.chosen(ISAS) == "portable"


def test_an_empty_variable_is_none():
    code = "import fastq; fastq.show_config()"
    assert f"instruction set:  {cpu.available(ISAS)[0]}\n" in python(code, FASTQ_ISA="")


# FASTQ_NUM_THREADS


@pytest.mark.parametrize("text", ["0", "-2", "many"])
def test_a_wrong_number_of_threads(text):
    code = """
import fastq as fq
try:
    fq.quantize([1.0])
except ValueError as error:
    print(error)
fq.set_num_threads(1)  # the setting comes before the variable
fq.quantize([1.0])
"""
    words = f"FASTQ_NUM_THREADS must be a positive integer, got {text!r}; unset it to use all cores"
    assert python(code, FASTQ_NUM_THREADS=text).strip() == words


ALL = cores.available_cpus()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1", f"1 of {ALL} available"),
        ("4096", f"{ALL} of {ALL} available (4096 asked for)"),
        ("", f"{ALL} of {ALL} available"),
    ],
)
def test_number_of_threads(text, told, product):
    told = f"threads:          {told}\n"
    printed = python(PRODUCT + "fq.show_config()", FASTQ_NUM_THREADS=text)
    assert printed.startswith(product)
    assert told in printed


def test_set_num_threads(many_cores):
    for number in (1, 2, 7):
        fq.set_num_threads(number)
        assert pool.num_threads() == number
    fq.set_num_threads(None)
    assert pool.num_threads() == 8


def test_there_are_never_more_threads_than_cores(many_cores, monkeypatch):
    fq.set_num_threads(100_000)
    assert pool.num_threads() == 8
    monkeypatch.setattr(cores, "available_cpus", lambda: 3)  # the affinity changes
    assert pool.num_threads() == 3
    monkeypatch.setattr(cores, "available_cpus", lambda: 10**6)  # of such a machine, what the gate can count
    assert pool.num_threads() == 4095


def test_a_number_of_threads_for_a_block(many_cores):
    fq.set_num_threads(5)
    with fq.set_num_threads(3):
        assert pool.num_threads() == 3
        with fq.set_num_threads(None):
            assert pool.num_threads() == 8
            with fq.set_num_threads(2):
                assert pool.num_threads() == 2
            assert pool.num_threads() == 8
        assert pool.num_threads() == 3
        fq.set_num_threads(4)  # plainly, inside a block: until the block's end
    assert pool.num_threads() == 5
    with pytest.raises(KeyError), fq.set_num_threads(1):
        raise KeyError
    assert pool.num_threads() == 5
    again = fq.set_num_threads(6)
    for _ in range(2):
        with again:
            assert pool.num_threads() == 6
        assert pool.num_threads() == 5
    with pytest.raises(ValueError, match="threads must be"):
        fq.set_num_threads(0)
    assert pool.num_threads() == 5


def test_a_setting_shows_in_a_session():
    assert repr(fq.set_num_threads(2)) == "set_num_threads(2)"


@pytest.mark.parametrize("number", [2, 100_000])
def test_the_variable_and_the_setting_mean_the_same(monkeypatch, many_cores, number):
    monkeypatch.setenv("FASTQ_NUM_THREADS", str(number))
    by_variable = pool.num_threads()
    fq.set_num_threads(number)
    assert by_variable == pool.num_threads()


# FASTQ_CACHE_DIR


def files(folder):
    return sorted(folder.rglob("*.kernel"))


def compiled(printed):
    """How many kernels a process compiled, by its show_config."""
    line = next(line for line in printed.splitlines() if line.startswith("loaded:"))
    return int(line.split(",")[1].split()[0])


def test_kernels_are_kept(tmp_path, product):
    folder = tmp_path / "new" / "cache"
    first = python(PRODUCT + "fq.show_config()", FASTQ_CACHE_DIR=str(folder))
    assert first.startswith(product)
    assert compiled(first) == len(files(folder)) > 0
    assert f"kernel cache:     {files(folder)[0].parent}\n" in first
    told = "import sys; fq.show_config(); print('numba' in sys.modules)"
    second = python(PRODUCT + told, FASTQ_CACHE_DIR=str(folder))
    assert second.startswith(product)
    assert compiled(second) == 0
    assert second.endswith("\nFalse\n")


@pytest.mark.exhaustive
def test_kernels_of_several_processes_meet_in_one(tmp_path):
    """Two processes compile one kernel each; a third loads both, and each does its own work."""
    code = "import numpy as np, fastq as fq\n"
    for dtype in ("float32", "float64"):
        line = f"print(fq.quantize(np.arange(-3, 3, dtype='{dtype}')).dequantize())\n"
        python("import numpy as np, fastq as fq\n" + line, FASTQ_CACHE_DIR=str(tmp_path))
        code += line
    printed = python(code + "fq.show_config()", FASTQ_CACHE_DIR=str(tmp_path))
    assert compiled(printed) == 0
    assert printed.startswith(python(code, FASTQ_ISA="reference"))


DAMAGE = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "one bit": lambda file: file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1])),
    "text": lambda file: file.write_text("what is this?\n" * 10),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.exhaustive
def test_damaged_kernels_are_compiled_again(tmp_path, product):
    several = PRODUCT + "fq.quantize(np.eye(9), axis=-1); "  # one kernel more, since there are so many kinds of damage
    python(several, FASTQ_CACHE_DIR=str(tmp_path))
    kept = files(tmp_path)
    for i, file in enumerate(kept):
        list(DAMAGE.values())[i % len(DAMAGE)](file)
    printed = python(several + "fq.show_config()", FASTQ_CACHE_DIR=str(tmp_path))
    assert printed.startswith(product)
    assert compiled(printed) == len(kept) >= len(DAMAGE)


@pytest.mark.parametrize(
    "way",
    [
        "off",
        pytest.param("empty", marks=pytest.mark.exhaustive),
        pytest.param("below a file", marks=pytest.mark.exhaustive),
    ],
)
def test_without_a_cache(tmp_path, way):
    file = tmp_path / "file"
    file.write_text("")
    variable = {"off": "off", "empty": "", "below a file": f"{file}/inside"}[way]
    code = "import fastq as fq; print(fq.quantize([-1.0, 1.0]).codes); "
    printed = python(code + "fq.show_config()", FASTQ_CACHE_DIR=variable)
    assert printed.startswith("[-127  127]\n")
    assert compiled(printed) == 1
    assert "kernel cache:     none (" in printed
    assert python("import fastq; fastq.show_config()", FASTQ_CACHE_DIR=variable)  # before anything is loaded


# What it tells


def test_show_config_tells_all(isa):
    file = io.StringIO()
    fq.show_config(file)
    told = dict(line.split(":", 1) for line in file.getvalue().splitlines())
    told = {name: value.strip() for name, value in told.items()}
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "llvmlite")}
    assert told["CPU"] == cpu.cpu_name()
    assert told["system"] == f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    assert told["instruction set"] == isa
    assert told["this CPU has"] == ", ".join(cpu.available(ISAS))
    assert told["threads"] == f"{pool.num_threads()} of {ALL} available"
    versions = {"fastq": fq.__version__, **versions}
    assert told["versions"] == ", ".join(f"{name} {number}" for name, number in versions.items())
    assert told["kernels"] == "plain NumPy" if isa == "reference" else isa in told["kernels"]
    assert {"kernel cache", "loaded"} <= set(told)
    assert all(told.values())


def test_show_config_prints(capsys):
    fq.show_config()
    printed = capsys.readouterr()
    file = io.StringIO()
    fq.show_config(file=file)
    assert printed.out == file.getvalue()
    assert printed.err == ""
    assert all(line[:18].rstrip().endswith(":") for line in printed.out.splitlines())  # one column of names


def test_show_config_tells_what_is_loaded():
    code = "import fastq as fq; fq.show_config(); fq.quantize([1.0]); fq.show_config()"
    loaded = [line for line in python(code).splitlines() if line.startswith("loaded:")]
    assert [line.split()[1] for line in loaded] == ["0", "1"]


ROOT = Path(__file__).parent.parent
DISTRIBUTION = "fastq-matmul"

# The package index has another project under the name of the import: pip install fastq, pip install "fastq[dask]".
ANOTHER_PROJECT = re.compile(r"\binstall(?:\s+[\w.'\"=-]+)*\s+['\"]?fastq(?![\w./-])|(?<![\w-])fastq\[[a-z]")


def texts():
    """All files of the project that people read or that install something."""
    names = (".ci", ".github", "benchmarks", "docs", "examples", "src", "tests")
    inside = [path for name in names for path in (ROOT / name).rglob("*")]
    kinds = (".md", ".py", ".toml", ".yaml", ".yml", "")
    found = [path for path in (*inside, *ROOT.glob("*.*")) if path.suffix in kinds and path.is_file()]
    return [path for path in found if path != Path(__file__)]


def test_no_text_has_people_install_another_project():
    """A clone is installed as ``.[extra]``."""
    told = {str(path.relative_to(ROOT)): ANOTHER_PROJECT.search(path.read_text()) for path in texts()}
    assert {"README.md", "pyproject.toml", "src/fastq/cli/main.py"} <= set(told)
    assert not {path: match[0] for path, match in told.items() if match}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("pip install fastq", True),
        ("pip3 install -U 'fastq[dask]'", True),
        ("uv pip install numpy fastq", True),
        ('the extra "fastq[dask]"', True),
        ('pip install ".[dask]" in a clone of fastq', False),
        ('pip install "fastq-matmul[dask]"', False),
        ("pip install dist/fastq_matmul-0.1.0-py3-none-any.whl", False),
    ],
)
def test_another_project_is_seen(text, wrong):
    assert bool(ANOTHER_PROJECT.search(text)) == wrong


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot read TOML")
def test_the_distribution():
    """Its name differs from that of the import; extras that hold extras follow; README says why, in a line."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == DISTRIBUTION
    extras = [text for extra in project["optional-dependencies"].values() for text in extra if "fastq" in text]
    assert len(extras) >= 3
    assert all(text.startswith(f"{DISTRIBUTION}[") for text in extras)
    assert project["scripts"] == {"fastq": "fastq.cli.main:main"}
    assert f"`{DISTRIBUTION}`" in (ROOT / "README.md").read_text()


def examples():
    """All modules with an example, but for those that import a guest which is not installed."""
    package = Path(fq.__file__).parent
    for path in sorted(package.rglob("*.py")):
        imported = re.findall(r"^(?:import|from) (\w+)", text := path.read_text(), re.MULTILINE)
        if ">>> " in text and all(map(importlib.util.find_spec, imported)):
            yield ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


EXAMPLES = list(examples())


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_docstrings(name):
    failures, tried = doctest.testmod(importlib.import_module(name))
    assert failures == 0 < tried


def test_every_public_module_has_examples():
    assert {getattr(fq, name).__module__ for name in fq.__all__} <= set(EXAMPLES)
