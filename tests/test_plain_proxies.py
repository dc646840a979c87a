"""The real nginx, configured carelessly in front of a gateway without authentication, opens it to nobody."""

import asyncio
import os
import pwd
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.nginx import PROGRAM, need_nginx
from tests.ports import free_port
from tests.routes import every_route
from tests.system import System, ask

_CONFIG = """
daemon off; pid {folder}/pid; error_log stderr; {user}
events {{}}
http {{
  access_log off;
  {temporary}
  server {{ listen 127.0.0.1:{port}; location / {{ {lines} proxy_pass http://127.0.0.1:{gateway}; }} }}
}}
"""
_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
PLAIN = ""
FORWARDS = "proxy_http_version 1.1; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
KEEPS_HOST = "proxy_http_version 1.1; proxy_set_header Host $http_host;"
HIDES_ITSELF = "proxy_http_version 1.1;"
HOST = {"Host": "chat.example.com"}


@asynccontextmanager
async def nginx(system: System, folder: Path, lines: str) -> AsyncIterator[str]:
    """Run nginx with these lines beside its ``proxy_pass``, and yield its URL."""
    need_nginx()
    port = free_port()
    config = _CONFIG.format(
        folder=folder,
        user=f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.geteuid() == 0 else "",
        temporary=" ".join(f"{kind}_temp_path {folder}/{kind};" for kind in _KINDS),
        port=port,
        lines=lines,
        gateway=system.gateways[0].port,
    )
    (folder / "nginx.conf").write_text(config)
    with (folder / "nginx.log").open("wb") as log:
        command = [str(PROGRAM), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        process = subprocess.Popen(command, stdout=log, stderr=log)

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            assert process.poll() is None, (folder / "nginx.log").read_text()
            return False
        writer.close()
        return True

    try:
        await system.eventually(listens)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("lines", [PLAIN, FORWARDS, KEEPS_HOST])
async def test_every_route_is_refused_through_a_proxy(system: System, tmp_path: Path, lines: str) -> None:
    async with nginx(system, tmp_path, lines) as url:
        for method, path in every_route():
            answer = await system.http.request(method, url + path, headers=HOST)
            assert answer.status_code == 403, (method, path)
            assert "set HEADRACE_AUTH" in answer.text, (method, path)


async def test_a_proxy_that_hides_itself_is_found_only_by_its_pages_origin(system: System, tmp_path: Path) -> None:
    """The limit that the documentation states: such a request looks like one of this machine."""
    async with nginx(system, tmp_path, HIDES_ITSELF) as url, httpx2.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{url}/v1/models", headers=HOST)).status_code == 200
        page = HOST | {"Origin": "https://chat.example.com", "Sec-Fetch-Site": "same-origin"}
        refused = await http.post(f"{url}/chat", json=ask("echo"), headers=page)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_refused")
