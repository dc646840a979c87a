"""The real nginx with a few lines of a test's own in front of one gateway."""

import asyncio
import os
import pwd
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.nginx import PROGRAM, need_nginx
from tests.ports import free_port

_CONFIG = """
daemon off; pid {folder}/pid; error_log stderr; {user}
events {{}}
http {{
  access_log off;
  {temporary}
  proxy_cache_path {folder}/cache keys_zone=cache:1m;
  server {{ listen 127.0.0.1:{port}; {server} location / {{ {lines} proxy_pass http://127.0.0.1:{gateway}; }} }}
}}
"""
_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@asynccontextmanager
async def plain_nginx(gateway: int, folder: Path, lines: str, server: str = "") -> AsyncIterator[str]:
    """Run nginx with these lines beside its ``proxy_pass``, and yield its URL. ``server``: lines of its server; a
    cache has the zone ``cache``."""
    need_nginx()
    port = free_port()
    config = _CONFIG.format(
        folder=folder,
        user=f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.geteuid() == 0 else "",
        temporary=" ".join(f"{kind}_temp_path {folder}/{kind};" for kind in _KINDS),
        port=port,
        lines=lines,
        server=server,
        gateway=gateway,
    )
    (folder / "nginx.conf").write_text(config)
    with (folder / "nginx.log").open("wb") as log:
        command = [str(PROGRAM), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        await _until_it_listens(process, port, folder)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


async def _until_it_listens(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    async with asyncio.timeout(60):
        while True:
            assert process.poll() is None, (folder / "nginx.log").read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
