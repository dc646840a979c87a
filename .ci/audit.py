"""Checks the lock files for known vulnerabilities: python .ci/audit.py PIP_AUDIT LOCK...

Exits with 1 if there is a known vulnerability, or if pip-audit fails. If the vulnerability service cannot be reached,
it prints that and exits with 0: the network is not a fault of the code.
"""

import json
import subprocess
import sys

_TIMEOUT_S = 60
_UNREACHABLE = (
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "ServiceError",
    "Max retries",
    "Could not connect",
)


def main(pip_audit: str, locks: list[str]) -> int:
    command = [pip_audit, "--format", "json", "--progress-spinner", "off", "--disable-pip", "--require-hashes"]
    command += [word for lock in locks for word in ("--requirement", lock)]
    try:
        finished = subprocess.run(
            [*command, "--timeout", "10"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        print("audit: timeout: no answer within a minute; nothing was audited")
        return 0
    try:
        dependencies = json.loads(finished.stdout)["dependencies"]
    except (ValueError, KeyError):
        if any(word in finished.stderr for word in _UNREACHABLE):
            print("audit: vulnerability service unavailable; nothing was audited")
            return 0
        print(finished.stdout, finished.stderr, sep="\n")
        return 1
    vulnerabilities = [
        (d["name"], d["version"], v["id"], v["fix_versions"]) for d in dependencies for v in d.get("vulns", ())
    ]
    unknown = [d["name"] for d in dependencies if "skip_reason" in d]
    for name, version, identity, fixed_in in vulnerabilities:
        print(f"audit: {name} {version} has {identity}, fixed in {', '.join(fixed_in) or 'no version yet'}")
    audited = len(dependencies) - len(unknown)
    if not audited:
        print(f"audit: none of the {len(unknown)} packages is known to the service; nothing was audited")
    else:
        found = len(vulnerabilities)
        print(f"audit: {found} known vulnerabilities in {audited} packages; {len(unknown)} others unknown")
    return 1 if vulnerabilities else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
