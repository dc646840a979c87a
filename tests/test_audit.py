"""The command ``make audit`` fails for a known vulnerability, and not for an unreachable network. ``make release``
fails for both, unless there is a reason, which goes into the release notes."""

import hashlib
import importlib.util
import json
import os
import re
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
    packages = Path("clients", "javascript", "node_modules")  # of which TypeScript is needed
    (root / packages).symlink_to(REPOSITORY / packages)
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


def test_the_notes_have_the_changes_the_packages_and_the_result_of_the_audit(checkout: Path) -> None:
    needs_hatchling()
    released = release(checkout, (report(SOUND), ""))
    assert released.returncode == 0, released.stderr
    assert sorted(path.name for path in (checkout / "dist").iterdir()) == [
        "RELEASE_NOTES.md",
        f"headrace-{VERSION}-py3-none-any.whl",
        f"headrace-{VERSION}.tar.gz",
        f"headrace-client-{VERSION}.tgz",
        f"headrace_client-{VERSION}-py3-none-any.whl",
        f"headrace_client-{VERSION}.tar.gz",
    ]
    notes = (checkout / "dist" / "RELEASE_NOTES.md").read_text()
    assert notes.startswith(f"# Headrace {VERSION}\n\n- One change.\n\n## Packages\n\n")
    for path in (checkout / "dist").glob("headrace*"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert re.search(rf"^- `{re.escape(path.name)}`: .+\n  SHA-256 `{digest}`$", notes, re.MULTILINE)
    assert "0 known vulnerabilities in 1 packages; 0 others unknown." in notes
    assert "Not fully audited" not in notes


def test_the_reason_for_a_release_without_an_audit_is_in_the_notes(checkout: Path) -> None:
    command = pip_audit(checkout.parent, "", UNREACHABLE)
    note = f"from release import audit_note; print(audit_note({str(command)!r}, 'the service\\nis down'))"
    said = run("-c", note, PYTHONPATH=str(checkout / ".ci")).stdout
    assert said.startswith("**Not fully audited:**")
    assert "Reason for the release: the service is down" in said


@pytest.mark.parametrize(
    ("file", "before", "expected"),
    [
        ("javascript/package.json", f'"version": "{VERSION}"', "package.json: version 9.9.9; set"),
        ("python/headrace_client/__init__.py", f'__version__ = "{VERSION}"', "__init__.py: version 9.9.9; set"),
    ],
)
def test_a_client_library_of_another_version_is_not_released(
    checkout: Path, file: str, before: str, expected: str
) -> None:
    change(checkout / "clients" / file, before, before.replace(VERSION, "9.9.9"))
    refused = release(checkout, (report(SOUND), ""))
    assert refused.returncode == 1
    assert expected in refused.stderr
    assert not (checkout / "dist").exists()


@pytest.mark.parametrize(
    ("file", "before", "after", "expected"),
    [
        ("python/pyproject.toml", '"headrace_client"]', '"README.md"]', "headrace_client"),
        ("javascript/package.json", '["src", "types"]', '["src"]', "types/index.d.ts"),
        ("javascript/src/index.js", "./client.js", "./nowhere.js", "nowhere.js"),
    ],
    ids=["empty wheel", "no types", "broken module"],
)
def test_a_client_library_that_does_not_work_is_not_released(
    checkout: Path, file: str, before: str, after: str, expected: str
) -> None:
    needs_hatchling()
    change(checkout / "clients" / file, before, after)
    build = f"from client_packages import *; build_client_packages({VERSION!r}, Path({str(checkout / 'dist')!r}))"
    refused = run("-c", build, PYTHONPATH=str(checkout / ".ci"))
    assert refused.returncode == 1
    assert "PackageError" in refused.stderr
    assert expected in refused.stderr


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def needs_hatchling() -> None:
    if importlib.util.find_spec("hatchling") is None:
        if os.environ.get("CI"):
            pytest.fail("hatchling is needed")
        pytest.skip("needs hatchling (requirements-build.lock)")


@pytest.mark.parametrize("name", sorted(path.name for path in REPOSITORY.glob("requirements*.lock")))
def test_every_locked_file_has_a_hash_and_no_origin(name: str) -> None:
    lock = (REPOSITORY / name).read_text()
    pinned = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert all("==" in line and line.endswith("\\") for line in pinned)
    assert "://" not in lock
