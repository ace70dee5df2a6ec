"""Do the tests pass elsewhere: on other CPythons of this machine, and with the SQLAlchemy before this one?

    python -m tests.environments [pytest option ...]
    python -m tests.environments --measure [pytest option ...]

Each gets a small virtual environment of its own under .venv/elsewhere, and one line is printed for each. Another
Python has pytest and the package, no driver: core and shell are tested there, `--db sqlite` leaves out databases that
need one, and tests of drivers, hosts and servers live elsewhere than in SHELL. Another SQLAlchemy has the drivers too.
With `-m ''`, by which the proof asks for every test, it is every Python; else the newest, and of the oldest CORE.

With `--measure`, for a machine that does nothing else meanwhile, it is those Pythons of MEASURED that this one is not,
one after the other: SQLAlchemy and the drivers are there, its tests must pass, and `python -m tests.bench --check` must
hold. A Python that is not found is a line, and no failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SHELL = ("tests/core", "tests/checkout", "tests/test_*.py")
# of the oldest, where it is not the proof
CORE = ("tests/core", "tests/checkout", "tests/test_layers.py", "tests/test_pool.py", "tests/test_database.py")
# what needs a driver in most of its tests; and what only computes, the same on all of them, and takes long
NOT_ON_ALL = (
    "tests/test_servers.py",
    "tests/test_cli_servers.py",
    "tests/test_bench.py",
    "tests/test_bench_memory.py",
    "tests/test_simulate_theory.py",
    "tests/test_server_pooler.py",
    "tests/test_session_options.py",
    "tests/core/test_ledger_mutants.py",
    "tests/core/test_ledger_interrupts.py",
    "tests/core/test_ledger_walk.py",
)
# what takes long, and is the proof's to try there
LONG = (
    "tests/checkout/test_contract.py",
    "tests/core/test_permits.py",
    "tests/test_size.py",
    "tests/ext/test_sqlalchemy_resets.py",
    "tests/ext/test_sqlalchemy_suite.py",
)
# the many files of SQLAlchemy's own suite, twice on each server: with the newest SQLAlchemy alone
WIDE = "tests/ext/test_sqlalchemy_suite.py::test_all_that_use_a_pool_pass_as_with_queuepool"
# sqlite3 says so from Python 3.13 on, whenever the collector comes to what a test of dropped connections has left
QUIETLY = ("-W", "ignore:unclosed database:ResourceWarning")
PYTHONS = ((3, 10), (3, 11), (3, 12), (3, 13))
TOOLS = ("pytest>=8", "pytest-timeout>=2.3", "-e", ".")
# of which docs/sqlalchemy.md tells figures
MEASURED = ((3, 11), (3, 13))
ENGINES = ("tests/ext/test_sqlalchemy*.py", "tests/integrations/test_sqlalchemy_app.py")
HOSTS = ("alembic>=1.13", "Flask-SQLAlchemy>=3.1")
DRIVERS = ("psycopg2-binary>=2.9.9", "psycopg[binary]>=3.2.4", "PyMySQL>=1.1", "cryptography>=42")


@dataclass(frozen=True)
class Environment:
    name: str
    python: tuple[int, int]
    install: Sequence[str]
    tests: Sequence[str]


def environments(every: bool) -> Iterator[Environment]:
    """``every``: those between the oldest and the newest Python, too, and what takes long."""
    here, left_out = sys.version_info[:2], () if every else LONG
    install = ("SQLAlchemy>=2.0,<2.1", *HOSTS, *DRIVERS, *TOOLS)
    yield Environment("SQLAlchemy 2.0", here, install, (*chosen(ENGINES, left_out), "--deselect", WIDE))
    for version in PYTHONS if every else (PYTHONS[0], PYTHONS[-1]):
        if version != here:
            everything = every or version == PYTHONS[-1]
            tests = ("--db", "sqlite", *QUIETLY, *chosen(SHELL if everything else CORE, (*NOT_ON_ALL, *left_out)))
            yield Environment(f"CPython {version[0]}.{version[1]}", version, TOOLS, tests)


def measured() -> Iterator[Environment]:
    for version in MEASURED:
        if version != sys.version_info[:2]:
            install = ("SQLAlchemy>=2.0", "DBUtils>=3.1", *HOSTS, *DRIVERS, *TOOLS)
            tests = (*QUIETLY, *chosen(ENGINES, ("tests/ext/test_sqlalchemy_suite.py",)))
            yield Environment(f"CPython {version[0]}.{version[1]} with SQLAlchemy", version, install, tests)


def chosen(patterns: Sequence[str], left_out: Sequence[str]) -> list[str]:
    found = [str(path.relative_to(ROOT)) for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return [*(path for path in found if path not in left_out), *(f"--ignore={path}" for path in left_out)]


def candidates(version: tuple[int, int]) -> Iterator[Path]:
    """Where an interpreter of this version may be: this one, on PATH, or among pyenv's versions."""
    yield Path(sys.executable)
    name = f"python{version[0]}.{version[1]}"
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        yield Path(folder or ".") / name
    for pyenv in (os.environ.get("PYENV_ROOT"), str(Path.home() / ".pyenv")):
        if pyenv:
            yield from sorted(Path(pyenv, "versions").glob(f"{version[0]}.{version[1]}.*/bin/{name}"), reverse=True)


