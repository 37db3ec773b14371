"""Tests of guests skip where the guest is missing; where they run for everybody, none may be."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import sysconfig

GUESTS = (
    "dask",
    "distributed",
    "ml_dtypes",
    "matplotlib",
    "sklearn",
    "threadpoolctl",
    "hypothesis",
    "pytest_benchmark",
)
NEWER = ("zarr",)  # needs Python 3.11, and wheels that are not there for all systems
WHEELS = platform.machine() != "ARM64" and not sysconfig.get_config_var("Py_GIL_DISABLED")


def test_no_guest_is_missing_in_ci():
    wanted = GUESTS + (NEWER if sys.version_info >= (3, 11) and WHEELS else ())
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    assert not missing or os.environ.get("CI") != "true"


def test_fastq_imports_no_guest():
    code = "import sys, fastq.interop; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert not [name for name in ("dask", "distributed", "zarr") if f"'{name}'" in loaded]
