"""Source tree of the release before this one, whose processes work beside those of this tree during an upgrade."""

import os
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SOURCE_TREE = Path(__file__).parent.parent
#: Release 0.2.0. A release sets the commit of the one before it (CONTRIBUTING.md): a tag may be missing in a clone.
PREVIOUS_VERSION = "0.2.0"
PREVIOUS_COMMIT = "1bb3504563bf3140b037c92118327e46d8b940d4"
#: Environment with the dependencies of the previous release, needed only if they differ from those of this tree.
ENVIRONMENT = Path(sys.prefix) / "previous"


class NoPreviousRelease(Exception):
    """The previous release cannot be run; the message has the remedy."""


def unpack_previous_release(folder: Path) -> Path:
    """Write the source tree of the previous release into ``folder``, and return it."""
    tree = folder / f"headrace-{PREVIOUS_VERSION}"
    tree.mkdir(parents=True)
    archive = tree.with_suffix(".tar")
    # In a container the clone may belong to another user than root.
    command = ["git", "-c", "safe.directory=*", "archive", "--format=tar", f"--output={archive}", PREVIOUS_COMMIT]
    done = subprocess.run(command, cwd=SOURCE_TREE, capture_output=True, text=True, check=False)
    if done.returncode:  # a shallow clone
        fetch = ["git", "-c", "safe.directory=*", "fetch", "--quiet", "--depth=1", "origin", PREVIOUS_COMMIT]
        subprocess.run(fetch, cwd=SOURCE_TREE, capture_output=True, check=False)
        done = subprocess.run(command, cwd=SOURCE_TREE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoPreviousRelease(
            f"commit {PREVIOUS_COMMIT} (release {PREVIOUS_VERSION}): git archive failed: {done.stderr.strip()}; "
            "run git fetch --unshallow, or git fetch origin with that commit"
        )
    subprocess.run(["tar", "-xf", archive, "-C", tree], check=True)
    archive.unlink()
    return tree


def python_of(tree: Path) -> str:
    """Return the interpreter whose packages a source tree was locked with."""
    if tree == SOURCE_TREE or not (others := _other_packages(tree / "requirements.lock")):
        return sys.executable
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise NoPreviousRelease(
            f"release {PREVIOUS_VERSION} has other dependencies ({', '.join(others)}): run make previous"
        )
    return str(python)


def path_of(tree: Path) -> dict[str, str]:
    """Return the environment variables with which Python imports a source tree, before an installed one."""
    inherited = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join([str(tree), str(tree / "clients" / "python"), *filter(None, [inherited])])}


@cache
def _other_packages(lock: Path) -> list[str]:
    """Return the locked packages that this interpreter lacks or has in another version."""
    lines = (line for line in lock.read_text().splitlines() if "==" in line and not line.startswith((" ", "#")))
    return [line.split()[0] for line in lines if not _has(line)]


def _has(line: str) -> bool:
    name, _, locked = line.split(maxsplit=1)[0].partition("==")
    try:
        return version(name) == locked
    except PackageNotFoundError:
        return ";" in line  # for other platforms only


def main() -> None:
    """Build the environment of the previous release, if its dependencies differ."""
    with tempfile.TemporaryDirectory() as folder:
        lock = unpack_previous_release(Path(folder)) / "requirements.lock"
        if not _other_packages(lock):
            print(f"release {PREVIOUS_VERSION} has the same dependencies: nothing to install")
            return
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        pip = (ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "--require-hashes", "-r", lock], check=True)


if __name__ == "__main__":
    main()
