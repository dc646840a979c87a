"""Builds a release into ``dist`` (``python .ci/release.py PIP_AUDIT``).

Audits the locked dependencies, builds the packages of the server and of the client libraries, and writes
RELEASE_NOTES.md: the version's section of CHANGELOG.md, the packages, and the result of the audit. An audit without a
complete answer stops the release, unless ALLOW_UNAUDITED has a reason; the reason then stands in the notes.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from audit import audit_locks
from client_packages import PackageError, build_client_packages, check_versions

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
}


class ReleaseError(Exception):
    """There is no release; the message has the reason and the remedy."""


def main(pip_audit: str) -> int:
    try:
        version = _version()
        check_versions(version)
        changes = changes_of(version)
        audit = audit_note(pip_audit, os.environ.get("ALLOW_UNAUDITED", ""))
        _build(version)
    except (PackageError, ReleaseError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    notes = _DIST / "RELEASE_NOTES.md"
    packages = _packages_in(_DIST)
    notes.write_text(
        f"# Headrace {version}\n\n{changes}\n\n## Packages\n\n{packages}\n\n## Audit of the dependencies\n\n{audit}\n"
    )
    print(*sorted(path.relative_to(_ROOT) for path in _DIST.iterdir()), sep="\n")
    return 0


def _version() -> str:
    found = re.search(r'^VERSION: Final = "([^"]+)"', (_ROOT / "shared" / "version.py").read_text(), re.MULTILINE)
    if found is None:
        raise ReleaseError("shared/version.py: no version; set VERSION")
    return found[1]


def changes_of(version: str) -> str:
    """Return the version's section of the changelog, without its heading."""
    pattern = rf"^## \[?{re.escape(version)}\b.*\n((?:(?!## ).*\n?)*)"
    found = re.search(pattern, (_ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if found is None:
        raise ReleaseError(f"CHANGELOG.md: no section for {version}; move the entries under Unreleased into one")
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


def _packages_in(dist: Path) -> str:
    """Return a list of the files, with their hashes."""
    rows = []
    for name, what in _PACKAGES.items():
        for path in sorted(dist.glob(name)):
            rows.append(f"- `{path.name}`: {what}\n  SHA-256 `{hashlib.sha256(path.read_bytes()).hexdigest()}`")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
