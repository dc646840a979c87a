"""Credentials may be limited to some models; no dialect, fallback or list goes beyond them."""

import asyncio
import time
from typing import Any

import jwt
import pytest

from tests.conftest import StartSystem
from tests.credentials import AUDIENCE, JWT_SECRET, JWT_SETTINGS, bearer, make_key, run_headrace, token
from tests.fakes import Answer
from tests.system import System

USER = {"role": "user", "content": "hi"}
NATIVE: dict[str, Any] = {"provider": "openai", "messages": [USER]}
UI_MESSAGE = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
TWO_FAMILIES = """
[providers.both]
kind = "openai"
base_url = "{fake.openai_base_url}"
responses_models = ["*-codex"]
"""
#: Requests of every dialect but for their model, with the status and code of a model that is not allowed.
REQUESTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "/chat": ({"messages": [USER]}, 403, "model_not_allowed"),
    "/chat/stream": ({"messages": [USER]}, 403, "model_not_allowed"),
    "/v1/chat/completions": ({"messages": [USER]}, 403, "model_not_found"),
    "/v1/responses": ({"input": "hi"}, 403, "model_not_found"),
    "/v1/messages": ({"messages": [USER], "max_tokens": 9}, 403, "permission_error"),
    "/v1/messages/count_tokens": ({"messages": [USER]}, 403, "permission_error"),
    "/api/chat": ({"id": "limited", "messages": [UI_MESSAGE]}, 403, "model_not_allowed"),
}


def code_in(body: dict[str, Any]) -> str:
    code: str = body["error"].get("code") or body["error"]["type"]
    return code


@pytest.mark.parametrize("path", REQUESTS)
async def test_a_model_that_is_not_allowed_is_refused(guarded: System, path: str) -> None:
    body, status, code = REQUESTS[path]
    limited = bearer(token("limited", models="openai/allowed*, demo"))
    guarded.fake.play("allowed-1", Answer(deltas=["yes"]))
    for model in ("openai/secret", "openai/allowe", "openai/x/allowed-1", "secret"):
        answer = await guarded.http.post(guarded.url + path, json=body | {"model": model}, headers=limited)
        assert (answer.status_code, code_in(answer.json())) == (status, code), model
    for model in ("openai/allowed-1", "allowed-1"):
        answer = await guarded.http.post(guarded.url + path, json=body | {"model": model}, headers=limited)
        assert answer.status_code in {200, 202}, answer.text


@pytest.mark.parametrize("field", ["models", "tools"])
async def test_a_model_that_a_server_would_choose_is_refused(guarded: System, field: str) -> None:
    """OpenRouter takes alternatives to the model, and a tool of Anthropic's asks another one."""
    limited = bearer(token("limited", models="openai/allowed*"))
    guarded.fake.play("allowed-1", Answer())
    for name, is_allowed in (("secret", False), ("allowed-2", True), (7, False)):
        value = [name] if field == "models" else [{"type": "advisor_20260301", "name": "a", "model": name}]
        chat = {"model": "openai/allowed-1", "messages": [USER]}
        for path, body in (
            ("/v1/chat/completions", chat | {field: value}),
            ("/chat", chat | {"provider_options": {"openai": {field: value}}}),
        ):
            answer = await guarded.http.post(guarded.url + path, json=body, headers=limited)
            assert (answer.status_code in {200, 202}) == is_allowed, answer.text
            assert is_allowed or (answer.status_code == 403 and f"{field}.0" in answer.json()["error"]["message"])


async def test_a_model_in_a_tool_is_checked_at_the_target_of_its_family(start_system: StartSystem) -> None:
    """A provider of kind openai that asks some models by Responses has two families."""
    system = await start_system(
        gateways=1,
        workers=1,
        providers=("both",),
        configuration=TWO_FAMILIES,
        auth="jwt",
        credentials=bearer(token("boot")),
        **JWT_SETTINGS,
    )
    limited = bearer(token("limited", models="both/allowed*"))
    requests: dict[str, dict[str, Any]] = {"responses": {"input": "hi"}, "chat/completions": {"messages": [USER]}}
    for route, model in (("responses", "allowed-codex"), ("chat/completions", "allowed-1")):
        system.fake.play(model, Answer())
        for name, status in (("allowed-2", 200), ("secret", 403)):
            body = {**requests[route], "model": f"both/{model}", "tools": [{"type": "advisor", "model": name}]}
            answer = await system.http.post(f"{system.url}/v1/{route}", json=body, headers=limited)
            assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("models", "allowed"),
    [
        (None, True),
        ("*", True),
        ("openai/*", True),
        ("*/echo", True),
        ("echo", True),
        ("demo/demo echo", True),
        (["demo", "openai/e?ho"], True),
        ("", False),
        ([], False),
        ([1, {}, None], False),
        ({"openai/*": True}, False),
        (7, False),
        ("open*", False),
        ("demo/echo", False),
        ("openai", False),
        ("openai/[e]cho", False),
        ("OPENAI/*", False),
        ("penai/*", False),
    ],
)
async def test_the_claim_models_is_text_or_a_list(guarded: System, models: object, *, allowed: bool) -> None:
    headers = bearer(token("claims", models=models))
    answer = await guarded.http.post(f"{guarded.url}/chat", json=NATIVE | {"model": "echo"}, headers=headers)
    assert answer.status_code == (202 if allowed else 403), answer.text


