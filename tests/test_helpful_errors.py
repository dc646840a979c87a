"""Errors that a newcomer meets first: each names the field or path, its fault and the remedy."""

import json
from typing import Any

import jwt
import pytest

from tests.conftest import StartSystem
from tests.system import System

USER = [{"role": "user", "content": "hi"}]
GOOD: dict[str, Any] = {"model": "demo/demo", "messages": USER}
JSON = {"Content-Type": "application/json"}

#: Body (raw, or members over those of a good one) and message.
NATIVE: list[tuple[bytes | dict[str, Any], str]] = [
    (b"", 'body: empty; send a JSON object such as {"model": …, "messages": …}'),
    (
        b'{"model":"demo","messages":[{"role":"user","content":"x"}',
        "body: invalid JSON: it ends too early, at line 1, column 57; is a ] missing?",
    ),
    (b"{'model': 1}", "body: invalid JSON at line 1, column 2: a name needs double quotes"),
    (b"model=demo", "body: invalid JSON at line 1, column 1: no value begins here; a text needs double quotes"),
    (b'{"model": "demo",}', "body: invalid JSON at line 1, column 18: remove the comma before ] or }"),
    ({"messages": "hi"}, 'messages: must be a list such as [{"role": "user", "content": "…"}], not a string'),
    ({"messages": []}, "messages: must not be empty"),
    ({"max_token": 5}, "max_token: unknown field; did you mean max_tokens?"),
    ({"maxTokens": 5}, "maxTokens: unknown field; did you mean max_tokens?"),
    ({"xyz": 5}, "xyz: unknown field; remove it"),
    ({"messages": [{"role": "user", "contents": "x"}]}, "messages.0.contents: unknown field; did you mean content?"),
    (
        {"tools": [{"type": "function", "function": {"nme": "f"}}]},
        "tools.0.function.name: missing; add it; tools.0.function.nme: unknown field; did you mean name?",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "f", "schma": {}}}},
        "response_format.json_schema.schema: missing; add it;"
        " response_format.json_schema.schma: unknown field; did you mean schema?",
    ),
    ({"temperature": "hot"}, "temperature: must be a number, not a string"),
    ({"max_tokens": 1.5}, "max_tokens: must be an integer, not a fraction"),
    ({"metadata": []}, "metadata: must be an object, not a list"),
    ({"grace_s": -1}, "grace_s: must be at least 0"),
    ({"on_disconnect": "stop"}, "on_disconnect: must be 'cancel' or 'continue'"),
    (
        {"stream": False},
        "stream: false is not possible here, because every answer is a stream; use POST /chat and then"
        " GET /chat/{stream_id}, or POST /v1/chat/completions",
    ),
    ({"stream": 1}, "stream: must be true"),
    ({"provider": "demo", "model": "gpt-4"}, "model: unknown model 'gpt-4' of provider demo; available: demo"),
]


