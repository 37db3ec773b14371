"""fq.save: plain arrays, lazy mappings, errors; and a file that is there whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

import fastq as fq
from fastq.formats import saving

from .samples import own, quantized
from .test_own import same


def test_plain_arrays(tmp_path):
    values = np.arange(-3, 9).reshape(3, 4)
    kinds = ["bool", "uint8", "int16", "int64", "float16", "float64", "complex64", ml_dtypes.bfloat16]
    kinds += [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
    arrays = {f"a{i}": np.abs(values).astype(kind) for i, kind in enumerate(kinds)}
    arrays |= {
        "transposed": np.asfortranarray(values),
        "cut": values[::2, 1:],
        "empty": values[:0],
        "one": values[0, 0],
    }
    fq.save(tmp_path / "m", arrays)
    assert same(tmp_path / "m", arrays)
    with safe_open(tmp_path / "m", "numpy") as file:
        assert set(file.keys()) == set(arrays)
        assert (file.get_tensor("cut") == arrays["cut"]).all()
        assert file.metadata()["format"] == "pt"


def test_what_numpy_takes_for_arrays(tmp_path):
    fq.save(tmp_path / "m", {"list": [[1, 2], [3, 4]], "number": 2.5, "big": np.arange(3, dtype=">i4")})
    model = fq.open(tmp_path / "m")
    assert model["list"].tolist() == [[1, 2], [3, 4]]
    assert model["number"] == 2.5
    assert model["big"].tolist() == [0, 1, 2]


def test_arrays_begin_at_multiples_of_their_size(tmp_path):
    fq.save(tmp_path / "m", {**quantized(), "a": np.ones(3, np.uint8), "b": np.ones(3), "c": np.ones(3, np.float16)})
    model = fq.open(tmp_path / "m")
    assert all(model[name].flags.aligned for name in "abc")


# Lazy mappings


class Lazy(Mapping):
    """Arrays that are made when they are asked for, and counted."""

    def __init__(self, count, size):
        self.names, self.size, self.taken = [f"layer{i}" for i in range(count)], size, []

    def __getitem__(self, name):
        self.taken.append(name)
        return np.full(self.size, int(name[5:]), np.float32)

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


def test_a_lazy_mapping_is_taken_one_by_one(tmp_path):
    lazy = Lazy(8, 2**20)
    tracemalloc.start()
    fq.save(tmp_path / "m", lazy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lazy.taken == 2 * lazy.names
    assert peak < 3 * 2**22  # two arrays, where there are eight
    assert [fq.open(tmp_path / "m")[name][-1] for name in lazy.names] == list(range(8))


def test_from_file_to_file(tmp_path):
    model = fq.open(own(tmp_path))
    fq.save(tmp_path / "copy", model)
    assert same(tmp_path / "copy", model)
    fq.save(tmp_path / "model", model)  # over the file that it is read from
    assert same(tmp_path / "model", fq.open(tmp_path / "copy"))
    assert model["bias"].tolist() == [0, 1, 2]


def test_an_array_that_changes_meanwhile(tmp_path):
    class Changing(Lazy):
        def __getitem__(self, name):
            self.size += 1
            return super().__getitem__(name)

    with pytest.raises(
        ValueError, match=r"array 'layer0' must stay as it is while it is saved; it was float32 \(5,\), is"
    ):
        fq.save(tmp_path / "m", Changing(2, 4))
    assert not list(tmp_path.iterdir())


# Errors, before anything is written


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        ([("x", 1)], TypeError, "mapping must be a mapping of names to arrays, such as a dict"),
        ({1: [1.0]}, TypeError, "names of arrays must be strings, got 1 of type int"),
        ({"__metadata__": [1.0]}, ValueError, "names of arrays must not be __metadata__"),
        ({"\ud800": [1.0]}, ValueError, "names of arrays must be text that UTF-8 has"),
        ({"x": "text"}, TypeError, "arrays must be of types that files of safetensors have .* got 'x' of dtype <U4"),
        ({"x": None}, TypeError, "got 'x' of dtype object"),
        ({"x": np.ones(3, complex)}, TypeError, "got 'x' of dtype complex128"),
        ({"x": np.ones(3, ml_dtypes.int4)}, TypeError, "got 'x' of dtype int4"),
        ({"x": np.ones(3, "datetime64[s]")}, TypeError, "got 'x' of dtype datetime64"),
        ({"x": np.ma.masked_less([1.0, 2.0], 1.5)}, TypeError, "arrays must not have masks"),
        (
            {"x": fq.quantize([1.0]), "x.scale": [1.0]},
            ValueError,
            r"'x.scale' is a part of 'x' and of 'x.scale': rename",
        ),
    ],
)
def test_what_is_not_saved(mapping, error, message, tmp_path):
    (tmp_path / "m").write_bytes(b"old")
    with pytest.raises(error, match=message):
        fq.save(tmp_path / "m", mapping)
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m").read_bytes() == b"old"


def test_wrong_paths(tmp_path):
    with pytest.raises(IsADirectoryError, match="path must be that of a file"):
        fq.save(tmp_path, {"x": [1.0]})
    with pytest.raises(FileNotFoundError, match="path must lie in a folder; there is no"):
        fq.save(tmp_path / "no" / "m", {"x": [1.0]})
    with pytest.raises(TypeError, match="path must be a string or a path"):
        fq.save(None, {"x": [1.0]})


# Whole or not at all


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("at", [0, 2])
def test_errors_leave_what_was_there(error, old, at, tmp_path):
    if old:
        fq.save(tmp_path / "m", {"x": [1.0]})

    class Failing(Lazy):
        def __getitem__(self, name):
            if len(self.taken) == len(self.names) + at:
                raise error
            return super().__getitem__(name)

    with pytest.raises(type(error)):
        fq.save(tmp_path / "m", Failing(4, 10))
    assert [file.name for file in tmp_path.iterdir()] == (["m"] if old else [])
    if old:
        assert fq.open(tmp_path / "m")["x"] == 1


def test_a_full_disk(tmp_path):
    if not hasattr(signal, "SIGXFSZ"):
        pytest.skip("no limit of file sizes")
    code = (
        "import resource, signal, sys, numpy as np, fastq as fq\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
        "try: fq.save(sys.argv[1], {'x': np.ones(10**6)})\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    fq.save(tmp_path / "m", {"x": [1.0]})
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m"], capture_output=True, text=True, check=True)
    assert done.stdout == "OSError\n"
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert fq.open(tmp_path / "m")["x"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_that_is_killed(tmp_path):
    """The old file stays; what was written of the new one lies beside it."""
    code = (
        "import sys, time, numpy as np, fastq as fq\n"
        "from fastq.formats.writer import Tensor, write\n"
        "def arrays():\n"
        "    yield 'x', np.ones(100)\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
        "write(sys.argv[1], [Tensor(n, 'float64', (100,)) for n in 'xy'], {}, arrays())\n"
    )
    fq.save(tmp_path / "m", {"x": [1.0]})
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "m"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert fq.open(tmp_path / "m")["x"] == 1


def test_the_pieces_of_a_large_array(tmp_path, monkeypatch):
    monkeypatch.setattr("fastq.formats.writer.AT_ONCE", 100)
    arrays = {"t": np.arange(1000.0).reshape(20, 50).T, "b": np.arange(77, dtype=">i2").reshape(7, 11)}
    fq.save(tmp_path / "m", arrays)
    assert all((fq.open(tmp_path / "m")[name] == array).all() for name, array in arrays.items())


def test_unused_imports_stay_away():
    """`import fastq` does not import what files need."""
    code = "import sys, fastq; print([m for m in sys.modules if m.startswith('fastq.formats')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    assert saving.save is fq.save
