"""Every request needs valid credentials, and no page of another site can use those of a browser or of loopback."""

import json

import pytest

from tests.auth.refused_start import gateway_refuses_to_start
from tests.conftest import StartSystem
from tests.credentials import JWT_SECRET, bearer, make_key, start_stream, token
from tests.responses import code_of
from tests.system import SECRET, System, ask


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/chat"),
        ("POST", "/chat/stream"),
        ("GET", "/chat/{id}"),
        ("GET", "/chat/stream/{id}"),
        ("POST", "/chat/{id}/cancel"),
        ("DELETE", "/chat/{id}"),
        ("GET", "/v1/models"),
    ],
)
async def test_missing_or_invalid_credentials_are_refused_everywhere(guarded: System, method: str, path: str) -> None:
    stream_id = (await start_stream(guarded, token()))["stream_id"]
    url = guarded.url + path.format(id=stream_id)
    body = json.dumps(ask("echo"))
    key = await make_key(guarded, "somebody")
    for headers in (
        {},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer rubbish"},
        {"X-Api-Key": ""},
        {"X-Api-Key": key[:-1] + ("a" if key[-1] != "a" else "b")},
        {"X-Api-Key": f"hr-{'0' * 12}-{key.rpartition('-')[2]}"},
        {"X-Api-Key": "hr--"},
        {"Cookie": "headrace=rubbish"},
    ):
        answer = await guarded.http.request(method, url, content=body, headers=headers)
        assert code_of(answer) == (401, "unauthenticated"), headers
        assert answer.headers["www-authenticate"] == "Bearer"
    assert (await guarded.http.get(f"{guarded.url}/chat/{stream_id}", headers=bearer(token()))).status_code == 200


async def test_a_key_is_accepted_in_both_headers_and_in_the_cookie(guarded: System) -> None:
    key = await make_key(guarded, "three-places")
    for headers in ({"Authorization": f"Bearer {key}"}, {"X-Api-Key": key}, {"Cookie": f"headrace={key}"}):
        answer = await guarded.http.get(f"{guarded.url}/v1/models", headers=headers)
        assert answer.status_code == 200


async def test_health_and_page_need_no_credentials(guarded: System) -> None:
    for path in ("/healthz", "/readyz", "/", "/metrics"):
        assert (await guarded.http.get(guarded.url + path)).status_code == 200


async def test_a_cookie_is_refused_from_another_sites_page(guarded: System) -> None:
    url = f"{guarded.url}/chat"
    cookie = {"Cookie": f"headrace={token()}"}
    own = guarded.url
    for origin, status in (("https://evil.example", 403), ("null", 403), (own, 202)):
        answer = await guarded.http.post(url, json=ask("echo"), headers=cookie | {"Origin": origin})
        assert answer.status_code == status, origin


@pytest.mark.parametrize(("origins", "status"), [("", 403), ("https://friend.example", 403), ("*", 202)])
async def test_another_sites_page_gets_nothing_from_a_gateway_without_authentication(
    start_system: StartSystem, origins: str, status: int
) -> None:
    """Such a page needs no credentials, and avoids a preflight by its content type."""
    system = await start_system(gateways=1, workers=1, cors_origins=origins)
    url, body = f"{system.url}/chat", json.dumps(ask("echo"))
    page = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}
    assert (await system.http.post(url, content=body, headers=page)).status_code == status
    if origins.startswith("https"):
        assert (await system.http.post(url, content=body, headers=page | {"Origin": origins})).status_code == 202
    mine = await system.http.post(
        url, content=body, headers=page | {"Origin": system.url, "Sec-Fetch-Site": "same-origin"}
    )
    stopped = await system.http.post(f"{system.url}/ops/streams/{mine.json()['stream_id']}/cancel", headers=page)
    assert (mine.status_code, stopped.status_code) == (202, status)


@pytest.mark.parametrize("settings", [{}, {"auth": "none"}, {"trusted_proxies": "127.0.0.1"}])
async def test_dns_rebinding_to_loopback_gets_nothing(start_system: StartSystem, settings: dict[str, str]) -> None:
    system = await start_system(gateways=1, workers=1, **settings)
    stream_id = (await system.http.post(f"{system.url}/chat", json=ask("echo"))).json()["stream_id"]
    for path in ("/chat", f"/chat/{stream_id}", "/v1/models"):
        rebound = await system.http.get(f"{system.url}{path}", headers={"Host": "evil.example:8000"})
        assert rebound.status_code == (200 if settings else 403), path
        own = await system.http.get(f"{system.url}{path}", headers={"Host": "localhost:8000"})
        assert own.status_code == 200


async def test_credentials_and_tickets_stay_out_of_logs(guarded: System) -> None:
    key = await make_key(guarded, "logged")
    started = await start_stream(guarded, key)
    ticket = started["stream_url"].partition("ticket=")[2]
    await guarded.http.get(guarded.url + started["stream_url"])
    await guarded.http.get(f"{guarded.url}/chat/{started['stream_id']}?ticket={ticket[:-2]}xx")
    logs = "".join(path.read_text() for path in guarded.folder.glob("*.log"))
    for secret in (key, ticket, ticket.rpartition(".")[2], JWT_SECRET, SECRET):
        assert secret not in logs


@pytest.mark.parametrize(
    ("environment", "arguments", "names"),
    [
        ({}, ["--host", "0.0.0.0"], "HEADRACE_AUTH: not set, but HEADRACE_HOST"),
        ({"HEADRACE_AUTH": "key"}, [], "HEADRACE_AUTH"),
        ({"HEADRACE_AUTH": "none,keys"}, [], "none excludes other methods"),
        ({"HEADRACE_AUTH": "jwt"}, [], "HEADRACE_JWT_SECRET, HEADRACE_JWT_PUBLIC_KEY"),
        ({"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_SECRET": "x" * 32}, [], "JWT_AUDIENCE"),
        ({"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_SECRET": "short"}, [], "HEADRACE_JWT_SECRET"),
        ({"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_PUBLIC_KEY": "rubbish"}, [], "not a public key in PEM"),
        ({"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_JWKS_URL": "http://example.com/"}, [], "https://"),
        (
            {
                "HEADRACE_AUTH": "jwt",
                "HEADRACE_JWT_JWKS_URL": "http://127.0.0.1:1/jwks.json",
                "HEADRACE_JWT_AUDIENCE": "x",
            },
            [],
            "HEADRACE_JWT_JWKS_URL",
        ),
    ],
)
async def test_an_invalid_configuration_stops_the_start(
    environment: dict[str, str], arguments: list[str], names: str
) -> None:
    await gateway_refuses_to_start(environment, *arguments, message=names)
