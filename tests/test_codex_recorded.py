"""A session of Codex over an upstream of Responses is lossless in both directions.

``recorded/codex.json`` has the requests of Codex 0.171.0, as the program itself sent them to a fake server: parallel
commands, a patch, an image of the user and one of a tool, encrypted reasoning, a web search and a citation. The
server's events are beside them, in the form of OpenAI's. Long texts are cut, and ids and paths are replaced.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.fakes import Answer
from tests.responses_frames import frames
from tests.sse_client import open_sse
from tests.system import System

RECORDED: Final = Path(__file__).parent / "recorded" / "codex.json"
MODEL: Final = "codex-recorded"
#: Members of events that differ by design: the gateway numbers its own events, and sends no padding.
_OF_EVENTS: Final = frozenset({"sequence_number", "obfuscation"})
#: Members of a response that are the gateway's own.
_OF_RESPONSES: Final = frozenset({"id", "created_at", "model"})
Body = dict[str, Any]


async def test_a_recorded_session_is_lossless(wire_system: System) -> None:
    recorded = json.loads(RECORDED.read_text())
    ids: dict[str, str] = {}  # the gateway's ids of items, by the server's
    for turn in recorded["turns"]:
        wire_system.fake.play(MODEL, Answer(raw=frames(*turn["events"])))
        written = {**recorded["request"], "input": recorded["input"][: turn["input"]]}
        returned = [item | {"id": ids.get(item["id"], item["id"])} for item in written["input"]]
        body = {**written, "input": returned, "model": f"responses/{MODEL}"}
        seen = await ask(wire_system, recorded["headers"], body)
        assert as_texts(sent(wire_system)) == as_texts(written)
        ids |= ids_of(seen)
        check_events(seen, turn["events"])
    kinds = {item["type"] for item in recorded["input"]}
    assert kinds >= {"reasoning", "function_call", "custom_tool_call_output", "web_search_call"}
    assert len(ids) == 12


async def ask(system: System, headers: dict[str, str], body: Body) -> list[Body]:
    """Return the events of a streamed response."""
    url = f"{system.url}/v1/responses"
    async with await open_sse("POST", url, headers=headers, json=body) as connection:
        assert connection.status == 200
        return [frame.data async for frame in connection.frames()]


def sent(system: System) -> Body:
    """Return the latest request that the server got."""
    return [call.request for call in system.fake.calls if call.model == MODEL][-1]


def as_texts(request: Body) -> dict[str, str]:
    """Return each member as text: inside it, the order of members counts, because prompts are cached by prefix."""
    return {name: json.dumps(value) for name, value in request.items() if name not in {"model", "stream"}}


def ids_of(events: list[Body]) -> dict[str, str]:
    """Return the gateway's ids of an answer's items, by the server's, which they end with."""
    ids = [event["item"]["id"] for event in events if event["type"] == "response.output_item.done"]
    return {id.partition(".")[2]: id for id in ids}


def check_events(seen: list[Body], sent: list[Body]) -> None:
    """Check that the client got the events of the server, and a response with all members of the server's."""
    assert [event["type"] for event in seen[:2]] == [event["type"] for event in sent[:2]]
    assert list(comparable(seen)) == list(comparable(sent))
    ours, theirs = plain(seen[-1]["response"]), plain(sent[-1]["response"])
    assert {name: ours[name] for name in theirs} == theirs


def comparable(events: list[Body]) -> Iterator[Body]:
    """Yield the events about items, item by item: calls end after all of them have begun, since no call is complete
    before the answer is. Deltas of one text are joined, since the gateway joins them under load."""
    joined: Body = {}
    for event in sorted((e for e in events if "output_index" in e), key=lambda e: int(e["output_index"])):
        made: Body = plain(event)
        if "delta" in made and made | {"delta": ""} == joined | {"delta": ""}:
            joined["delta"] += made["delta"]
        else:
            yield made
            joined = made


def plain(value: Any) -> Any:
    """Return an event without the members that differ by design."""
    if isinstance(value, list):
        return list(map(plain, value))
    if not isinstance(value, dict):
        return value.partition(".")[2] or value if isinstance(value, str) and is_own_id(value) else value
    own = _OF_RESPONSES if value.get("object") == "response" else _OF_EVENTS
    return {name: plain(member) for name, member in value.items() if name not in own}


def is_own_id(text: str) -> bool:
    """Return True for an id of the gateway's that carries the server's."""
    own, dot, _ = text.partition(".")
    return bool(dot) and own.count("_") == 2 and " " not in own