@pytest.mark.parametrize("claim", ["models", "scope"])
async def test_a_claim_of_null_allows_nothing(guarded: System, claim: str) -> None:
    """An identity provider may send it for a user without the attribute."""
    claims = {"sub": "null", "aud": AUDIENCE, "exp": time.time() + 600, claim: None}
    headers = bearer(jwt.encode(claims, JWT_SECRET, algorithm="HS256"))
    answer = await guarded.http.post(f"{guarded.url}/chat", json=NATIVE | {"model": "echo"}, headers=headers)
    assert answer.status_code == 403, answer.text


async def test_a_fallback_that_is_not_allowed_is_refused(guarded: System) -> None:
    limited = bearer(token("limited", models="openai/allowed"))
    body = NATIVE | {"model": "allowed", "fallbacks": ["openai/allowed", "openai/secret"]}
    for path in ("/chat", "/chat/stream"):
        answer = await guarded.http.post(guarded.url + path, json=body, headers=limited)
        assert (answer.status_code, code_in(answer.json())) == (403, "model_not_allowed")
        assert answer.json()["error"]["message"].startswith("fallbacks.1: ")


async def listed(system: System, **claims: Any) -> list[str]:
    answer = await system.http.get(f"{system.url}/v1/models", headers=bearer(token("lists", **claims)))
    assert answer.status_code == 200
    return [model["id"] for model in answer.json()["data"]]


async def test_lists_and_errors_name_allowed_models_only(guarded: System) -> None:
    """Provider openai has no list here, so it accepts any name that is allowed."""
    assert {"demo/demo", "openai/*"} <= set(await listed(guarded))
    assert await listed(guarded, models="demo") == ["demo/demo", "openai/demo"]
    assert await listed(guarded, models="demo/d*") == ["demo/demo"]
    assert await listed(guarded, models=["openai/gpt-*", "openai/own"]) == ["openai/gpt-*", "openai/own"]
    assert await listed(guarded, models="none/*") == []
    headers = bearer(token("lists", models="openai/own"))
    for name, status in (("openai/own", 200), ("openai/other", 404), ("demo/demo", 404), ("demo", 404)):
        answer = await guarded.http.get(f"{guarded.url}/v1/models/{name}", headers=headers)
        assert answer.status_code == status, name
        assert status == 200 or code_in(answer.json()) == "model_not_found"
    for wrong in ({"provider": "none", "model": "x"}, {"provider": "demo", "model": "none"}, {"model": "none"}):
        answer = await guarded.http.post(f"{guarded.url}/chat", json={"messages": [USER], **wrong}, headers=headers)
        assert answer.status_code in {400, 403}
        assert "demo/" not in answer.text
        assert "available: demo" not in answer.text


async def test_a_key_is_limited_to_the_models_that_it_was_made_for(guarded: System) -> None:
    key = await make_key(guarded, "limited", "--models", "openai/echo, demo")
    shown = (await asyncio.to_thread(run_headrace, guarded, "keys", "list")).stdout
    assert "models=openai/echo,demo" in next(line for line in shown.splitlines() if key.split("-")[1] in line)
    for model, status in (("echo", 202), ("other", 403)):
        body = NATIVE | {"model": model}
        answer = await guarded.http.post(f"{guarded.url}/chat", json=body, headers=bearer(key))
        assert answer.status_code == status


@pytest.mark.parametrize("models", [" , ", "a b", ",".join(["m"] * 101)])
async def test_an_invalid_limit_makes_no_key(guarded: System, models: str) -> None:
    done = await asyncio.to_thread(run_headrace, guarded, "keys", "create", "limited", "--models", models)
    assert done.returncode != 0
    assert "--models" in done.stderr
    assert not done.stdout


async def test_a_configured_fallback_that_is_not_allowed_is_skipped(start_system: StartSystem) -> None:
    system = await start_system(
        gateways=1,
        workers=1,
        auth="jwt",
        credentials=bearer(token("boot")),
        fallbacks='{"openai": ["demo/demo", "openai/spare"]}',
        provider_retries=0,
        **JWT_SETTINGS,
    )
    system.fake.play("fails", Answer(status=401))
    system.fake.play("spare", Answer(deltas=["spare"]))
    body = NATIVE | {"model": "fails"}
    limited = await system.http.post(
        f"{system.url}/chat/stream", json=body, headers=bearer(token("l", models="openai/*"))
    )
    assert "spare" in limited.text
    assert "demo" not in limited.text
