"""Do core and shell pass their tests on every other CPython of this machine?

Each version from 3.10 to 3.13 that is found, and is not the one running this, gets a small virtual environment of its
own under .venv/pythons with pytest and the package, no driver; one line is printed for each. Databases that need a
driver are left out by `--db sqlite`; tests of drivers, hosts and servers live elsewhere than in PATHS.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ((3, 10), (3, 11), (3, 12), (3, 13))
PATHS = ("tests/core", "tests/checkout", "tests/test_*.py")
# what needs a driver in most of its tests; and what only computes, the same on all of them, and takes long
LEFT_OUT = (
    "tests/test_servers.py",
    "tests/test_bench.py",
    "tests/test_server_pooler.py",
    "tests/test_session_options.py",
    "tests/core/test_ledger_mutants.py",
    "tests/core/test_ledger_interrupts.py",
    "tests/core/test_ledger_walk.py",
)
# sqlite3 says so from Python 3.13 on, whenever the collector comes to what a test of dropped connections has left
QUIETLY = ("-W", "ignore:unclosed database:ResourceWarning")
INSTALL = ("pytest>=8", "pytest-timeout>=2.3", "-e", ".")


def candidates(version: tuple[int, int]) -> Iterator[Path]:
    """Where an interpreter of this version may be: on PATH, or among pyenv's versions."""
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


def environment(version: tuple[int, int], interpreter: Path) -> Path:
    """This version's virtual environment, built again when interpreter, pyproject.toml or INSTALL change."""
    folder = ROOT / ".venv" / "pythons" / f"{version[0]}.{version[1]}"
    stamp = folder / "built-from"
    recipe = f"{interpreter}\n{INSTALL}\n{(ROOT / 'pyproject.toml').read_text()}"
    if not stamp.exists() or stamp.read_text() != recipe:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-qq", "install", *INSTALL]
        subprocess.run(pip, check=True, cwd=ROOT)
        stamp.write_text(recipe)
    return folder / "bin" / "python"


def chosen() -> list[str]:
    found = [str(path.relative_to(ROOT)) for pattern in PATHS for path in sorted(ROOT.glob(pattern))]
    found = [path for path in found if path not in LEFT_OUT]
    return [*found, *(f"--ignore={path}" for path in LEFT_OUT)]


def run(version: tuple[int, int], paths: list[str]) -> bool:
    label = f"CPython {version[0]}.{version[1]}"
    interpreter = find(version)
    if interpreter is None:
        print(f"{label}: not found", flush=True)
        return True
    try:
        python = environment(version, interpreter)
    except subprocess.CalledProcessError as error:
        print(f"{label} ({interpreter}): its environment could not be built: {error}", flush=True)
        return False
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--db", "sqlite", *QUIETLY, *paths]
    tested = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = tested.stdout.rstrip().splitlines() or ["no output"]
    if tested.returncode:
        print(*lines[:-1], sep="\n")
    print(f"{label}: {lines[-1].strip('= ')}", flush=True)
    return tested.returncode == 0


def main() -> int:
    paths = chosen()
    results = [run(version, paths) for version in VERSIONS if version != sys.version_info[:2]]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
