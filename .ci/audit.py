"""Whether something is known against what the lock files name: python .ci/audit.py PIP_AUDIT LOCK...

Exits with 1 for a known vulnerability, and for a pip-audit that fails for a reason of its own. Where nobody answers
who would know, it says so and exits with 0: a network is no fault of the code.
"""

import json
import subprocess
import sys

_WITHIN_S = 60
_NOBODY = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ServiceError", "Max retries", "Could not connect")


def main(pip_audit: str, locks: list[str]) -> int:
    command = [pip_audit, "--format", "json", "--progress-spinner", "off", "--disable-pip", "--require-hashes"]
    command += [word for lock in locks for word in ("--requirement", lock)]
    try:
        told = subprocess.run(
            [*command, "--timeout", "10"], capture_output=True, text=True, timeout=_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        print("audit: no answer within a minute; nothing was audited")
        return 0
    try:
        dependencies = json.loads(told.stdout)["dependencies"]
    except (ValueError, KeyError):
        if any(word in told.stderr for word in _NOBODY):
            print("audit: the vulnerability service does not answer; nothing was audited")
            return 0
        print(told.stdout, told.stderr, sep="\n")
        return 1
    known = [(d["name"], d["version"], v["id"], v["fix_versions"]) for d in dependencies for v in d.get("vulns", ())]
    unknown = [d["name"] for d in dependencies if "skip_reason" in d]
    for name, version, identity, fixed_in in known:
        print(f"audit: {name} {version} has {identity}, fixed in {', '.join(fixed_in) or 'no version yet'}")
    asked = len(dependencies) - len(unknown)
    if not asked:
        print(f"audit: the vulnerability service knows none of the {len(unknown)} packages; nothing was audited")
    else:
        print(f"audit: {len(known)} known vulnerabilities in {asked} packages; {len(unknown)} others unknown there")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
