"""The commands of this project: ``nox -s test`` and so on; ``nox -l`` lists them.

Each session runs in an environment of its own. With ``--no-venv`` it runs in the active one and installs nothing.
Arguments after ``--`` go on to the tool: ``nox -s test -- tests/kernels``.
"""

import nox

nox.options.sessions = ["lint", "types", "test"]
nox.options.reuse_existing_virtualenvs = True

PYTEST = ("python", "-m", "pytest", "-n", "2", "--dist", "loadfile")
OLDEST = ("numpy==2.0.0", "numba==0.62.0")  # the lower bounds in pyproject.toml
NEWEST = ("--upgrade", "--upgrade-strategy", "eager")


def install(session: nox.Session, extra: str, *others: str) -> None:
    """Install fastq from this folder, editable, with an extra."""
    if session.virtualenv.is_sandboxed:
        session.install("-e", f".[{extra}]", *others)


@nox.session
def test(session: nox.Session) -> None:
    """The tests, as README has them: at most five minutes on two cores."""
    install(session, "test")
    session.run(*PYTEST, *session.posargs)


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """The tests with the oldest Python, NumPy and Numba that fastq takes."""
    install(session, "test", *OLDEST)
    session.run(*PYTEST, *session.posargs)


@nox.session
def newest(session: nox.Session) -> None:
    """The tests with the newest of everything that the index has for the Python that runs nox."""
    install(session, "test", *NEWEST)
    session.run(*PYTEST, *session.posargs)


@nox.session(name="free-threaded", python="3.14t")
def without_gil(session: nox.Session) -> None:
    """The tests without the GIL, even if something that is imported asks for it."""
    install(session, "dask", *free_threaded())
    session.run(*PYTEST, *session.posargs, env={"PYTHON_GIL": "0"})


def free_threaded() -> list[str]:
    """What the tests need, but for what has no wheels for a Python without the GIL: zarr, by google-crc32c."""
    extras = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
    return [*(needed for needed in extras["test"] if "fastq-matmul" not in needed), *extras["formats"]]


@nox.session
def exhaustive(session: nox.Session) -> None:
    """The long tests, which README's command leaves out."""
    install(session, "test")
    session.run(*PYTEST, "-m", "exhaustive", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, lint, spelling."""
    install(session, "dev")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("codespell")


@nox.session
def types(session: nox.Session) -> None:
    """Types, of the package and of a user's code."""
    install(session, "dev")
    session.run("python", "-m", "mypy")
    session.run("python", "-m", "pytest", "-m", "exhaustive", "tests/test_typing.py")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, into build/docs; warnings are errors."""
    install(session, "docs")
    session.run("python", "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "docs", "build/docs", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """All benchmarks, and their report; ``-- --quick`` for small shapes."""
    install(session, "bench")
    options = "--benchmark-enable", "--benchmark-json=build/bench.json"
    session.run("python", "-c", "import os; os.makedirs('build', exist_ok=True)")
    session.run("python", "-m", "pytest", "benchmarks", *options, *session.posargs)
    session.run("python", "benchmarks/report.py", "build/bench.json")
