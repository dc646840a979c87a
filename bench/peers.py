"""Installs the programs that Headrace is compared with: ``make bench-peers`` (or ``python -m bench.peers``).

Everything goes into throwaway folders under ``bench/.peers``. A peer that is installed in the pinned version is not
changed. LiteLLM needs 750 MB, smg and TensorZero 150 MB each; resumable-stream needs Node
20.6 or newer and npm.
"""

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_BENCH: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Peer:
    """Program to compare with. ``pins``: the installed versions, as text. ``source``: folder of our files for it."""

    name: str
    pins: str
    source: Path

    @property
    def folder(self) -> Path:
        return _BENCH / ".peers" / self.name

    @property
    def installed(self) -> bool:
        """Return whether the installation is complete, and of the pinned version."""
        return self._marker.is_file() and self._marker.read_text() == self.pins

    def installed_by(self, install: Callable[["Peer"], None]) -> None:
        """Install from scratch. The marker is written last, so that an incomplete installation does not count."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        install(self)
        self._marker.write_text(self.pins)

    @property
    def _marker(self) -> Path:
        return self.folder / "installed"


def _npm_pins(manifest: Path) -> str:
    dependencies: dict[str, str] = json.loads(manifest.read_text())["dependencies"]
    return " ".join(f"{name}@{version}" for name, version in dependencies.items())


_NODE_APP: Final = _BENCH / "targets" / "resumable_stream_app"
LITELLM: Final = Peer("litellm", "litellm[proxy]==1.106.2", _BENCH)
RESUMABLE_STREAM: Final = Peer("resumable-stream", _npm_pins(_NODE_APP / "package.json"), _NODE_APP)
SMG: Final = Peer("smg", "smg==1.13.0", _BENCH)
TENSORZERO: Final = Peer("tensorzero", "tensorzero==2026.6.0", _BENCH / "targets" / "tensorzero_app")
BY_TARGET: Final = {
    "litellm": LITELLM,
    "resumable_stream": RESUMABLE_STREAM,
    "smg": SMG,
    "tensorzero": TENSORZERO,
}
#: Packages of LiteLLM that determine its speed.
_OF_LITELLM: Final = frozenset({"litellm", "fastapi", "uvicorn", "uvloop", "aiohttp", "openai"})


def _install_with_pip(peer: Peer) -> None:
    venv.create(peer.folder, with_pip=True)
    python = str(peer.folder / "bin" / "python")
    options = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "pip", "install", *options, peer.pins], check=True)


def _versions_of_pip(peer: Peer) -> Iterator[str]:
    python = peer.folder / "bin" / "python"
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True)
    for package in json.loads(listed.stdout):
        if package["name"] == peer.name or (peer is LITELLM and package["name"] in _OF_LITELLM):
            yield f"{package['name']} {package['version']}"
    yield f"Python {sys.version.partition(' ')[0]}"


def _install_resumable_stream(peer: Peer) -> None:
    shutil.copy(peer.source / "package.json", peer.folder)
    options = ["--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(["npm", "install", *options], cwd=peer.folder, check=True)


def _resumable_stream_versions(peer: Peer) -> Iterator[str]:
    for manifest in sorted((peer.folder / "node_modules").glob("*/package.json")):
        package: dict[str, Any] = json.loads(manifest.read_text())
        yield f"{package['name']} {package['version']}"
    node = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True)
    yield f"Node {node.stdout.strip()}"


_INSTALLERS: Final = {
    LITELLM: (_install_with_pip, _versions_of_pip),
    RESUMABLE_STREAM: (_install_resumable_stream, _resumable_stream_versions),
    SMG: (_install_with_pip, _versions_of_pip),
    TENSORZERO: (_install_with_pip, _versions_of_pip),
}


def versions(peer: Peer) -> str:
    """Return the versions of an installed peer, and of the packages that determine its speed."""
    return ", ".join(_INSTALLERS[peer][1](peer))


def main() -> int:
    """Return the exit status: 1 if a peer could not be installed."""
    failed = False
    for peer, (install, _) in _INSTALLERS.items():
        try:
            if not peer.installed:
                print(f"{peer.name}: installing {peer.pins} …", flush=True)
                peer.installed_by(install)
            print(f"{peer.name}: {versions(peer)}", flush=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{peer.name}: {error}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
