"""The command ``make audit`` fails for a known vulnerability, and not for an unreachable network. ``make release``
fails for both, unless there is a reason, which goes into the release notes."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.version import VERSION
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
        timeout=60,
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


# --- releases


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy everything that a release is built from, with a section for the version in the changelog."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name in (".ci", "headrace", "gateway", "workers", "shared", "clients"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for path in (*REPOSITORY.glob("requirements*.lock"), *map(REPOSITORY.joinpath, ("pyproject.toml", "README.md"))):
        shutil.copy(path, root)
    shutil.copy(REPOSITORY / "LICENSE", root)
    changelog = f"# Changelog\n\n## Unreleased\n\n## {VERSION} - 2030-01-02\n\n- One change.\n\n## 0.0.1\n\n- Old.\n"
    (root / "CHANGELOG.md").write_text(changelog)
    return root


def release(checkout: Path, answer: tuple[str, str], reason: str = "") -> subprocess.CompletedProcess[str]:
    command = pip_audit(checkout.parent, *answer)
    return run(checkout / ".ci" / "release.py", command, ALLOW_UNAUDITED=reason)


@pytest.mark.parametrize("reason", ["", "  "])
@pytest.mark.parametrize("answer", [("", UNREACHABLE), (report(SKIPPED), ""), (report(SOUND, SKIPPED), "")])
def test_an_audit_without_a_complete_answer_stops_a_release(
    checkout: Path, answer: tuple[str, str], reason: str
) -> None:
    refused = release(checkout, answer, reason)
    assert refused.returncode == 1
    assert "set ALLOW_UNAUDITED to a reason" in refused.stderr
    assert not (checkout / "dist").exists()


def test_no_reason_allows_a_known_vulnerability(checkout: Path) -> None:
    refused = release(checkout, (report(SOUND, FOUND), ""), "in a hurry")
    assert refused.returncode == 1
    assert "leaky 1.0 has PYSEC-1, fixed in 1.1" in refused.stderr
    assert not (checkout / "dist").exists()


def test_a_version_without_a_section_in_the_changelog_is_not_released(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- One change.\n")
    refused = release(checkout, (report(SOUND), ""))
    assert refused.returncode == 1
    assert f"CHANGELOG.md: no section for {VERSION}" in refused.stderr


@pytest.mark.parametrize(
    ("answer", "reason", "expected"),
    [
        ((report(SOUND), ""), "", "0 known vulnerabilities in 1 packages; 0 others unknown."),
        (("", UNREACHABLE), "the service\nis down", "Reason for the release: the service is down"),
    ],
)
def test_the_notes_have_the_changes_and_the_result_of_the_audit(
    checkout: Path, answer: tuple[str, str], reason: str, expected: str
) -> None:
    if importlib.util.find_spec("hatchling") is None:
        if os.environ.get("CI"):
            pytest.fail("hatchling is needed")
        pytest.skip("needs hatchling (requirements-build.lock)")
    released = release(checkout, answer, reason)
    assert released.returncode == 0, released.stderr
    assert sorted(path.name for path in (checkout / "dist").iterdir()) == [
        "RELEASE_NOTES.md",
        f"headrace-{VERSION}-py3-none-any.whl",
        f"headrace-{VERSION}.tar.gz",
    ]
    notes = (checkout / "dist" / "RELEASE_NOTES.md").read_text()
    assert notes.startswith(f"# Headrace {VERSION}\n\n- One change.\n\n## Audit")
    assert expected in notes
    assert ("Not fully audited" in notes) == bool(reason)


@pytest.mark.parametrize("name", sorted(path.name for path in REPOSITORY.glob("requirements*.lock")))
def test_every_locked_file_has_a_hash_and_no_origin(name: str) -> None:
    lock = (REPOSITORY / name).read_text()
    pinned = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert all("==" in line and line.endswith("\\") for line in pinned)
    assert "://" not in lock
