"""Base images are named in one file, pinned by ``make pin-images``, and filled from locks with hashes only."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system import REPOSITORY

IMAGES = REPOSITORY / "deploy" / "images.env"
DOCKERFILE = (REPOSITORY / "deploy" / "Dockerfile").read_text()
#: Every file that may name an image.
USERS = (
    *("deploy/Dockerfile", "docker-compose.yml", "deploy/compose/*.yml", "deploy/k8s/**/*.yaml"),
    ".github/workflows/*.yml",
)
#: Built from deploy/Dockerfile.
OWN_IMAGE = "headrace"


def images(text: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([A-Z_]+_IMAGE)=(\S+)$", text))


def users(root: Path) -> list[Path]:
    return [path for pattern in USERS for path in sorted(root.glob(pattern))]


# --- names in one file


def test_every_image_is_a_copy_of_a_line_of_the_one_file() -> None:
    named = images(IMAGES.read_text())
    copies = 0
    for path in users(REPOSITORY):
        for line in path.read_text().splitlines():
            for argument, image in re.findall(r"^ARG (\w+_IMAGE)=(\S*)", line):
                assert image == named[argument], path
                copies += 1
            for used in re.findall(r"^\s*(?:- )?image: (.+)$", line):
                variable = re.fullmatch(r"\$\{(\w+):-(\S+)\}|(\S+) +# (\w+)", used)
                if used == OWN_IMAGE:
                    continue
                assert variable is not None, (path, line)
                name, image = variable.group(1, 2) if variable[1] else variable.group(4, 3)
                assert image == named[name], (path, line)
                copies += 1
    assert copies >= len(named)


def test_the_dockerfile_begins_only_from_arguments_and_own_stages() -> None:
    sources = re.findall(r"(?m)^FROM (\S+)(?: AS (\w+))?$", DOCKERFILE)
    stages = {stage for _, stage in sources if stage}
    arguments = re.findall(r"(?m)^ARG (\w+_IMAGE)=", DOCKERFILE)
    assert sources
    assert [source for source, _ in sources if source not in stages | {f"${{{name}}}" for name in arguments}] == []


# --- contents from locks


def installs() -> list[str]:
    """Return every pip command of the Dockerfile."""
    steps = re.findall(r"(?m)^RUN (.*)$", re.sub(r"\\\n\s*", "", DOCKERFILE))
    return [command.strip() for step in steps for command in step.split("&&") if re.search(r"\bpip\b", command)]


def test_the_image_gets_only_what_its_locks_have() -> None:
    commands = [command for command in installs() if re.search(r"\b(install|wheel|download)\b", command)]
    assert commands
    for command in commands:
        locked = "--require-hashes" in command and "--only-binary :all:" in command
        assert locked or ("--no-index" in command and "--no-deps" in command), command
        assert " wheel " not in command or "--no-build-isolation" in command, command


def test_the_locks_reach_the_build() -> None:
    default = re.findall(r"(?m)^ARG LOCK=(\S+)$", DOCKERFILE)
    named = {lock for command in installs() for lock in re.findall(r"[\w-]+\.lock", command)}
    copied = {lock for line in re.findall(r"(?m)^COPY (.*)$", DOCKERFILE) for lock in re.findall(r"\S+\.lock", line)}
    assert {*default, *named, "requirements-otel.lock"} == copied
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for lock in copied:
        assert (REPOSITORY / lock).is_file()
        assert any(fnmatch(lock, line[1:]) for line in ignored if line.startswith("!")), lock


def test_the_locks_agree_on_every_version() -> None:
    seen: dict[str, str] = {}
    for path in sorted(REPOSITORY.glob("requirements*.lock")):
        for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", path.read_text()):
            assert seen.setdefault(name, version) == version, (path.name, name)


# --- digests


class Registry(BaseHTTPRequestHandler):
    """A registry of the v2 API that gives anonymous tokens."""

    manifests: dict[str, bytes]
    digest: str | None = None

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/token":
            return self._send(200, f'{{"token": "for {query}"}}'.encode())
        name = path.removeprefix("/v2/").replace("/manifests/", ":")
        repository = name.rpartition(":")[0]
        scope = f"repository:{repository}:pull"
        expected = f"Bearer for service=here&scope={scope.replace(':', '%3A').replace('/', '%2F')}"
        if self.headers["Authorization"] != expected:
            realm = f"http://{self.headers['Host']}/token"
            return self._send(401, b"", f'Bearer realm="{realm}",service="here",scope="{scope}"')
        if name not in self.manifests or "image.index" not in self.headers["Accept"]:
            return self._send(404, b"")
        return self._send(200, self.manifests[name])

    def _send(self, status: int, body: bytes, challenge: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        if self.digest:
            self.send_header("Docker-Content-Digest", self.digest)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[tuple[str, type[Registry]]]:
    handler = type("OwnRegistry", (Registry,), {"manifests": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
        server.shutdown()
        thread.join()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the files that have to do with images."""
    for name in (".ci", ".github", "deploy"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(REPOSITORY / "docker-compose.yml", tmp_path)
    return tmp_path


def pin(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(checkout / ".ci" / "pin_images.py"), *arguments],
        env={name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_digest_of_each_tag_is_written_wherever_the_image_is_used(
    checkout: Path, registry: tuple[str, type[Registry]]
) -> None:
    url, handler = registry
    tags = {image.partition("@")[0] for image in images(IMAGES.read_text()).values()}
    handler.manifests = {(tag if "/" in tag else f"library/{tag}"): f"index of {tag}".encode() for tag in tags}
    assert pin(checkout, url).returncode == 0
    expected = {tag: f"{tag}@sha256:{hashlib.sha256(f'index of {tag}'.encode()).hexdigest()}" for tag in tags}
    assert set(images((checkout / "deploy" / "images.env").read_text()).values()) == set(expected.values())
    everything = "\n".join(path.read_text() for path in users(checkout))
    for tag, pinned in expected.items():
        assert pinned in everything
        assert not re.search(rf"(?<![\w/]){re.escape(tag)}(?![\w@.-])", everything), tag
    # A tag that has moved gets its new digest.
    handler.manifests["library/nginx:1.28"] = b"moved"
    assert pin(checkout, url).returncode == 0
    moved = f"nginx:1.28@sha256:{hashlib.sha256(b'moved').hexdigest()}"
    assert images((checkout / "deploy" / "images.env").read_text())["NGINX_IMAGE"] == moved
    assert f"${{NGINX_IMAGE:-{moved}}}" in (checkout / "deploy" / "compose" / "production.yml").read_text()


def test_an_image_without_an_answer_keeps_its_line(checkout: Path, registry: tuple[str, type[Registry]]) -> None:
    url, handler = registry
    handler.manifests = {"valkey/valkey:8": b"index"}
    before = images((checkout / "deploy" / "images.env").read_text())
    run = pin(checkout, url)
    assert run.returncode == 0
    after = images((checkout / "deploy" / "images.env").read_text())
    assert {name for name in before if before[name] != after[name]} == {"VALKEY_IMAGE"}
    assert f"NGINX_IMAGE: no digest for nginx:1.28: {url} answered 404" in run.stderr


def test_a_name_with_a_host_is_asked_for_at_that_host(checkout: Path, registry: tuple[str, type[Registry]]) -> None:
    url, handler = registry
    handler.manifests = {"own/valkey:8": b"index"}
    host = url.removeprefix("http://")
    file = checkout / "deploy" / "images.env"
    file.write_text(f"VALKEY_IMAGE={host}/own/valkey:8\n")
    run = pin(checkout)
    assert run.returncode == 0, run.stderr
    assert file.read_text() == f"VALKEY_IMAGE={host}/own/valkey:8@sha256:{hashlib.sha256(b'index').hexdigest()}\n"


@pytest.mark.parametrize("case", ["no registry named", "no answer", "another digest"])
def test_without_any_digest_it_fails_and_changes_nothing(
    checkout: Path, registry: tuple[str, type[Registry]], case: str
) -> None:
    url, handler = registry
    handler.manifests = {"valkey/valkey:8": b"index"}
    arguments, expected = {
        "no registry named": ([], "set REGISTRY"),
        "no answer": ([f"http://127.0.0.1:{free_port()}"], "did not answer"),
        "another digest": ([url], "do not use this registry"),
    }[case]
    handler.digest = "sha256:" + "0" * 64 if case == "another digest" else None
    before = {path: path.read_text() for path in (checkout / "deploy" / "images.env", *users(checkout))}
    run = pin(checkout, *arguments)
    assert run.returncode == 1
    assert expected in run.stderr
    assert {path: path.read_text() for path in before} == before
