"""Operators deny fields, tools and betas by name, for the server or for a key."""

import asyncio
from typing import Any

import pytest

from shared.denied_fields import denied_field
from shared.errors import InvalidRequest
from shared.schemas import ChatRequest, StoredRequest
from shared.schemas.chat import validate
from tests.conftest import StartSystem
from tests.credentials import JWT_SETTINGS, bearer, make_key, run_headrace, token
from tests.system import System

USER = {"role": "user", "content": "hi"}
NATIVE: dict[str, Any] = {"model": "echo", "provider": "openai", "messages": [USER]}
SEARCH = {"type": "web_search_20250305", "name": "search"}
FUNCTION = {"type": "function", "function": {"name": "bash"}}


def messages_request(body: dict[str, Any], **headers: str) -> StoredRequest:
    original = {"family": "anthropic", "body": body, "headers": headers}
    return validate(StoredRequest, {"model": "m", "messages": [USER], "original": original})


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("mcp_servers", {"mcp_servers": [{"url": "https://a"}]}, {}),
        ("output_config.effort", {"output_config": {"effort": "max"}}, {}),
        ("messages.content.cache_control", {"messages": [{"content": [{"cache_control": {}}]}]}, {}),
        ("tools.web_search", {"tools": [SEARCH]}, {}),
        ("tools.web_search_20250305", {"tools": [SEARCH]}, {}),
        ("tools.search", {"tools": [SEARCH]}, {}),
        ("tools.web_search", {"tools": [{"type": "web_search_preview_2025_03_11"}]}, {}),
        ("tools.bash", {"tools": [FUNCTION]}, {}),
        ("tools.bash", {"tools": [{"type": "namespace", "name": "n", "tools": [{"name": "bash"}]}]}, {}),
        ("betas.computer-use", {}, {"anthropic-beta": "a, computer-use-2025-01-24"}),
        ("betas.computer-use-2025-01-24", {"betas": ["computer-use-2025-01-24"]}, {}),
        ("betas.computer-use", {"betas": ["a,computer-use-2025-01-24"]}, {}),
        ("betas.computer-use", {"anthropic_beta": " computer-use-2025-01-24 ,a"}, {}),
        ("betas", {}, {"anthropic-beta": "a"}),
    ],
)
def test_a_denied_field_is_found(path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
    assert denied_field(messages_request(body, **headers), [path]) == path


@pytest.mark.parametrize(
    ("path", "family", "body"),
    [
        ("tools.web_search", "openai", {"web_search_options": {}}),
        ("text.verbosity", "openai", {"verbosity": "low"}),
        ("logprobs", "responses", {"include": ["message.output_text.logprobs"]}),
    ],
)
def test_a_denied_field_is_found_under_the_name_of_another_format(
    path: str, family: str, body: dict[str, Any]
) -> None:
    original = {"family": family, "body": body}
    request = validate(StoredRequest, {"model": "m", "messages": [USER], "original": original})
    assert denied_field(request, [path]) == path


@pytest.mark.parametrize("path", ["mcp_servers", "tools.web", "tools.type", "betas.computer", "output_config.format"])
def test_another_field_is_not_denied(path: str) -> None:
    body = {"mcp_servers": None, "tools": [SEARCH | {"name": "s"}], "output_config": {"effort": "low"}}
    found = denied_field(messages_request(body, **{"anthropic-beta": "computer-use-2025-01-24"}), [path])
    assert found == ("tools.type" if path == "tools.type" else None)


def test_options_of_a_provider_are_searched_too() -> None:
    options = {"anthropic": {"mcp_servers": [], "tools": [SEARCH], "betas": ["b"]}}
    request = ChatRequest.model_validate(NATIVE | {"provider_options": options})
    for path in ("mcp_servers", "tools.web_search", "betas.b", "provider_options", "provider_options.anthropic"):
        assert denied_field(request, [path]) == path
    assert denied_field(request, ["provider_options.openai", "betas.c"]) is None


@pytest.mark.parametrize("betas", ["a", ["a,b"], [" b"], ["b\r\nx-api-key: c"], ["\u00e9"], [7], {}])
def test_betas_of_options_are_names(betas: Any) -> None:
    """They become a header, and each is compared with the denied ones."""
    with pytest.raises(InvalidRequest, match="betas"):
        validate(ChatRequest, NATIVE | {"provider_options": {"anthropic": {"betas": betas}}})


async def test_a_key_may_not_use_its_denied_fields(guarded: System) -> None:
    key = await make_key(guarded, "denied", "--deny", "seed, tools.bash")
    shown = (await asyncio.to_thread(run_headrace, guarded, "keys", "list")).stdout
    assert "denied=seed,tools.bash" in next(line for line in shown.splitlines() if key.split("-")[1] in line)
    for fields, path in (({"seed": 7}, "seed"), ({"tools": [FUNCTION]}, "tools.bash")):
        answer = await guarded.http.post(f"{guarded.url}/chat", json=NATIVE | fields, headers=bearer(key))
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "field_not_allowed")
        assert answer.json()["error"]["message"].startswith(f"{path}: ")
        assert "HEADRACE" not in answer.text
    answer = await guarded.http.post(f"{guarded.url}/chat", json=NATIVE, headers=bearer(key))
    assert answer.status_code == 202


@pytest.mark.parametrize("paths", ["a b", "a..b", ",".join(["m"] * 101)])
async def test_an_invalid_path_makes_no_key(guarded: System, paths: str) -> None:
    done = await asyncio.to_thread(run_headrace, guarded, "keys", "create", "denied", "--deny", paths)
    assert done.returncode != 0
    assert "--deny" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(("claim", "status"), [("seed", 403), (["seed"], 403), (["top_k"], 202), ({"seed": 1}, 401)])
async def test_a_token_may_deny_fields(guarded: System, claim: object, status: int) -> None:
    headers = bearer(token("denied", denied_fields=claim))
    answer = await guarded.http.post(f"{guarded.url}/chat", json=NATIVE | {"seed": 7}, headers=headers)
    assert answer.status_code == status, answer.text


#: Requests of every dialect with two tools or a temperature, and the status of a denied field.
REQUESTS: dict[str, dict[str, Any]] = {
    "/chat": NATIVE,
    "/chat/stream": NATIVE,
    "/v1/chat/completions": {"model": "openai/echo", "messages": [USER]},
    "/v1/responses": {"model": "openai/echo", "input": "hi"},
    "/v1/messages": {"model": "openai/echo", "messages": [USER], "max_tokens": 9},
    "/api/chat": {
        "model": "openai/echo",
        "id": "c",
        "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}],
    },
}


async def test_the_server_denies_a_field_in_every_dialect(start_system: StartSystem) -> None:
    system = await start_system(
        gateways=1,
        workers=1,
        auth="jwt",
        credentials=bearer(token("boot")),
        denied_fields="temperature",
        **JWT_SETTINGS,
    )
    for path, body in REQUESTS.items():
        answer = await system.http.post(system.url + path, json=body | {"temperature": 0.5})
        assert answer.status_code == 403, (path, answer.text)
        assert "temperature" in answer.text
    assert not system.fake.calls
