"""A request of a real client reaches a provider of the same family as the client wrote it."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.fakes import Answer
from tests.system import System

#: A request of Claude Code 2.1.332 in the fifth step of a session: a system message in the middle, thinking with its
#: signature, parallel calls, an image and references to tools in results, deferred tools, cache marks.
RECORDED: Final = Path(__file__).parent / "recorded" / "claude_code.json"
#: The members that the gateway may change.
_OUR_OWN: Final = frozenset({"model", "stream", "stream_options"})


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(tmp_path_factory.mktemp("lossless"), gateways=1, workers=1, providers=("anthropic",))
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_of_claude_code_reaches_anthropic_as_it_was_written(system: System, stream: bool) -> None:
    recorded = json.loads(RECORDED.read_text())
    body = {**recorded["body"], "model": f"anthropic/lossless-{stream}", "stream": stream}
    system.fake.play(f"lossless-{stream}", Answer())
    answer = await _post(system, recorded["headers"], body)
    assert answer.status_code == 200, answer.text
    (call,) = [call for call in system.fake.calls if call.model == f"lossless-{stream}"]
    assert _ordered(call.request) == _ordered(body)


async def test_the_names_of_claude_codes_betas_reach_anthropic(system: System) -> None:
    recorded = json.loads(RECORDED.read_text())
    system.fake.play("betas", Answer())
    answer = await _post(system, recorded["headers"], {**recorded["body"], "model": "anthropic/betas"})
    assert answer.status_code == 200, answer.text
    (call,) = [call for call in system.fake.calls if call.model == "betas"]
    asked = set(recorded["headers"]["anthropic-beta"].split(","))
    assert asked <= set(call.headers["anthropic-beta"].replace(" ", "").split(","))
    assert call.headers["anthropic-version"] == recorded["headers"]["anthropic-version"]
    keys = call.headers.get("x-api-key"), call.headers.get("authorization")
    assert "removed" not in str(keys), "the provider gets our key, not the client's"
    assert "test-key-456" in str(keys)


async def test_betas_in_several_lines_reach_anthropic(system: System) -> None:
    system.fake.play("lines", Answer())
    body = {"model": "anthropic/lines", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    headers = [("anthropic-beta", "one-1"), ("anthropic-beta", "two-2"), ("anthropic-beta", "three-3")]
    answer = await system.http.post(f"{system.url}/v1/messages", headers=headers, json=body)
    assert answer.status_code == 200, answer.text
    (call,) = [call for call in system.fake.calls if call.model == "lines"]
    assert call.headers["anthropic-beta"].replace(" ", "") == "one-1,two-2,three-3"


async def _post(system: System, headers: Mapping[str, str], body: Mapping[str, Any]) -> httpx2.Response:
    url = f"{system.url}/v1/messages?beta=true"
    return await system.http.post(url, headers=dict(headers), content=json.dumps(body).encode())


def _ordered(body: Mapping[str, Any]) -> dict[str, str]:
    """Return each member as text: inside it, the order of members counts, because prompts are cached by prefix."""
    return {name: json.dumps(value) for name, value in sorted(body.items()) if name not in _OUR_OWN}
