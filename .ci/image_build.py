"""Builds the image of deploy/Dockerfile by buildah, without a container engine."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_CACHE: Final = _ROOT / ".venv" / "image"
_SUITE: Final = "bookworm"
_PYTHON: Final = "3.11"
_GLIBC: Final = 36  # of that suite: 2.36
#: Base image of Debian's packages, made here.
DEBIAN: Final = "localhost/headrace-debian-base"
#: The driver that works on every file system, inside a container too.
BUILDAH: Final = ("buildah", "--storage-driver", "vfs")


class ImageError(Exception):
    """The image cannot be built, or does not work; the message has the reason and the remedy."""


class Impossible(Exception):
    """The image cannot be tried on this machine; the message has the reason and the remedy."""


def build_image(tag: str, base: str, folder: Path, timestamp: str | None = None) -> None:
    """Build the image ``tag`` on ``base``. On ``DEBIAN`` the build needs no network: mmdebstrap makes that base, and
    the wheels are downloaded before, by the locks with hashes. ``folder`` is for temporary files. ``timestamp``: of
    all files and of the image, in seconds since 1970. Raises :class:`ImageError`, or :class:`Impossible`."""
    options = ["--isolation", "chroot", "--format", "oci", "--file", "deploy/Dockerfile", "--tag", tag]
    options += ["--build-arg", f"PYTHON_IMAGE={base}"]
    if timestamp is not None:
        options += ["--timestamp", timestamp]
    if base == DEBIAN:
        report("base image of Debian's packages")
        _import_base()
        report("wheels, by the locks")
        wheels = _wheels()
        (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        options += ["--pull-never", "--volume", f"{wheels}:/wheels:ro"]
        options += ["--volume", f"{folder / 'pip.conf'}:/etc/pip.conf:ro"]
    report("build of deploy/Dockerfile")
    call(*BUILDAH, "build", *options, ".")


def report(stage: str) -> None:
    """Print the stage that begins: some take minutes."""
    print(f"image: {stage} …", flush=True)


def configuration_of(tag: str) -> dict[str, Any]:
    """Return an image's configuration, with ``Cmd``, ``Env`` and ``User``."""
    config: dict[str, Any] = json.loads(call(*BUILDAH, "inspect", "--type", "image", tag))["OCIv1"]["config"]
    return config


def remove_images(*tags: str) -> None:
    """Remove the images that exist."""
    if shutil.which("buildah"):
        for tag in tags:
            subprocess.run([*BUILDAH, "rmi", "--force", tag], capture_output=True, check=False)


def _import_base() -> None:
    """Make the base image, once: the packages come over the network."""
    tar = _CACHE / f"{_SUITE}.tar"
    if not tar.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        part = tar.with_suffix(".part.tar")
        include = "--include=python3,python3-venv,ca-certificates"
        try:
            call("mmdebstrap", "--quiet", "--variant=minbase", include, _SUITE, str(part))
        except ImageError as error:
            raise Impossible(f"no base image; are Debian's packages reachable? {error}") from None
        part.rename(tar)
    container = call(*BUILDAH, "from", "scratch").strip()
    try:
        call(*BUILDAH, "add", "--quiet", container, str(tar), "/")
        call(*BUILDAH, "commit", "--quiet", container, DEBIAN)
    finally:
        call(*BUILDAH, "rm", container)


def _wheels() -> Path:
    """Download the wheels of the locks for the Python of the base image."""
    folder, text = _CACHE / "wheels", _CACHE / "download.lock"
    machine = os.uname().machine
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC, 4, -1)]
    platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
    for lock in ("requirements.lock", "requirements-build.lock"):
        # pip compares these with its own Python; one file more than needed does no harm.
        text.write_text(re.sub(r" ; python_full_version < '[^']+'", "", (_ROOT / lock).read_text()))
        call(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--dest", str(folder), "--python-version", _PYTHON, "--only-binary", ":all:"),
            *("--no-deps", "--require-hashes", "-r", str(text)),
            *(word for platform in platforms for word in ("--platform", platform)),
        )
    return folder


def call(*command: str) -> str:
    """Run a command in the checkout and return its output. Raises :class:`ImageError`."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT)
    if done.returncode:
        detail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ImageError(f"{' '.join(command[:4])} … failed:\n{detail}")
    return done.stdout
