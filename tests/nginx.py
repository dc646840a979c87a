"""The real nginx with the real ``deploy/nginx``. Only addresses and the folders of logs and temporary files are
changed."""

import asyncio
import json
import os
import pwd
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.ports import free_port
from tests.system import REPOSITORY

CONFIG: Final = REPOSITORY / "deploy" / "nginx"
PROGRAM: Final = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
_OPENSSL: Final = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
_SUBJECT: Final = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")


def need_nginx() -> None:
    """Skip the test if nginx or openssl is missing; in CI, fail it."""
    if PROGRAM is not None and shutil.which("openssl"):
        return
    reason = "needs nginx and openssl; apt-get install nginx openssl"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Nginx:
    """nginx in front of ``gateways``: ``server`` lines of its upstream, or ports of gateways on this machine.
    ``changes``: replacements in ``headrace.conf``."""

    def __init__(self, gateways: Sequence[int | str], changes: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.clear_port = free_port()
        self.url = f"https://localhost:{self.port}"
        self._gateways = gateways
        self._changes = changes or {}
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        await asyncio.to_thread(self._start)
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def tls(self) -> ssl.SSLContext:
        """Return a context that trusts this server's certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))

    @property
    def certificate(self) -> Path:
        return self.folder / "headrace.d" / "certificate.pem"

    @property
    def logs(self) -> str:
        """Return the content of all logs."""
        return "".join(path.read_text(errors="replace") for path in (self.folder / "log").iterdir())

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of the access log. nginx writes a line when a response ends."""
        path = self.folder / "log" / "access.log"
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    def _start(self) -> None:
        # Not below pytest's folder, which only its owner may enter: nginx runs as an unprivileged user.
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-nginx-"))
        self._lay_out()
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        command = [str(PROGRAM), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-e", "stderr"]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False, **user)
        assert tested.returncode == 0, tested.stderr
        assert "[warn]" not in tested.stderr, tested.stderr
        with (self.folder / "log" / "stderr.log").open("ab") as log:
            self._process = subprocess.Popen([*command, "-g", "daemon off;"], stdout=log, stderr=log, **user)

    def _lay_out(self) -> None:
        shutil.copytree(CONFIG, self.folder, dirs_exist_ok=True)
        (self.folder / "log").mkdir()
        gateways = self.folder / "headrace.d" / "gateways.conf"
        like = next(line for line in gateways.read_text().splitlines() if line.startswith("server "))
        lines = [
            g if isinstance(g, str) else like.replace("127.0.0.1:8000", f"127.0.0.1:{g}") for g in self._gateways
        ]
        gateways.write_text("\n".join(lines))
        self._replace("nginx.conf", {"/tmp/": f"{self.folder}/", "/var/log/nginx/": f"{self.folder}/log/"})
        addresses = {
            "listen 80;": f"listen 127.0.0.1:{self.clear_port};",
            "listen [::]:80;": "",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{self.port} ssl http2;",
            "listen [::]:443 ssl http2;": "",
        }
        changes = {**addresses, "/var/log/nginx/": f"{self.folder}/log/", **self._changes}
        self._replace("headrace.conf", changes)
        key = self.folder / "headrace.d" / "key.pem"
        made = ("-nodes", "-days", "2", *_SUBJECT, "-keyout", str(key), "-out", str(self.certificate))
        subprocess.run([*_OPENSSL, *made], check=True, capture_output=True)

    def _replace(self, name: str, replacements: Mapping[str, str]) -> None:
        text = (self.folder / name).read_text()
        for old, new in replacements.items():
            assert old in text, f"{name} has no {old!r} any more"
            text = text.replace(old, new)
        (self.folder / name).write_text(text)
