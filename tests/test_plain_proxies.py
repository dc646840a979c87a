"""The real nginx, configured carelessly in front of a gateway without authentication, opens it to nobody."""

from pathlib import Path

import httpx2
import pytest

from tests.plain_nginx import plain_nginx
from tests.routes import every_route
from tests.system import System, ask

PLAIN = ""
FORWARDS = "proxy_http_version 1.1; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
KEEPS_HOST = "proxy_http_version 1.1; proxy_set_header Host $http_host;"
HIDES_ITSELF = "proxy_http_version 1.1;"
HOST = {"Host": "chat.example.com"}


@pytest.mark.parametrize("lines", [PLAIN, FORWARDS, KEEPS_HOST])
async def test_every_route_is_refused_through_a_proxy(system: System, tmp_path: Path, lines: str) -> None:
    async with plain_nginx(system.gateways[0].port, tmp_path, lines) as url:
        for method, path in every_route():
            answer = await system.http.request(method, url + path, headers=HOST)
            assert answer.status_code == 403, (method, path)
            assert "set HEADRACE_AUTH" in answer.text, (method, path)


async def test_a_proxy_that_hides_itself_is_found_only_by_its_pages_origin(system: System, tmp_path: Path) -> None:
    """The limit that the documentation states: such a request looks like one of this machine."""
    async with (
        plain_nginx(system.gateways[0].port, tmp_path, HIDES_ITSELF) as url,
        httpx2.AsyncClient(timeout=60, trust_env=False) as http,
    ):
        assert (await http.get(f"{url}/v1/models", headers=HOST)).status_code == 200
        page = HOST | {"Origin": "https://chat.example.com", "Sec-Fetch-Site": "same-origin"}
        refused = await http.post(f"{url}/chat", json=ask("echo"), headers=page)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_refused")