def find(version: tuple[int, int]) -> Path | None:
    """The first candidate that runs and is what its name says: a pyenv shim may exist and refuse to run."""
    ask = "import sys; print(sys.implementation.name, *sys.version_info[:2]); print(sys.executable)"
    for path in candidates(version):
        if not os.access(path, os.X_OK):
            continue
        told = subprocess.run([str(path), "-c", ask], capture_output=True, text=True)
        lines = told.stdout.splitlines()
        if told.returncode == 0 and lines[:1] == [f"cpython {version[0]} {version[1]}"]:
            return Path(lines[1])
    return None


def build(environment: Environment, interpreter: Path) -> Path:
    """Its virtual environment, built again when the interpreter, pyproject.toml or what it installs has changed."""
    folder = ROOT / ".venv" / "elsewhere" / environment.name.replace(" ", "-")
    stamp = folder / "built-from"
    recipe = f"{interpreter}\n{environment.install}\n{(ROOT / 'pyproject.toml').read_text()}"
    if not stamp.exists() or stamp.read_text() != recipe:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-qq", "install"]
        subprocess.run([*pip, *environment.install], check=True, cwd=ROOT)
        stamp.write_text(recipe)
    return folder / "bin" / "python"


def run(environment: Environment, options: Sequence[str]) -> tuple[bool, str]:
    """Did it pass, and what is there to say of it? One line, or if it failed all that pytest said."""
    name = environment.name
    interpreter = find(environment.python)
    if interpreter is None:
        return True, f"{name}: not found"
    try:
        python = build(environment, interpreter)
    except subprocess.CalledProcessError as error:
        return False, f"{name} ({interpreter}): its environment could not be built: {error}"
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *environment.tests, *options]
    tested = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    *details, last = tested.stdout.rstrip().splitlines() or ["no output"]
    last = f"{name}: {last.strip('= ')}"
    return tested.returncode == 0, "\n".join([*details, last] if tested.returncode else [last])


def measure(environment: Environment, options: Sequence[str]) -> bool:
    interpreter = find(environment.python)
    if interpreter is None:
        print(f"{environment.name}: not found, and so not measured")
        return True
    passed, told = run(environment, options)
    print(told, flush=True)
    check = [str(build(environment, interpreter)), "-m", "tests.bench", "--check"] if passed else []
    return passed and subprocess.run(check, cwd=ROOT).returncode == 0


def main(options: Sequence[str]) -> int:
    if options[:1] == ["--measure"]:
        outcomes = [measure(environment, options[1:]) for environment in measured()]
        return 0 if all(outcomes) else 1
    good = True
    every = "-m" in options  # by which the proof asks for every test
    with ThreadPoolExecutor(4 if every else 2) as threads:  # some of them mostly compute, and one mostly waits
        everywhere = environments(every)
        for passed, told in threads.map(lambda environment: run(environment, options), everywhere):
            print(told, flush=True)
            good = good and passed
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
