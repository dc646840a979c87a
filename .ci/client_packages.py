"""Builds the packages of the client libraries and of the conformance kit, and tries each as its users get it.

A wheel is built from the source package, so that both have the same. It is installed into a new environment,
without the source tree; the npm package is installed by npm into an empty folder.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_PYTHON = _ROOT / "clients" / "python"
_JAVASCRIPT = _ROOT / "clients" / "javascript"
_KIT = _ROOT / "conformance"
_VERSIONS_OF_PYTHON = (_PYTHON / "headrace_client" / "__init__.py", _KIT / "headrace_conformance" / "__init__.py")
_HATCHLING = (sys.executable, "-m", "hatchling", "build")
_NPM_OPTIONS = ("--offline", "--no-audit", "--no-fund", "--silent")

_PYTHON_TRIAL = """\
import sys, headrace_client
assert headrace_client.__file__.startswith(sys.prefix), headrace_client.__file__
assert headrace_client.__version__ == sys.argv[1], headrace_client.__version__
headrace_client.Client("http://localhost:8000", key="k").close()
headrace_client.AsyncClient("http://localhost:8000")
assert callable(headrace_client.verify_webhook)
"""
_KIT_TRIAL = """\
import sys, headrace_conformance
from headrace_conformance.provider.recorded import recorded
assert headrace_conformance.__file__.startswith(sys.prefix), headrace_conformance.__file__
assert headrace_conformance.__version__ == sys.argv[1], headrace_conformance.__version__
assert recorded(), "recorded responses are missing"
"""
_JAVASCRIPT_TRIAL = """\
import { Headrace, verifyWebhook } from "@headrace/client";
new Headrace({ url: "http://localhost:8000", key: "k" }).attach("s1");
if (typeof verifyWebhook !== "function") throw new Error("verifyWebhook");
"""


class PackageError(Exception):
    """A package cannot be built, or does not work; the message has the reason and the remedy."""


def build_client_packages(version: str, dist: Path) -> None:
    """Build all packages into ``dist``, and try them. Raises :class:`PackageError`."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = _build_python("headrace-client", _PYTHON, dist, Path(folder))
        _try_wheel(wheel, _PYTHON_TRIAL, version, Path(folder))
        _build_javascript(dist)
        _try_tarball(next(dist.glob("headrace-client-*.tgz")), version, Path(folder) / "npm")


def build_conformance_kit(version: str, dist: Path) -> None:
    """Build the conformance kit into ``dist``, and try it. Raises :class:`PackageError`."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = _build_python("headrace-conformance", _KIT, dist, Path(folder))
        _try_wheel(wheel, _KIT_TRIAL, version, Path(folder))


def check_versions(version: str) -> None:
    """Raise :class:`PackageError` if a library or the kit has another version than the server."""
    named = {}
    for path in _VERSIONS_OF_PYTHON:
        own = re.search(r'^__version__ = "([^"]+)"', path.read_text(), re.MULTILINE)
        named[path] = own and own[1]
    for path in (_JAVASCRIPT / "package.json", _JAVASCRIPT / "package-lock.json"):
        named[path] = json.loads(path.read_text())["version"]
    for path, found in named.items():
        if found != version:
            raise PackageError(f"{path.relative_to(_ROOT)}: version {found}; set {version}, as in shared/version.py")


def _build_python(name: str, tree: Path, dist: Path, folder: Path) -> Path:
    """Build the source package of a tree, and the wheel from that. Return the wheel."""
    _run(name, *_HATCHLING, "-t", "sdist", "-d", str(dist), cwd=tree)
    source = next(dist.glob(f"{name.replace('-', '_')}-*.tar.gz"))
    with tarfile.open(source) as packed:
        packed.extractall(folder, filter="data")
    _run(name, *_HATCHLING, "-t", "wheel", "-d", str(dist), cwd=folder / source.name.removesuffix(".tar.gz"))
    return next(dist.glob(f"{name.replace('-', '_')}-*.whl"))


def _try_wheel(wheel: Path, trial: str, version: str, folder: Path) -> None:
    python = install(wheel, folder / "environment")
    _run(wheel.name, str(python), "-c", trial, version, cwd=folder)


def install(wheel: Path, environment: Path) -> Path:
    """Install a wheel into an environment that has nothing else but the libraries of this one, without its editable
    installs. Return its Python."""
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet")
    _run(wheel.name, *pip, "install", "--no-index", "--no-deps", str(wheel))
    own = sysconfig.get_path("purelib", vars={"base": str(environment)})
    httpx = importlib.util.find_spec("httpx2")
    (Path(own) / "libraries.pth").write_text(f"{Path(str(httpx and httpx.origin)).parent.parent}\n")
    return python


def _build_javascript(dist: Path) -> None:
    if not (_JAVASCRIPT / "node_modules" / "typescript").exists():
        raise PackageError("clients/javascript: TypeScript is missing; run make .venv/installed-node")
    shutil.rmtree(_JAVASCRIPT / "types", ignore_errors=True)
    _run("@headrace/client", "npm", "pack", "--pack-destination", str(dist), *_NPM_OPTIONS, cwd=_JAVASCRIPT)


def _try_tarball(tarball: Path, version: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "package.json").write_text('{"private": true}')
    (folder / "trial.mjs").write_text(_JAVASCRIPT_TRIAL)
    _run(tarball.name, "npm", "install", "--ignore-scripts", *_NPM_OPTIONS, str(tarball), cwd=folder)
    _run(tarball.name, "node", "trial.mjs", cwd=folder)
    package = folder / "node_modules" / "@headrace" / "client"
    description = json.loads((package / "package.json").read_text())
    named = [path for entry in description["exports"].values() for path in entry.values()]
    missing = [name for name in (*named, "README.md", "LICENSE") if not (package / name).is_file()]
    if missing or description["version"] != version:
        raise PackageError(
            f"{tarball.name}: wrong version, or without {', '.join(missing)}; see files in package.json"
        )


def _run(what: str, *command: str, cwd: Path = _ROOT) -> None:
    # npm and its scripts look for node on the PATH. This tree must not be importable.
    bin_path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = {**os.environ, "PATH": bin_path}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PackageError(f"{what}: {Path(command[0]).name} failed\n{done.stdout}{done.stderr}".rstrip())
