"""The kernel cache: object code on disk, one file per kernel.

The files lie in a folder that is named by a **stamp**: a hash of everything that the code depends on. That is the
sources of fastq which make kernels, its version, the versions of Numba and llvmlite, the CPU with its features, and
Numba's settings. A file is written under a temporary name and then renamed, so several processes may share the folder.
It holds a checksum of its name and content: a damaged file, or one under a wrong name, is not loaded. Whatever goes
wrong here costs a compilation, never a result.

Another version of fastq or Numba has another stamp, and so a folder beside this one. Two rules remove folders:

* An **environment** (an installed fastq, a Python, a CPU) has one version at a time. It leaves a marker, an empty file,
  in each folder that it opens. When it fills another folder, it takes back its markers. A folder that loses its last
  marker is removed at once: environments side by side keep theirs, an upgrade leaves nothing behind.
* Any folder is removed when no process has used it for :data:`UNUSED`. The time of last use is the modification time of
  the folder: a process that opens a folder renews it (once a day at most), and so does a new file.

A process removes folders after it has stored its first kernel, when it has spent a second on compiling anyway; a
process that compiles nothing looks at no other folder. A process may still use a folder that another one removes: it
compiles what it does not find, and keeps it in memory only.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import sys
import time

MAGIC = b"fastq kernel 2\n"
STAMP_LENGTH = 24
DAY = 24 * 60 * 60  # seconds
UNUSED = 35 * DAY  # what runs once a month keeps its kernels

_STAMP = f"[0-9a-f]{{{STAMP_LENGTH}}}"
_MARKER = r"[0-9a-f]{16}\.environment"
_FILE = rf".*\.kernel|{_MARKER}|\.[a-z0-9_]{{8}}"  # the last one: a temporary file of a process that was killed


def root() -> pathlib.Path | None:
    """The cache folder of this user: ``FASTQ_CACHE_DIR``, or the platform's place. None: there is no cache."""
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
    """The files that kernels depend on: those that lay out a job or emit code, and the one with fastq's version."""
    patterns = "version.py", "scheme.py", "machine/*.py", "layout/*.py", "kernels/**/*.py"
    return [source for pattern in patterns for source in sorted(PACKAGE.glob(pattern))]


def stamp(*facts: str) -> str:
    """A hash of the sources, Numba's settings in the environment and the given facts."""
    import hashlib

    digest = hashlib.sha256()
    for source in sources():
        digest.update(source.relative_to(PACKAGE).as_posix().encode() + b"\0" + source.read_bytes())
    for fact in (*_settings(), *facts):
        digest.update(b"\0" + fact.encode())
    return digest.hexdigest()[:STAMP_LENGTH]


def environment(cpu: str) -> str:
    """A hash of where fastq and Python are, of the CPU and of Numba's settings: all of the stamp but the versions."""
    import hashlib

    return hashlib.sha256("\0".join((str(PACKAGE), sys.prefix, cpu, *_settings())).encode()).hexdigest()[:16]


def _settings() -> list[str]:
    return sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith("NUMBA_"))


class Cache:
    """Object code by kernel name, in one folder; without a usable folder the cache is always empty.

    `environment` is the one that uses the folder; without it no marker is left or taken back.
    """

    def __init__(self, folder: pathlib.Path | None, environment: str = "") -> None:
        self.folder = folder if folder is not None and _usable(folder) else None
        self._marker = environment and f"{environment}.environment"
        if self.folder is not None and self._marker:
            with contextlib.suppress(OSError):  # a read-only disk, or a marker that is there
                (self.folder / self._marker).touch(exist_ok=False)

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
        """Keep a kernel; does nothing where the folder cannot be written."""
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

    def remove_unused(self) -> None:
        """Remove folders beside this one: those of this environment alone, and what was not used for :data:`UNUSED`.

        A folder is removed only if its name is a stamp, it is private, no link, and holds nothing but cache files.
        """
        if self.folder is None:
            return
        around = self.folder.parent
        with contextlib.suppress(OSError):
            # A kernel has just been stored in this folder, so its time is that of the disk. The clock of this machine
            # may differ from that of a network drive.
            oldest = self.folder.stat().st_mtime - UNUSED
            beside = [path for path in around.iterdir() if re.fullmatch(_STAMP, path.name) and path != self.folder]
            for folder in beside:
                with contextlib.suppress(OSError):
                    if folder.resolve() == around.resolve() / folder.name:
                        _leave(folder, self._marker, oldest)


def folders() -> list[pathlib.Path]:
    """The folders of kernels in :func:`root`: this version's, and those of other versions, environments and CPUs."""
    top = root()
    try:
        return sorted(path for path in top.iterdir() if re.fullmatch(_STAMP, path.name)) if top else []
    except OSError:  # nothing has been kept yet
        return []


def remove(folder: pathlib.Path) -> bool:
    """Remove a folder of kernels; False if it stays, since it is not private or holds something else."""
    try:
        files = _files(folder)
        if files is None or folder.is_symlink():
            return False
        _remove(folder, files)
    except OSError:
        return False
    return True


def _leave(folder: pathlib.Path, marker: str, oldest: float) -> None:
    """Take back a marker from a folder. Remove the folder if that was its last one, or it was not used since `oldest`.

    A folder with anything else in it than the cache's files stays as it is.
    """
    files = _files(folder)
    if files is None:
        return
    markers = {file.name for file in files if re.fullmatch(_MARKER, file.name)}
    if markers == {marker} or folder.stat().st_mtime < oldest:
        _remove(folder, files)
    elif marker in markers:
        (folder / marker).unlink()


def _files(folder: pathlib.Path) -> list[pathlib.Path] | None:
    """The files of a folder that is private and holds nothing but the cache's; None of another one."""
    info, files = folder.stat(), list(folder.iterdir())
    ours = all(re.fullmatch(_FILE, file.name) and file.is_file() and not file.is_symlink() for file in files)
    return files if ours and _is_private(info) else None


def _remove(folder: pathlib.Path, files: list[pathlib.Path]) -> None:
    for file in files:
        file.unlink()
    folder.rmdir()


def _checksum(name: str, symbols: bytes, code: bytes) -> bytes:
    """A hash of the name too: a kernel that is given the job of another kernel reads and writes at random places."""
    import hashlib

    return hashlib.sha256(b"\0".join((name.encode(), symbols, code))).hexdigest().encode()


def _usable(folder: pathlib.Path) -> bool:
    """Make the folder, and note that it is used. Code is loaded only from a folder that is private."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError:
        return False
    if not _is_private(info):
        return False
    if time.time() - info.st_mtime > DAY:
        with contextlib.suppress(OSError):  # a read-only disk
            os.utime(folder)
    return True


def _is_private(info: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user, and nobody else may write to it."""
    return not hasattr(os, "getuid") or (info.st_uid == os.getuid() and not info.st_mode & 0o022)
