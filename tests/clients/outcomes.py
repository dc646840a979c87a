"""One reading of a stream by each client library, in one form."""

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import headrace_client
from headrace_client import AsyncClient, Client, HeadraceError, Other
from headrace_client._retries import Retries
from headrace_client._sse import SseDecoder
from tests.conformance.node import NODE

LIBRARIES: Final = ("python", "python, synchronous", "javascript")


@dataclass
class Outcome:
    """``types`` and ``ids`` are those of the events. ``raised`` and ``wait_s``: code and ``Retry-After`` of the
    error. ``attempts``: the numbers of the retries."""

    types: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[Any] = field(default_factory=list)
    json: Any = None
    error: str | None = None
    finish_reason: str | None = None
    raised: str | None = None
    wait_s: float | None = None
    attempts: list[int] = field(default_factory=list)


async def run(program: str, **ask: object) -> Any:
    """Run a part of ``program.mjs`` and return its outcome."""
    process = await asyncio.create_subprocess_exec(
        str(NODE), str(Path(__file__).with_name("program.mjs")), stdin=PIPE, stdout=PIPE, limit=1 << 24
    )
    out, _ = await process.communicate(json.dumps({"program": program, **ask}).encode())
    assert process.returncode == 0
    return json.loads(out)


async def reading(library: str, url: str, stream: str = "s1", **options: str) -> Outcome:
    """Read a stream to its end, or until the library gives up. ``options``: key, last_event_id."""
    if library == "javascript":
        return Outcome(**await run("observe", url=url, stream=stream, **options))
    if library == "python":
        return await _by_async_client(url, stream, **options)
    return await asyncio.to_thread(_by_client, url, stream, **options)


async def _by_async_client(url: str, stream: str, key: str | None = None, last_event_id: str = "") -> Outcome:
    outcome = Outcome()
    note = outcome.attempts.append
    async with AsyncClient(url, key=key, on_retry=lambda retry: note(retry.attempt)) as client:
        answer = client.attach(stream, last_event_id=last_event_id)
        try:
            async for event in answer:
                _note(outcome, event)
        except HeadraceError as error:
            outcome.raised, outcome.wait_s = error.code, error.retry_after_s
    return _completed(outcome, answer)


def _by_client(url: str, stream: str, key: str | None = None, last_event_id: str = "") -> Outcome:
    outcome = Outcome()
    note = outcome.attempts.append
    with Client(url, key=key, on_retry=lambda retry: note(retry.attempt)) as client:
        answer = client.attach(stream, last_event_id=last_event_id)
        try:
            for event in answer:
                _note(outcome, event)
        except HeadraceError as error:
            outcome.raised, outcome.wait_s = error.code, error.retry_after_s
    return _completed(outcome, answer)


def _note(outcome: Outcome, event: headrace_client.Event) -> None:
    name = event.type if isinstance(event, Other) else type(event).__name__
    outcome.types.append(re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower())
    outcome.ids += [event.event_id] if event.event_id else []


def _completed(outcome: Outcome, answer: Any) -> Outcome:
    outcome.text, outcome.reasoning, outcome.refusal = answer.text, answer.reasoning, answer.refusal
    outcome.calls, outcome.json = answer.tool_calls, answer.json
    outcome.error = answer.error and answer.error.code
    outcome.finish_reason = answer.done and answer.done.finish_reason
    return outcome


Frames = list[list[str | None]]


async def decoded(library: str, pieces: list[list[bytes]]) -> list[tuple[Frames, int | None, int]]:
    """Return, for each list of pieces of one connection: its frames (name, data, id), the last ``retry:`` and the
    number of comments."""
    if library == "javascript":
        asked = [[piece.hex() for piece in each] for each in pieces]
        return [(frames, retry, comments) for frames, retry, comments in await run("decode", pieces=asked)]
    return [_decoded(each) for each in pieces]


def _decoded(pieces: list[bytes]) -> tuple[Frames, int | None, int]:
    decoder = SseDecoder()
    frames: Frames = [[frame.name, frame.data, frame.id] for piece in pieces for frame in decoder.feed(piece)]
    return frames, decoder.retry_ms, decoder.heartbeats


async def delays(library: str, failures: list[dict[str, Any]], *, total_s: float, first_s: float) -> list[Any]:
    """Return the (delay in seconds, number) of the retry after each failure, or the code of the error that ends them.
    A failure with ``reset`` is progress instead."""
    if library == "javascript":
        return list(await run("delays", failures=failures, total=total_s * 1000, first=first_s * 1000))
    return list(_delays(failures, total_s, first_s))


def _delays(failures: list[dict[str, Any]], total_s: float, first_s: float) -> Iterator[Any]:
    retries = Retries(total_s)
    retries.first_delay_s = first_s
    for failure in failures:
        if failure.get("reset"):
            retries.reset()
            continue
        error = HeadraceError(
            "c", "m", retryable=failure.get("retryable", True), retry_after_s=failure.get("after_s")
        )
        try:
            retry = retries.next(error)
        except HeadraceError as final:
            yield final.code
        else:
            yield [retry.delay_s, retry.attempt]
