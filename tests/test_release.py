"""The command ``make release`` builds, tries and signs all files of a release, and refuses to build half of one."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from shared.version import VERSION
from tests.system import REPOSITORY
from tests.test_audit import FOUND, SKIPPED, SOUND, UNREACHABLE, pip_audit, report, run

CYCLONEDX = "import json, pathlib, sys; pathlib.Path(sys.argv[-1]).write_text(json.dumps(sys.argv))"
PIPX = r"""
import os, pathlib, sys, zipfile
home = pathlib.Path(os.environ["PIPX_HOME"])
zipfile.ZipFile(sys.argv[-1]).extractall(home)
command = pathlib.Path(os.environ["PIPX_BIN_DIR"]) / "headrace"
command.parent.mkdir()
command.write_text(f"#!/bin/sh\nPYTHONPATH={home} exec {sys.executable} -m headrace \"$@\"")
command.chmod(0o755)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy everything that a release is built from, with a section for the version in the changelog."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name in (
        ".ci",
        "headrace",
        "gateway",
        "workers",
        "shared",
        "clients",
        "deploy",
        "conformance",
        "tests/cases",
    ):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for path in (*REPOSITORY.glob("requirements*.lock"), *map(REPOSITORY.joinpath, ("pyproject.toml", "README.md"))):
        shutil.copy(path, root)
    shutil.copy(REPOSITORY / "LICENSE", root)
    shutil.copy(REPOSITORY / "release-signers", root)
    packages = Path("clients", "javascript", "node_modules")  # of which TypeScript is needed
    (root / packages).symlink_to(REPOSITORY / packages)
    changelog = f"# Changelog\n\n## {VERSION} — 2030-01-02\n\n- One change.\n\n## 0.0.1\n\n- Old.\n"
    (root / "CHANGELOG.md").write_text(changelog)
    return root


def release(
    checkout: Path, answer: tuple[str, str], reason: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    command, tools = pip_audit(checkout.parent, *answer), release_tools(checkout.parent / "tools")
    environment = {"ALLOW_UNAUDITED": reason, "RELEASE_BASE": "none", **environment}
    return run(checkout / ".ci" / "release.py", command, tools, **environment)


def release_tools(folder: Path) -> Path:
    """Return a folder with a cyclonedx-py that writes its arguments, and a pipx that unpacks a wheel and makes its
    command: the packages that it needs are those of this interpreter."""
    if folder.exists():
        return folder
    folder.mkdir()
    for name, script in (("cyclonedx-py", CYCLONEDX), ("pipx", PIPX)):
        (folder / name).write_text(f"#!{sys.executable}\n{script}")
        (folder / name).chmod(0o755)
    return folder


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


@pytest.mark.parametrize("heading", ["Unreleased", f"{VERSION} — unreleased", f"{VERSION}1 - 2030-01-02"])
def test_a_version_without_a_dated_section_in_the_changelog_is_not_released(checkout: Path, heading: str) -> None:
    (checkout / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n\n- One change.\n")
    refused = release(checkout, (report(SOUND), ""))
    assert refused.returncode == 1
    assert f"CHANGELOG.md: no heading '## {VERSION} — DATE'" in refused.stderr


@pytest.mark.timeout(700)
def test_one_command_makes_a_whole_signed_release(checkout: Path, tmp_path: Path) -> None:
    """The server's wheel runs away from its source tree, with its page; users can verify each file."""
    needs_hatchling()
    key = make_key(tmp_path)
    with (checkout / "release-signers").open("a") as signers:
        signers.write(f"release@headrace {' '.join(key.with_suffix('.pub').read_text().split()[:2])}\n")
    released = release(checkout, (report(SOUND), ""), RELEASE_KEY=str(key), SOURCE_DATE_EPOCH="1700000000")
    assert released.returncode == 0, released.stderr
    dist = checkout / "dist"
    packages = [
        f"headrace-{VERSION}-py3-none-any.whl",
        f"headrace-{VERSION}.cdx.json",
        f"headrace-{VERSION}.tar.gz",
        f"headrace-client-{VERSION}.tgz",
        f"headrace_client-{VERSION}-py3-none-any.whl",
        f"headrace_client-{VERSION}.tar.gz",
        f"headrace_conformance-{VERSION}-py3-none-any.whl",
        f"headrace_conformance-{VERSION}.tar.gz",
    ]
    assert sorted(path.name for path in dist.iterdir()) == [
        "RELEASE_NOTES.md", "SHA256SUMS", "SHA256SUMS.sig", *packages
    ]  # fmt: skip
    notes = (dist / "RELEASE_NOTES.md").read_text()
    assert notes.startswith(f"# Headrace {VERSION}\n\n- One change.\n\n## Packages\n\n")
    for name in packages:
        digest = hashlib.sha256((dist / name).read_bytes()).hexdigest()
        assert re.search(rf"^- `{re.escape(name)}`: .+\n  SHA-256 `{digest}`$", notes, re.MULTILINE)
    assert "0 known vulnerabilities in 1 packages; 0 others unknown." in notes
    assert "Not fully audited" not in notes
    assert "This release has no image" in notes
    assert verifies(checkout, notes)
    assert "requirements.lock" in json.loads((dist / packages[1]).read_text())
    assert set(files_of(dist / packages[0])) >= data_files()
    (dist / packages[0]).write_bytes(b"another wheel")
    assert not verifies(checkout, notes)
    hatch = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "again"))
    subprocess.run(hatch, cwd=checkout, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}, check=True)
    again = hashlib.sha256((tmp_path / "again" / packages[0]).read_bytes()).hexdigest()
    assert again in notes, "a second build has other bytes"


