"""Every request needs valid credentials, and no page of another site can use those of a browser."""

import json

import pytest

from tests.auth.refused_start import gateway_refuses_to_start
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
    own, evil = {"Origin": guarded.url}, {"Origin": "https://evil.example"}
    navigates = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for page, status in (
        ({}, 202),
        (own, 202),
        (own | {"Sec-Fetch-Site": "same-origin"}, 202),
        (evil, 403),
        ({"Origin": "null"}, 403),
        (evil | {"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "Cross-Site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"} | navigates, 403),
    ):
        answer = await guarded.http.post(url, json=ask("echo"), headers=cookie | page)
        assert answer.status_code == status, page
        if status == 403:
            assert answer.json()["error"]["code"] == "origin_refused"
            assert (await guarded.http.post(url, json=ask("echo"), headers=bearer(token()) | page)).status_code == 202
    image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    link = {"Sec-Fetch-Site": "cross-site"} | navigates
    for page, status in ((image, 403), (evil, 403), (link, 200)):
        assert (await guarded.http.get(url, headers=cookie | page)).status_code == status, page


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
        ({"HEADRACE_TRUSTED_PROXIES": "127.0.0.1"}, [], "HEADRACE_AUTH: not set, but HEADRACE_TRUSTED_PROXIES"),
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


async def test_missing_credentials_are_refused_in_the_shape_of_the_client(guarded: System) -> None:
    for path in ("/v1/models", "/v1/models/demo/demo"):
        for headers in ({"anthropic-version": "2023-06-01"}, {}):
            answer = await guarded.http.get(guarded.url + path, headers=headers)
            assert answer.status_code == 401
            body = answer.json()
            assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")
            assert {"message", "type", "param", "code"} <= set(body["error"])