@pytest.mark.parametrize(("body", "message"), NATIVE)
async def test_a_native_body(system: System, body: bytes | dict[str, Any], message: str) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(GOOD | body).encode()
    for path in ("/chat", "/chat/stream"):
        answer = await system.http.post(system.url + path, content=raw, headers=JSON)
        assert answer.status_code in {400, 422}
        assert answer.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/messages", GOOD | {"max_token": 9}, "max_tokens: missing; rename max_token"),
        (
            "/v1/messages",
            {"model": "demo/demo", "max_tokens": 9, "message": USER},
            "messages: missing; rename message",
        ),
        ("/v1/messages", GOOD | {"max_tokens": "9"}, "max_tokens: must be an integer, not a string"),
        ("/v1/responses", {"model": "demo/demo", "inputs": "x"}, "input: missing; rename inputs"),
        ("/v1/chat/completions", GOOD | {"messages": "x"}, "messages: must be a list such as [{"),
        ("/v1/chat/completions", {"messages": USER}, "model: missing; add it"),
        ("/api/chat", {"id": "7", "messages": "x"}, "messages: must be a list of UIMessage objects"),
    ],
)
async def test_a_body_of_another_dialect(system: System, path: str, body: dict[str, Any], message: str) -> None:
    answer = await system.http.post(system.url + path, json=body)
    assert answer.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/chat/", "path: nothing is here; did you mean /chat?"),
        ("POST", "/v1/chat/completions/", "path: nothing is here; did you mean /v1/chat/completions?"),
        ("GET", "/chats/", "path: nothing is here; did you mean /chats?"),
        ("GET", "/v1/models/", "path: nothing is here; did you mean /v1/models?"),
        ("GET", "/chat/0123/", "path: nothing is here; did you mean /chat/{stream_id}?"),
        ("POST", "/v1/v1/chat/completions", "path: nothing is here; did you mean /v1/chat/completions?"),
        ("POST", "/chat/completions", "path: nothing to POST is here; did you mean /v1/chat/completions?"),
        ("POST", "/messages", "path: nothing is here; did you mean /v1/messages?"),
        ("POST", "/api/generate", "path: nothing is here; did you mean /v1/chat/completions?"),
        ("GET", "/redoc", "path: nothing is here; did you mean /docs?"),
        ("GET", "/chst", "path: nothing is here; did you mean /chat?"),
        ("GET", "/nowhere", "path: nothing is here; /docs and /openapi.json list what is"),
        ("GET", f"/{'x' * 5000}", "path: nothing is here; /docs and /openapi.json list what is"),
        *(
            ("POST", f"/v1/{path}", f"path: no {name} here, only chat is served; use POST /v1/chat/completions")
            for path, name in (
                ("embeddings", "embeddings"),
                ("completions", "text completions"),
                ("audio/speech", "audio"),
                ("images/generations", "images"),
                ("messages/batches", "batches"),
                ("moderations", "moderations"),
            )
        ),
        ("POST", "/v1/models", "method: POST is not possible at /v1/models; use GET"),
        ("GET", "/v1/chat/completions", "method: GET is not possible at /v1/chat/completions; use POST"),
        ("PUT", "/chat/0123", "method: PUT is not possible at /chat/{stream_id}; use DELETE or GET"),
        ("OPTIONS", "/chat", "method: OPTIONS is not possible at /chat; use GET or POST"),
        ("GET", "/chat/stream", "use POST to create a stream; read a stream at /chat/stream/{stream_id}"),
        ("GET", "/chat?limit=0", "limit: must be at least 1"),
        ("GET", "/chat?limit=x", "limit: must be an integer"),
        ("GET", "/v1/models?limit=x", "limit: must be an integer"),
        ("GET", "/chat?from=yesterday", "from: must be a time such as 2026-11-30T12:00:00Z"),
        ("GET", "/v1/usage?from=x", "from: must be a date such as 2026-11-30"),
        ("GET", "/v1/usage?format=xml", "format: must be 'json' or 'csv'"),
        ("GET", "/chat?page=x", "page: invalid; use `next_page` of the previous response"),
        ("POST", "/chat/0123/tickets", "body: empty; send a JSON object"),
    ],
)
async def test_a_path_a_method_or_a_parameter(system: System, method: str, path: str, message: str) -> None:
    answer = await system.http.request(method, system.url + path)
    assert answer.json()["error"]["message"].startswith(message)
    assert answer.status_code in {400, 404, 405, 422}


async def test_stream_true_makes_no_other_request(system: System) -> None:
    """The request is stored without it, for workers that do not know it, and an idempotency key fits both."""
    headers = {"Idempotency-Key": "streamed"}
    first = await system.http.post(f"{system.url}/chat", json=GOOD, headers=headers)
    second = await system.http.post(f"{system.url}/chat", json=GOOD | {"stream": True}, headers=headers)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["stream_id"] == second.json()["stream_id"]


async def test_what_the_operator_has_to_set_is_logged(start_system: StartSystem) -> None:
    secret = "a-secret-for-tests-" * 4
    own = jwt.encode({"sub": "a", "aud": "us", "exp": 9e9}, secret, algorithm="HS256")
    system = await start_system(
        gateways=1,
        workers=1,
        auth="jwt",
        jwt_secret=secret,
        jwt_audience="us",
        credentials={"Authorization": f"Bearer {own}"},
    )
    preflight = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}
    refused = await system.http.options(f"{system.url}/chat", headers=preflight)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_refused")
    assert "HEADRACE" not in refused.text  # clients are not its operators
    other = jwt.encode({"sub": "a", "aud": "them", "exp": 9e9}, secret, algorithm="HS256")
    for field, message in (
        (f"Bearer {other}", "the token is invalid"),
        (other, "Authorization: has no bearer token; send it as Authorization: Bearer KEY"),
    ):
        answer = await system.http.get(f"{system.url}/chat", headers={"Authorization": field})
        assert (answer.status_code, answer.json()["error"]["message"]) == (401, message)
    log = system.gateways[0].log.read_text()
    assert "HEADRACE_CORS_ORIGINS does not list" in log
    assert "http://page.example" in log
    assert "its aud is not HEADRACE_JWT_AUDIENCE" in log
    assert other not in log
