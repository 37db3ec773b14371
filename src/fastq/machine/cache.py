"""The kernel cache: object code on disk, one file per kernel.

Files live in a folder whose name is a hash of everything that the code depends on: fastq's own sources, the versions
of Numba and llvmlite, the CPU with its features, and Numba's settings. A file is written under another name and then
renamed, and carries a checksum, of its name as well, so that processes may share the folder, and a file that is torn or
another kernel's is noticed. Whatever goes wrong here costs a compilation, never a result.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys

MAGIC = b"fastq kernel 2\n"


def root() -> pathlib.Path | None:
    """The cache folder of this user: ``FASTQ_CACHE_DIR``, or the platform's place; None where it is off or nowhere."""
    chosen = os.environ.get("FASTQ_CACHE_DIR")
    if chosen is not None:
        return None if chosen in ("", "off") else pathlib.Path(chosen)
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", home)
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(base):  # as its specification says
            base = os.path.join(home, ".cache")
    if not os.path.isabs(base):  # a user without a home, whose "~" stays as it is; the working folder is no place
        return None
    return pathlib.Path(base) / "fastq"


PACKAGE = pathlib.Path(__file__).resolve().parent.parent


def sources() -> list[pathlib.Path]:
    """The files that kernels depend on: what lays out a job or emits code, and the one with fastq's version."""
    patterns = "__init__.py", "scheme.py", "machine/*.py", "layout/*.py", "kernels/**/*.py"
    return [source for pattern in patterns for source in sorted(PACKAGE.glob(pattern))]


def stamp(*facts: str) -> str:
    """A hash of the sources, Numba's settings in the environment and the given facts."""
    import hashlib

    digest = hashlib.sha256()
    for source in sources():
        digest.update(source.relative_to(PACKAGE).as_posix().encode() + b"\0" + source.read_bytes())
    settings = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith("NUMBA_"))
    for fact in (*settings, *facts):
        digest.update(b"\0" + fact.encode())
    return digest.hexdigest()[:24]


class Cache:
    """Object code by kernel name, below one folder; without a usable folder it is always empty."""

    def __init__(self, folder: pathlib.Path | None) -> None:
        self.folder = folder if folder is not None and _usable(folder) else None

    def load(self, name: str) -> tuple[str, bytes] | None:
        """The symbols and object code of a kernel, or None."""
        if self.folder is None:
            return None
        try:
            text = (self.folder / f"{name}.kernel").read_bytes()
            head, checksum, symbols, code = text.split(b"\n", 3)
        except (OSError, ValueError):
            return None
        if head + b"\n" != MAGIC or _checksum(name, symbols, code) != checksum:
            return None
        return symbols.decode(), code

    def store(self, name: str, symbols: str, code: bytes) -> None:
        """Keep a kernel; a folder that cannot be written is left alone."""
        if self.folder is None:
            return
        import tempfile

        checksum = _checksum(name, symbols.encode(), code)
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".", delete=False) as file:
                temporary = file.name
                file.write(MAGIC + checksum + b"\n" + symbols.encode() + b"\n" + code)
            os.replace(temporary, self.folder / f"{name}.kernel")
            temporary = None
        except OSError:
            pass
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)


def _checksum(name: str, symbols: bytes, code: bytes) -> bytes:
    """Of the name too: a kernel that is told another one's job reads and writes wherever that points."""
    import hashlib

    return hashlib.sha256(b"\0".join((name.encode(), symbols, code))).hexdigest().encode()


def _usable(folder: pathlib.Path) -> bool:
    """Make the folder; code is loaded only from a place that belongs to this user and nobody else may write to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError:
        return False
    return not hasattr(os, "getuid") or (info.st_uid == os.getuid() and not info.st_mode & 0o022)
