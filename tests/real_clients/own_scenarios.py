"""Situations of single programs, by the program's name and the scenario's. The table of programs leaves them out."""

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from tests.fakes import Answer
from tests.fakes.answer import Call
from tests.real_clients.cell import Cell
from tests.real_clients.scenarios import FINAL, TEXT, Scenario

#: As long as a conversation that an agent compacts.
_LONG: Final = "\n".join(f'{number:06} a line of a long log, with "quotes", \\ and é' for number in range(10_000))
_SUMMARY: Final = "the summary of the conversation"


async def compact(cell: Cell) -> None:
    """Send 500 kB, compact the conversation, and go on with its summary: Claude Code's ``/compact``."""
    session = str(uuid.uuid4())
    cell.plays(FINAL)
    outcome = await cell.run("text", options=["--session-id", session], stdin=_LONG.encode())
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT
    assert _has(cell.calls[-1], _LONG), "the provider has to get the whole prompt"
    before = len(_requests(cell))
    cell.play.side_answer = Answer(deltas=(f"<summary>{_SUMMARY}</summary>",))
    cell.plays(cell.play.side_answer)
    outcome = await cell.run("text", prompt="/compact", options=["--resume", session])
    assert outcome.error is None, outcome.error
    assert any(_has(call, _LONG) for call in _requests(cell)[before:]), "the summary is made of the whole history"
    cell.plays(FINAL)
    outcome = await cell.run("text", options=["--resume", session])
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT
    assert _has(cell.calls[-1], _SUMMARY)
    assert not _has(cell.calls[-1], _LONG)


async def recovery(cell: Cell) -> None:
    """Claude Code leaves the old thinking out if the provider refuses its signature, and finishes the task."""
    refusal = {
        "type": "invalid_request_error",
        "message": "messages.1.content.0: Invalid `signature` in `thinking` block",
    }
    call = cell.program.append("1", "one")
    cell.plays(Answer(deltas=(), reasoning=("Hm",), tools=[call]), FINAL)
    cell.play.refused_once = Answer(status=400, error_body={"type": "error", "error": refusal})
    outcome = await cell.run("tools")
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT
    assert cell.lines == ["one"]
    assert cell.play.results == [0, 1, 1]


async def model_discovery(cell: Cell) -> None:
    """Claude Code lists the gateway's models in its picker."""
    cell.plays(FINAL)
    settings = {"env": {"CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1"}}
    outcome = await cell.run("text", options=["--settings", json.dumps(settings)])
    assert outcome.error is None, outcome.error
    found = json.loads((cell.home / ".claude" / "cache" / "gateway-models.json").read_text())
    assert "anthropic/claude-sonnet-4-5" in json.dumps(found)


def _requests(cell: Cell) -> list[Call]:
    return [*cell.play.side_calls, *cell.calls]


def _has(call: Call, text: str) -> bool:
    return any(text in found for found in _texts(call.request["messages"]))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for member in members for text in _texts(member)]


OWN_SCENARIOS: Final[Mapping[str, Mapping[str, Scenario]]] = {
    "claude-code": {"compact": compact, "recovery": recovery, "model discovery": model_discovery},
}
