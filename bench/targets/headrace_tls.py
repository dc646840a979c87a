"""Headrace whose provider is asked over TLS, as real ones are."""

import asyncio
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from bench.certificate import make_certificate
from bench.targets.headrace import Headrace


class HeadraceTls(Headrace):
    """Headrace with the same provider behind a port with TLS."""

    name = "headrace, https provider"

    @staticmethod
    def installed() -> bool:
        return shutil.which("openssl") is not None

    async def start(self, provider_url: str, folder: Path) -> None:
        certificate, key = await asyncio.to_thread(make_certificate, folder)
        root = urlsplit(provider_url)
        async with httpx2.AsyncClient(trust_env=False) as http:
            files = {"certificate": str(certificate), "key": str(key)}
            answer = await http.post(f"{root.scheme}://{root.netloc}/tls", json=files)
            port = answer.raise_for_status().json()["port"]
        self._extra = {**self._extra, "SSL_CERT_FILE": str(certificate)}
        await super().start(f"https://127.0.0.1:{port}{root.path}", folder)
