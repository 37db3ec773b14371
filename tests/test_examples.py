"""Every lesson runs without a warning and prints what it teaches."""

import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "examples"

LESSONS = {
    "01_first_steps.py": [
        "codes from -3 to 3, scale of shape (1, 128)",
        "of which 12,288 are codes",
        "np.matmul [[64]], fq.matmul [[40000]]",
    ],
    "02_layer_row_and_column.py": [
        "[5 6 7]   [   6.7143    7.8571    9.0000]",
        "A's smallest number becomes 1.1429, and the L2 norm 0.9583",
        "L2 norm of the error: 10.7000",
        "one scale per matrix: 196.44",
        "per row and column: 10.18",
    ],
    "03_symmetric_and_asymmetric.py": [
        "asymmetric: scale 0.668085, zero point 52",
        "[254   0  52 255  26  28 205   2 219 234 193 107 180  11   8  14  82 107\n 121 185]",
        "[126 -32   0 127 -16 -15  96 -31 104 114  88  34  80 -26 -28 -23  19  35\n  43  83]",
        "[2198 -128    0 2214]",
        "asymmetric: 0.03695",
    ],
    "04_exact_on_every_cpu.py": [
        "fq.matmul                            33278",
        "[17186.  7026. -8932.  4568.] is [17186  7026 -8932  4568]",
        "reference ",
        "all equal",
    ],
    "05_bits_scales_and_methods.py": ["group of 64   mse", "The picture is "],
    "06_digits.py": ["899 test images", "int8: accuracy 9", "int3: accuracy 9"],
    "07_layers.py": ["equal: True", "after it are equal: True", "float16 of shape (256, 2048)"],
    "08_three_bits.py": [
        "3 bits, group 64",
        "three bits, groups of 64: gptq gains 1",
        "balance and rotation gain ",
        "choose_bits:",
    ],
    "09_dask.py": [
        "4.0 GiB; nothing of it is there yet",
        "equal to fq.quantize of the whole: True",
        "the product took less than a fifth of x: True",
        "a slice in chunks equals it whole: True",
        "multiplied from the store, equal: True",
    ],
    "10_search.py": ["bytes  recall  rescored", "  1.000 ", "100 more items, one near each query: 100% of the best"],
    "11_models.py": [
        "blk.0.ffn_up.weight  Entry(shape=(2048, 2048), kind='4 bits, groups of 32 (Q4_0)', nbytes=2359296)",
        "how small: 4,718,592 bytes, of 16,777,216 as float32",
        "how wrong: the weights 20.3 dB",
        "opened again: equal True",
        "torch, per_channel_affine: QArray(shape=(2048, 2048), 8 bits, asymmetric, axis=1",
        "MLX, affine: QArray(shape=(2048, 2048), 4 bits, affine, axis=1, group_size=64",
        "its parts give the same array: True",
    ],
    "12_sklearn.py": [
        "accuracy for 898 images",
        "LogisticRegression    MLPClassifier",
        "the same answers after pickle: True",
        "With the wrong axis: the scale of the right operand must be constant",
    ],
    "13_transformer.py": [
        "calibration: 8 layers, 1536 rows each",
        "1.down.weight ",
        "gptq with balance and rotation gains 1",
    ],
}


def run(path, folder):
    # In the environment, and not as -W, because the processes that a lesson starts inherit it.
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, str(path), str(folder)], env=environment, capture_output=True, text=True, timeout=300
    )


NEEDS = {"09_dask.py": ("dask.array", "zarr")}


@pytest.mark.parametrize("name", LESSONS)
@pytest.mark.exhaustive
def test_lesson(name, tmp_path):
    for guest in NEEDS.get(name, ()):
        pytest.importorskip(guest)
    done = run(FOLDER / name, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    missing = [line for line in LESSONS[name] if line not in done.stdout]
    assert not missing, done.stdout


def test_every_lesson_is_listed():
    assert sorted(LESSONS) == sorted(path.name for path in FOLDER.glob("*.py"))


def test_a_warning_fails_a_lesson(tmp_path):
    lesson = tmp_path / "lesson.py"
    lesson.write_text("import warnings\nwarnings.warn('old')\n")
    assert run(lesson, tmp_path).returncode == 1


def test_picture_goes_into_the_folder(tmp_path):
    run(FOLDER / "05_bits_scales_and_methods.py", tmp_path / "new")
    (picture,) = (tmp_path / "new").iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NEEDS)
def test_lesson_says_what_it_needs(name, tmp_path):
    (tmp_path / "dask.py").write_text("raise ModuleNotFoundError('no dask')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    lesson = [sys.executable, str(FOLDER / name)]
    done = subprocess.run(lesson, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'This lesson is about Dask: pip install ".[dask]" in a clone of fastq brings it.\n'


def test_lesson_says_that_the_picture_is_left_out(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('no matplotlib')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    lesson = [sys.executable, str(FOLDER / "05_bits_scales_and_methods.py"), str(tmp_path / "new")]
    done = subprocess.run(lesson, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "The picture is left out" in done.stdout
    assert not (tmp_path / "new").exists()
