"""The situations for every client. A row raises if the user is worse off than the protocol allows."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.link import Way
from tests.conformance.bench import TEXT, WORDS, Cell, a_bad_network
from tests.conformance.outcome import Client
from tests.fakes.answer import Answer, ToolCall

#: How an end is called.
_ENDS: Final = {
    "chat": {"stop": "stop", "length": "length", "tools": "tool_calls", "refused": "content_filter"},
    "native": {"stop": "stop", "length": "length", "tools": "tool_calls", "refused": "content_filter"},
    "responses": {
        "stop": "completed",
        "length": "max_output_tokens",
        "tools": "completed",
        "refused": "content_filter",
    },
    "messages": {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use", "refused": "refusal"},
    "ag-ui": {"stop": "stop", "length": "length", "tools": "tool_calls", "refused": "content_filter"},
    "ai": {"stop": "stop", "length": "length", "tools": "tool-calls", "refused": "content-filter"},
}
_READ_TIMEOUTS_S: Final = (1.0, 3.0, 9.0)
_LONG: Final = 200


@dataclass(frozen=True, slots=True)
class Row:
    """``leaves_out`` returns the reason why a client has no such cell with that provider, or None."""

    name: str
    check: Callable[[Cell], Coroutine[Any, Any, None]]
    leaves_out: Callable[[Client, str], str | None] = lambda client, provider: None


async def text(cell: Cell) -> None:
    cell.play(Answer(deltas=WORDS))
    outcome = await cell.run(cell.ask())
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT
    assert outcome.finish == _ENDS[cell.client.protocol]["stop"]


async def tools(cell: Cell) -> None:
    made = [ToolCall("a", "one", ('{"x"', ": 1}")), ToolCall("b", "two", ('{"y": "', 'é"}'))]
    cell.play(Answer(deltas=(), tools=made))
    outcome = await cell.run(cell.ask(tools=("one", "two")))
    assert outcome.error is None, outcome.error
    assert outcome.tools == [["one", {"x": 1}], ["two", {"y": "é"}]]
    assert outcome.finish == _ENDS[cell.client.protocol]["tools"]


async def reasoning(cell: Cell) -> None:
    cell.play(Answer(deltas=WORDS, reasoning=("Let me ", "think")))
    outcome = await cell.run(cell.ask())
    assert outcome.error is None, outcome.error
    assert outcome.reasoning == "Let me think"
    assert outcome.text == TEXT


async def structured(cell: Cell) -> None:
    cell.play(Answer(deltas=('{"na', 'me": "Zo', 'ë"}')))
    outcome = await cell.run(cell.ask(structured=True))
    assert outcome.error is None, outcome.error
    assert outcome.parsed == {"name": "Zoë"}


async def usage(cell: Cell) -> None:
    cell.play(Answer(deltas=WORDS, usage=(5, 7)))
    outcome = await cell.run(cell.ask())
    assert outcome.usage == [5, 7]


async def length(cell: Cell) -> None:
    cell.play(Answer(deltas=WORDS, finish_reason="length"))
    outcome = await cell.run(cell.ask())
    assert outcome.text == TEXT
    assert outcome.finish == _ENDS[cell.client.protocol]["length"]


async def refusal(cell: Cell) -> None:
    cell.play(Answer(deltas=(), refusal=("I ", "cannot."), finish_reason="content_filter"))
    outcome = await cell.run(cell.ask())
    assert outcome.text + outcome.refusal == "I cannot."
    assert outcome.finish == _refused(cell)


async def error_before(cell: Cell) -> None:
    cell.play(Answer(status=400))
    outcome = await cell.run(cell.ask())
    assert outcome.error is not None
    assert outcome.text == ""
    if cell.client.held:
        assert 400 <= int(outcome.error["status"]) <= 599


async def error_after(cell: Cell) -> None:
    cell.play(Answer(deltas=WORDS, end="error_in_band"))
    outcome = await cell.run(cell.ask())
    assert outcome.error is not None
    assert outcome.text == TEXT


async def refused_for_now(cell: Cell) -> None:
    """A client with a deferred status retries by itself; others get a retryable error."""
    cell.play(Answer(status=429, retry_after="1"), Answer(deltas=WORDS))
    outcome = await cell.run(cell.ask(max_retries=2, key=None))
    if cell.client.held:
        assert outcome.error is None, outcome.error
    if outcome.error is None:
        assert outcome.text == TEXT
        assert len(cell.calls) == 2


async def paid_once(cell: Cell) -> None:
    """The connection breaks before any output. The client repeats the request or, after a 200, resumes. A client that
    can do neither after a 200 sees an error."""
    gate = asyncio.Event()
    cell.play(Answer(deltas=WORDS, gate=gate))
    async with a_bad_network(cell.system) as (proxy, base):
        proxy.silent = Way.TO_CLIENT if cell.client.resumes == "not" else None
        running = asyncio.create_task(cell.run(cell.ask(base=base, max_retries=2, resume=not cell.client.held)))
        await cell.call()
        proxy.silent = None
        proxy.reset()
        gate.set()
        outcome = await running
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT
    assert len(cell.calls) == 1


async def cancel(cell: Cell) -> None:
    cell.play(Answer(deltas=WORDS, gate=asyncio.Event(), gate_after=3))
    outcome = await cell.run(cell.ask(leave_at="wor"))
    assert outcome.left
    call = await cell.call()
    await call.wait_closed()
    assert call.closed_by_client
    assert len(cell.calls) == 1


async def silence(cell: Cell) -> None:
    """A client whose read timeout is over on a slow machine, before any output or in the silence after it, tries
    again with a longer one."""
    for number, read_timeout_s in enumerate(_READ_TIMEOUTS_S):
        gate = asyncio.Event()
        cell.play(Answer(deltas=WORDS, gate=gate, gate_after=3))
        cell.has_output.clear()
        key = f"{cell.name}-{number}" if cell.client.needs_key else None
        running = asyncio.create_task(cell.run(cell.ask(read_timeout_s=read_timeout_s, key=key)))
        output = asyncio.create_task(cell.has_output.wait())
        await asyncio.wait((running, output), return_when=asyncio.FIRST_COMPLETED)
        output.cancel()
        if cell.has_output.is_set():
            await asyncio.wait((running,), timeout=read_timeout_s * 1.5)
        gate.set()
        outcome = await running
        if outcome.error is None:
            break
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT


async def cut(cell: Cell) -> None:
    """A cut is not taken for an end: the client gets an error, or the rest."""
    outcome = await _cut(cell, resume=False)
    if cell.client.resumes == "itself":
        assert outcome.text == TEXT
    else:
        assert outcome.error is not None


async def resume(cell: Cell) -> None:
    outcome = await _cut(cell, resume=True)
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT
    assert len(cell.calls) == 1


async def late(cell: Cell) -> None:
    """Read from the beginning, which the tail no longer has, to the end, which does not exist yet."""
    gate = asyncio.Event()
    words = [f"{n} " for n in range(_LONG)]
    cell.play(Answer(deltas=[*words, "end"], gate=gate, gate_after=_LONG))
    join = await _ask_elsewhere(cell)
    await (await cell.call()).wait_deltas(_LONG)
    running = asyncio.create_task(cell.run(cell.ask(join=join)))
    await cell.has_output.wait()
    gate.set()
    outcome = await running
    assert outcome.error is None, outcome.error
    assert outcome.text == "".join([*words, "end"])


async def _cut(cell: Cell, *, resume: bool) -> Any:
    gate = asyncio.Event()
    cell.play(Answer(deltas=WORDS, gate=gate, gate_after=3))
    async with a_bad_network(cell.system) as (proxy, base):
        running = asyncio.create_task(cell.run(cell.ask(base=base, resume=resume or cell.client.resumes == "itself")))
        await cell.has_output.wait()
        proxy.reset()
        gate.set()
        return await running


async def _ask_elsewhere(cell: Cell) -> Any:
    """Request an answer elsewhere, and return what the client needs to find it."""
    http, base, model = cell.system.http, cell.system.url, f"{cell.provider}/{cell.name}"
    match cell.client.protocol:
        case "responses":
            body: dict[str, Any] = {"model": model, "input": "hi", "background": True}
            return (await http.post(f"{base}/v1/responses", json=body)).json()["id"]
        case "ai":
            message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
            body = {"id": cell.name, "model": model, "messages": [message], "trigger": "submit-message"}
            async with http.stream("POST", f"{base}/api/chat", json=body):
                return cell.name
        case "ag-ui":
            ids = {"threadId": cell.name, "runId": cell.name}
            messages = [{"id": "u", "role": "user", "content": "hi"}]
            body = {**ids, "messages": messages, "forwardedProps": {"model": model}}
            async with http.stream("POST", f"{base}/ag-ui", json=body):
                return ids
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return (await http.post(f"{base}/chat", json=body)).json()


def _refused(cell: Cell) -> str:
    """Return the expected refusal. OpenAI's protocols have a field for the words of a refusal, so it is a whole
    answer there."""
    ends = _ENDS[cell.client.protocol]
    return ends["stop" if cell.client.protocol in {"chat", "responses"} and cell.provider == "openai" else "refused"]


def _needs_resume(client: Client, _: str) -> str | None:
    return None if client.resumes != "not" else "no resume in this protocol"


def _needs_join(client: Client, _: str) -> str | None:
    return None if client.joins else "no way to read what was asked for elsewhere"


def _needs_reasoning(client: Client, _: str) -> str | None:
    return "it does not read `reasoning_content`" if client.name == "ai, streamText by chat" else None


def _needs_refusal(_: Client, provider: str) -> str | None:
    return "Ollama has no word for it" if provider == "ollama" else None


ROWS: Final = (
    Row("text", text),
    Row("parallel tools", tools),
    Row("reasoning", reasoning, _needs_reasoning),
    Row("structured", structured),
    Row("usage", usage),
    Row("length", length),
    Row("refusal", refusal, _needs_refusal),
    Row("error before the first word", error_before),
    Row("error after it", error_after),
    Row("429, then an answer", refused_for_now),
    Row("sent again, paid once", paid_once),
    Row("cancel", cancel),
    Row("silence beyond the read timeout", silence),
    Row("connection cut", cut),
    Row("resume", resume, _needs_resume),
    Row("late, after a trim", late, _needs_join),
)
