"""Checks the lock files for known vulnerabilities (``python .ci/audit.py PIP_AUDIT``).

Exits with 1 if there is a known vulnerability, or if pip-audit fails. If the vulnerability service gives no answer,
it prints that and exits with 0: the network is not a fault of the code. A release is stricter (.ci/release.py).
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).resolve().parent.parent
_TIMEOUT_S = 60
_UNREACHABLE = (
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "ServiceError",
    "Max retries",
    "Could not connect",
)


class Audit(NamedTuple):
    """Result of an audit. ``is_complete``: the service knew every package. ``lines`` end with a summary."""

    failed: bool
    is_complete: bool
    lines: list[str]


def main(pip_audit: str) -> int:
    audit = audit_locks(pip_audit)
    print(*(f"audit: {line}" for line in audit.lines), sep="\n")
    return 1 if audit.failed else 0


def audit_locks(pip_audit: str) -> Audit:
    """Audit every lock of the repository."""
    locks = sorted(_ROOT.glob("requirements*.lock"))
    command = [pip_audit, "--format", "json", "--progress-spinner", "off", "--disable-pip", "--require-hashes"]
    command += [word for lock in locks for word in ("--requirement", str(lock))]
    try:
        finished = subprocess.run(
            [*command, "--timeout", "10"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Audit(False, False, ["timeout: no answer within a minute; nothing was audited"])
    try:
        dependencies = json.loads(finished.stdout)["dependencies"]
    except (ValueError, KeyError):
        if any(word in finished.stderr for word in _UNREACHABLE):
            return Audit(False, False, ["vulnerability service unavailable; nothing was audited"])
        return Audit(True, False, [finished.stdout, finished.stderr, "pip-audit failed"])
    return _result(dependencies)


def _result(dependencies: list[dict]) -> Audit:
    vulnerabilities = [
        f"{package['name']} {package['version']} has {found['id']},"
        f" fixed in {', '.join(found['fix_versions']) or 'no version yet'}"
        for package in dependencies
        for found in package.get("vulns", ())
    ]
    unknown = sum("skip_reason" in package for package in dependencies)
    audited = len(dependencies) - unknown
    if audited:
        summary = f"{len(vulnerabilities)} known vulnerabilities in {audited} packages; {unknown} others unknown"
    else:
        summary = f"none of the {unknown} packages is known to the service; nothing was audited"
    return Audit(bool(vulnerabilities), bool(audited) and not unknown, [*vulnerabilities, summary])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
