"""Builds a release into ``dist`` (``python .ci/release.py PIP_AUDIT TOOLS``).

Audits the locked dependencies, builds the packages of the server, of the client libraries and of the conformance kit,
tries them, and adds the bill of materials, the image and the checksums, signed with RELEASE_KEY. RELEASE_NOTES.md has
the version's section of CHANGELOG.md, the files, and the result of the audit. An audit without a complete answer
stops the release, unless ALLOW_UNAUDITED has a reason; the reason then stands in the notes. TOOLS is the folder of
cyclonedx-py and pipx.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from audit import audit_locks
from client_packages import PackageError, build_client_packages, build_conformance_kit, check_versions
from release_files import (
    IDENTITY,
    NAMESPACE,
    SIGNERS,
    SUMS,
    FileError,
    check_key,
    digest,
    sign_sums,
    write_bill_of_materials,
    write_image,
    write_sums,
)
from release_trial import TrialError, try_server

_ROOT = Path(__file__).resolve().parent.parent
_DIST = _ROOT / "dist"
_BUILD = (sys.executable, "-m", "hatchling", "build", "--directory", str(_DIST))

#: Files of a release, by pattern.
_PACKAGES = {
    "headrace-[0-9]*.whl": "the server and the command line",
    "headrace-[0-9]*.tar.gz": "their source",
    "headrace_client-*.whl": "the client library for Python",
    "headrace_client-*.tar.gz": "its source",
    "headrace-client-*.tgz": "the client library for JavaScript, @headrace/client",
    "headrace_conformance-*.whl": "the conformance kit for resumable streams of any server",
    "headrace_conformance-*.tar.gz": "its source",
    "headrace-*.cdx.json": "bill of materials of the server (CycloneDX), with the hashes of all dependencies",
    "headrace-*.oci.tar": "the image of gateways and workers",
}
#: Base of the image, unless RELEASE_BASE names another one, or is "debian" or "none" (see `write_image`).
_BASE = re.compile(r"^PYTHON_IMAGE=(\S+)$", re.MULTILINE)


class ReleaseError(Exception):
    """There is no release; the message has the reason and the remedy."""


def main(pip_audit: str, tools: str) -> int:
    try:
        version = _version()
        check_versions(version)
        changes = changes_of(version)
        key = _key()
        audit = audit_note(pip_audit, os.environ.get("ALLOW_UNAUDITED", ""))
        os.environ.setdefault("SOURCE_DATE_EPOCH", _commit_time())  # so that a second build has the same bytes
        _build(version)
        image = _add_files(version, Path(tools))
        notes = {"Packages": _packages_in(_DIST), "Image": image, "Verify": _verification(key)}
        _write_notes(f"# Headrace {version}\n\n{changes}\n", notes | {"Audit of the dependencies": audit})
        write_sums(_DIST)
        if key is not None:
            sign_sums(_DIST, key)
    except (FileError, PackageError, ReleaseError, TrialError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(*sorted(path.relative_to(_ROOT) for path in _DIST.iterdir()), sep="\n")
    return 0


def _key() -> Path | None:
    """Return the file of the key that signs; None without one."""
    if not (named := os.environ.get("RELEASE_KEY")):
        return None
    key = Path(named).expanduser().resolve()
    check_key(key)
    return key


def _commit_time() -> str:
    """Return the time of the commit, in seconds; outside a clone, that of the changelog."""
    command = ("git", "log", "-1", "--format=%ct")
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or str(int((_ROOT / "CHANGELOG.md").stat().st_mtime))


def _add_files(version: str, tools: Path) -> str:
    """Try the server, add bill of materials and image, and return the paragraph about the image."""
    try_server(next(_DIST.glob("headrace-[0-9]*.whl")), tools / "pipx", version)
    write_bill_of_materials(_DIST / f"headrace-{version}.cdx.json", tools / "cyclonedx-py")
    return write_image(_DIST / f"headrace-{version}.oci.tar", version, _base())


def _base() -> str:
    if named := os.environ.get("RELEASE_BASE"):
        return named
    found = _BASE.search((_ROOT / "deploy" / "images.env").read_text())
    if found is None:
        raise ReleaseError("deploy/images.env: no PYTHON_IMAGE; set it, or RELEASE_BASE")
    return found[1]


def _verification(key: Path | None) -> str:
    """Return the paragraph with the commands that check the files."""
    check = f"sha256sum --check {SUMS}"
    if key is None:
        return f"**Not signed.** `{check}` only finds damaged files."
    verify = f"ssh-keygen -Y verify -f {SIGNERS.name} -I {IDENTITY} -n {NAMESPACE} -s {SUMS}.sig < {SUMS}"
    return f"With `{SIGNERS.name}` of the repository:\n\n```sh\n{verify}\n{check}\n```"


def _write_notes(head: str, sections: dict[str, str]) -> None:
    body = "".join(f"\n## {name}\n\n{text}\n" for name, text in sections.items())
    (_DIST / "RELEASE_NOTES.md").write_text(head + body)


def _version() -> str:
    found = re.search(r'^VERSION: Final = "([^"]+)"', (_ROOT / "shared" / "version.py").read_text(), re.MULTILINE)
    if found is None:
        raise ReleaseError("shared/version.py: no version; set VERSION")
    return found[1]


def changes_of(version: str) -> str:
    """Return the version's section of the changelog, without its heading."""
    pattern = rf"^## {re.escape(version)} [-—] \d{{4}}-\d\d-\d\d\n((?:(?!## ).*\n?)*)"
    found = re.search(pattern, (_ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if found is None:
        raise ReleaseError(f"CHANGELOG.md: no heading '## {version} — DATE'; give the version's section its date")
    return found[1].strip()


def audit_note(pip_audit: str, reason: str) -> str:
    """Audit, and return the paragraph for the notes."""
    audit = audit_locks(pip_audit)
    *details, summary = audit.lines
    if audit.failed:
        raise ReleaseError("\n".join(("audit failed; upgrade the packages (make lock)", *details, summary)))
    if audit.is_complete:
        return f"{summary[:1].upper()}{summary[1:]}."
    if not (reason := " ".join(reason.split())):
        raise ReleaseError(f"audit incomplete: {summary}; repeat it later, or set ALLOW_UNAUDITED to a reason")
    return f"**Not fully audited:** {summary}. Reason for the release: {reason}"


def _build(version: str) -> None:
    shutil.rmtree(_DIST, ignore_errors=True)
    if subprocess.run(_BUILD, cwd=_ROOT, check=False).returncode:
        raise ReleaseError("build failed; see its output above")
    build_client_packages(version, _DIST)
    build_conformance_kit(version, _DIST)


def _packages_in(dist: Path) -> str:
    """Return a list of the files, with their hashes."""
    rows = []
    for name, what in _PACKAGES.items():
        for path in sorted(dist.glob(name)):
            rows.append(f"- `{path.name}`: {what}\n  SHA-256 `{digest(path)}`")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