def make_key(folder: Path) -> Path:
    key = folder / "release-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


def verifies(checkout: Path, notes: str) -> bool:
    """Run the commands of the notes, as a user who has the repository's list of signers."""
    shutil.copy(checkout / "release-signers", checkout / "dist")
    commands = re.search(r"## Verify\n.*?```sh\n(.*?)```", notes, re.DOTALL)
    assert commands is not None
    done = subprocess.run(["bash", "-ec", commands[1]], cwd=checkout / "dist", capture_output=True, check=False)
    (checkout / "dist" / "release-signers").unlink()
    return done.returncode == 0


def files_of(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


def data_files() -> set[str]:
    """Return the files of the server that are no modules: page, scripts, schemas, markers of types."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "headrace", "gateway", "workers", "shared"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    found = {name for name in listed if not name.endswith(".py")}
    assert found >= {"gateway/page/index.html", "shared/broker/lua/append.lua"}
    return found


def test_a_key_that_users_do_not_know_signs_nothing(checkout: Path, tmp_path: Path) -> None:
    refused = release(checkout, (report(SOUND), ""), RELEASE_KEY=str(make_key(tmp_path)))
    assert refused.returncode == 1
    assert "release-signers: RELEASE_KEY is not in it; add the line release@headrace ssh-ed25519 " in refused.stderr
    assert not (checkout / "dist").exists()


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
        (
            "../conformance/headrace_conformance/__init__.py",
            f'__version__ = "{VERSION}"',
            "headrace_conformance/__init__.py: version 9.9.9; set",
        ),
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


@pytest.mark.timeout(1200)
@pytest.mark.skipif(
    "HEADRACE_NIGHTLY" not in os.environ, reason="HEADRACE_NIGHTLY=1 makes it: builds the image, as root"
)
def test_a_signed_release_has_an_image_that_answers(checkout: Path, tmp_path: Path) -> None:
    needs_hatchling()
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "image").symlink_to(REPOSITORY / ".venv" / "image")  # the downloaded packages
    (REPOSITORY / ".venv" / "image").mkdir(exist_ok=True)
    key = make_key(tmp_path)
    with (checkout / "release-signers").open("a") as signers:
        signers.write(f"release@headrace {' '.join(key.with_suffix('.pub').read_text().split()[:2])}\n")
    released = release(checkout, (report(SOUND), ""), RELEASE_KEY=str(key), RELEASE_BASE="debian")
    assert released.returncode == 0, released.stderr
    notes = (checkout / "dist" / "RELEASE_NOTES.md").read_text()
    name = f"headrace-{VERSION}.oci.tar"
    assert f"`{name}` is an OCI archive of the image, on the base `debian`." in notes
    assert name in (checkout / "dist" / "SHA256SUMS").read_text()
    assert verifies(checkout, notes)
