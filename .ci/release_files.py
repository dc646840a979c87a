"""Files of a release beside its packages: bill of materials, image, checksums and their signature."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from image_build import BUILDAH, DEBIAN, ImageError, Impossible, build_image, call, remove_images
from image_trial import check_machine, try_image

_ROOT = Path(__file__).resolve().parent.parent
#: Public keys that may sign a release, one a line: `release@headrace ssh-ed25519 AAAA…`.
SIGNERS = _ROOT / "release-signers"
IDENTITY = "release@headrace"
NAMESPACE = "headrace-release"
SUMS = "SHA256SUMS"


class FileError(Exception):
    """A file of a release cannot be made; the message has the reason and the remedy."""


def write_bill_of_materials(path: Path, cyclonedx: Path) -> None:
    """Write a CycloneDX file with every locked dependency and its hashes. Raises :class:`FileError`."""
    command = (cyclonedx, "requirements", "requirements.lock", "--pyproject", "pyproject.toml")
    _run(*command, "--output-reproducible", "--validate", "--output-file", path)


def write_image(path: Path, version: str, base: str) -> str:
    """Build the image into an OCI archive, run it from there, and return the paragraph for the notes. ``base``: an
    image; "debian" for one of Debian's packages, made here; "none" for no image, as on a machine that cannot try it.
    Raises :class:`FileError` if the build fails, or the image does not work."""
    none = "This release has no image. Build it with deploy/Dockerfile."
    if base == "none":
        return none
    built, loaded = "localhost/headrace-release", f"localhost/headrace:{version}"
    try:
        check_machine()
        with tempfile.TemporaryDirectory(prefix="headrace-image-") as folder:
            source, date = DEBIAN if base == "debian" else base, os.environ.get("SOURCE_DATE_EPOCH", "0")
            build_image(built, source, Path(folder), date)
            call(*BUILDAH, "push", "--quiet", built, f"oci-archive:{path}:{loaded}")
            remove_images(built)
            call(*BUILDAH, "pull", "--quiet", f"oci-archive:{path}")
            try_image(loaded, Path(folder))
    except Impossible as error:
        print(f"release: NO IMAGE: {error}", file=sys.stderr)
        return f"{none} Reason: {error}"
    except ImageError as error:
        raise FileError(f"image: {error}") from error
    finally:
        remove_images(built, loaded, *([DEBIAN] if base == "debian" else []))
    return (
        f"`{path.name}` is an OCI archive of the image, on the base `{base}`. `podman load -i {path.name}` loads it."
    )


def write_sums(dist: Path) -> None:
    """Write the SHA-256 of each file, as `sha256sum --check` reads it."""
    lines = [f"{digest(path)}  {path.name}\n" for path in sorted(dist.iterdir())]
    (dist / SUMS).write_text("".join(lines))


def check_key(key: Path) -> None:
    """Raise :class:`FileError` unless users know the public part of ``key``."""
    public = " ".join(_run("ssh-keygen", "-y", "-f", key).split()[:2])
    if f"{IDENTITY} {public}" not in SIGNERS.read_text():
        raise FileError(f"{SIGNERS.name}: RELEASE_KEY is not in it; add the line {IDENTITY} {public} and commit it")


def sign_sums(dist: Path, key: Path) -> None:
    """Sign the checksums, and verify the signature as a user does. Raises :class:`FileError`."""
    sums = dist / SUMS
    _run("ssh-keygen", "-Y", "sign", "-f", key, "-n", NAMESPACE, sums)
    verify = ("ssh-keygen", "-Y", "verify", "-f", SIGNERS, "-I", IDENTITY, "-n", NAMESPACE, "-s", f"{sums}.sig")
    _run(*verify, stdin=sums.read_text())


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(*command: str | Path, stdin: str = "") -> str:
    # A key with a passphrase fails here, unless an agent has it.
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
    done = subprocess.run(
        command, cwd=_ROOT, env=environment, input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FileError(f"{Path(command[0]).name} {command[1]}: failed\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout
