"""The command ``make audit`` fails for a known vulnerability, and not for an unreachable network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import REPOSITORY

FOUND = {"name": "leaky", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
SOUND = {"name": "sound", "version": "2.0", "vulns": []}
SKIPPED = {"name": "unheard-of", "skip_reason": "Dependency not found"}
UNREACHABLE = "requests.exceptions.ConnectionError: Max retries exceeded"


def report(*dependencies: object) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def pip_audit(folder: Path, stdout: str, stderr: str = "") -> Path:
    """Write a program that answers like pip-audit if it is given every lock, and fails otherwise."""
    command = folder / "pip-audit"
    locks = sorted(path.name for path in REPOSITORY.glob("requirements*.lock"))
    command.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"given = sorted(os.path.basename(word) for word in sys.argv if word.endswith('.lock'))\n"
        f"sys.exit('ValueError: some locks are missing') if given != {locks!r} else None\n"
        f"sys.stdout.write({stdout!r})\nsys.stderr.write({stderr!r})\n"
    )
    command.chmod(0o755)
    return command


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1200 if "HEADRACE_NIGHTLY" in os.environ else 600,
        check=False,
    )


@pytest.mark.parametrize(
    ("stdout", "stderr", "code", "expected"),
    [
        (report(SOUND, FOUND), "", 1, "leaky 1.0 has PYSEC-1, fixed in 1.1"),
        (report(SOUND, FOUND, SKIPPED), "Max retries exceeded", 1, "leaky 1.0 has PYSEC-1"),
        (report(SOUND, SKIPPED), "", 0, "0 known vulnerabilities in 1 packages; 1 others"),
        (report(SKIPPED), "", 0, "nothing was audited"),
        ("", UNREACHABLE, 0, "nothing was audited"),
        ("", "ValueError: the lock cannot be read", 1, "the lock cannot be read"),
    ],
)
def test_a_vulnerability_fails_and_an_unreachable_network_does_not(
    tmp_path: Path, stdout: str, stderr: str, code: int, expected: str
) -> None:
    audit = run(REPOSITORY / ".ci" / "audit.py", pip_audit(tmp_path, stdout, stderr))
    assert audit.returncode == code
    assert expected in audit.stdout


@pytest.mark.parametrize("name", sorted(path.name for path in REPOSITORY.glob("requirements*.lock")))
def test_every_locked_file_has_a_hash_and_no_origin(name: str) -> None:
    lock = (REPOSITORY / name).read_text()
    pinned = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert all("==" in line and line.endswith("\\") for line in pinned)
    assert "://" not in lock
