"""The commands of this project: ``nox -s test`` and so on; ``nox -l`` lists them.

Each session runs in an environment of its own. With ``--no-venv`` it runs in the active one and installs nothing.
Arguments after ``--`` go on to the tool: ``nox -s test -- tests/kernels``.
"""

import nox

nox.options.sessions = ["lint", "types", "test"]
nox.options.reuse_existing_virtualenvs = True

PYTEST = ("python", "-m", "pytest", "-n", "2", "--dist", "loadfile")
OLDEST = ("numpy==2.0.*", "numba==0.62.*")  # the lower bounds in pyproject.toml


def install(session: nox.Session, extra: str, *others: str) -> None:
    """Install fastq from this folder, editable, with an extra."""
    if session.virtualenv.is_sandboxed:
        session.install("-e", f".[{extra}]", *others)


@nox.session
def test(session: nox.Session) -> None:
    """The tests, as README has them: at most five minutes on two cores."""
    install(session, "test")
    session.run(*PYTEST, *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """The tests with the oldest NumPy and Numba that fastq takes; run it on Python 3.10."""
    install(session, "test", *OLDEST)
    session.run(*PYTEST, *session.posargs)


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
