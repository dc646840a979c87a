"""Every parser ends on any input, and raises only its documented exceptions.

Hypothesis generates the inputs here; ``tests/fuzz`` has more targets, and runs for an hour at night.
"""

import asyncio
import base64
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import jwt
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.auth.tickets import Tickets
from headrace_client._sse import Frame, SseDecoder
from shared.errors import (
    GenerationError,
    InvalidJson,
    InvalidLastEventId,
    InvalidRequest,
    InvalidTicket,
    ProviderError,
)
from shared.protocol import events
from shared.protocol.events import Done, Event, Json, Start, Token, ToolCall, Usage
from shared.protocol.ids import parse_cursor
from shared.protocol.transcript import fold
from shared.schemas import parse_chat_request
from shared.settings import Settings
from tests.fuzz.running import failure_of, failures
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS
from workers.providers.anthropic_reader import MessageReader
from workers.providers.base import TextDelta
from workers.providers.errors import StreamedError, Upstream, provider_error, retry_after_s
from workers.providers.framing import Cutter, EventCutter, LineCutter
from workers.providers.http_calls import NETWORK_ERRORS, ProviderCall
from workers.providers.ollama_reader import OllamaReader
from workers.providers.openai_reader import ChatCompletionReader
from workers.providers.reading import AnswerReader, deltas_of
from workers.providers.response_body import ResponseBody
from workers.providers.tool_calls import ToolCalls
from workers.writing.structured_output import JsonAnswer
from workers.writing.surrogates import well_formed

#: The same examples every time.
repeatable = settings(
    derandomize=True, deadline=None, max_examples=250, database=None, suppress_health_check=list(HealthCheck)
)

DEEP = 20_000
HOSTILE = [
    b"\0",
    b"\n\n",
    b"\r",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"\\u0000",
    b"null",
    b"-",
    b"{}",
    b"[]",
    b'""',
    b"1e999",
    b"NaN",
    b"-0",
    b"9" * 5000,
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b"data:",
    b"data: [DONE]\n\n",
    b'"index":-1,',
    b'"error":',
    b"true",
]
HOSTILE_TEXT = [part.decode("latin-1") for part in HOSTILE] + ["\ud800", "\udc00", "\u0663", "²", "\u2028"]


@st.composite
def mutated(draw: st.DrawFn, good: list[bytes]) -> bytes:
    """Draw one of ``good`` with parts removed, doubled, overwritten or replaced by hostile bytes."""
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        upto = min(len(data), at + draw(st.integers(0, 12)))
        data[at:upto] = draw(st.sampled_from([b"", bytes(data[at:upto]) * 2, *HOSTILE]) | st.binary(max_size=4))
    return bytes(data)


def anything(*good: bytes) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=60) | mutated(list(good)) if good else st.binary(max_size=200)


TEXT = st.text(max_size=60) | st.lists(st.sampled_from(HOSTILE_TEXT), max_size=3).map("".join)


# --- input of clients


@repeatable
@given(TEXT | st.text("0123456789-", max_size=40) | anything(b"3-42", b"0-0").map(lambda b: b.decode("latin-1")))
def test_any_cursor_is_parsed_or_refused(text: str) -> None:
    try:
        epoch, seq = parse_cursor(text)
    except InvalidLastEventId:
        return
    assert 0 <= epoch < 10**15
    assert 0 <= seq < 10**15


WHOLE_REQUEST: dict[str, Any] = {
    "model": "m",
    "provider": "openai",
    "messages": [
        {"role": "system", "content": "x"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "https://x/"}}],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ],
    "temperature": 0.5,
    "max_tokens": 5,
    "stop": ["x"],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "n",
            "schema": {"$ref": "#/$defs/a", "$defs": {"a": {"pattern": "(a|b)*c", "enum": [1]}}},
        },
    },
    "fallbacks": ["a/b"],
    "grace_s": 1,
    "metadata": {"a": "b"},
}
REQUEST = json.dumps(WHOLE_REQUEST).encode()
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(HOSTILE_TEXT) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _parse_request(body: bytes) -> None:
    try:
        request = parse_chat_request(body)
    except (InvalidJson, InvalidRequest) as error:
        assert len(error.message) < 2000  # noqa: PT017
        return
    assert parse_chat_request(request.model_dump_json(exclude_none=True).encode()) == request


@repeatable
@given(anything(REQUEST))
@example(REQUEST)
@example(json.dumps({**WHOLE_REQUEST, "9" * 5000: 1}).encode())
def test_any_bytes_as_a_request_are_parsed_or_refused(body: bytes) -> None:
    _parse_request(body)


@st.composite
def swapped(draw: st.DrawFn, whole: Any) -> Any:
    """Draw ``whole`` with one value somewhere in it replaced by another kind of value."""
    if not isinstance(whole, dict | list) or not whole or draw(st.integers(0, 3)) == 0:
        return draw(_VALUE)
    if isinstance(whole, dict):
        key = draw(st.sampled_from(sorted(whole)))
        return {**whole, key: draw(swapped(whole[key]))}
    at = draw(st.integers(0, len(whole) - 1))
    return [*whole[:at], draw(swapped(whole[at])), *whole[at + 1 :]]


@repeatable
@given(swapped(WHOLE_REQUEST))
def test_a_request_with_any_value_is_parsed_or_refused(request: Any) -> None:
    _parse_request(json.dumps(request).encode())


SECRET = "a-secret-for-tests-only-0123456789abcdef"
TICKETS = Tickets(Settings.model_validate({"secret": SECRET}))
STREAM_ID = "a3" + "0" * 32
GOOD_TICKET = TICKETS.for_request(STREAM_ID, 0)[0]


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _is_refused(ticket: str) -> None:
    with pytest.raises(InvalidTicket):
        TICKETS.check(ticket, STREAM_ID)


@repeatable
@given(anything(GOOD_TICKET.encode()).map(lambda b: b.decode("latin-1")) | TEXT)
def test_any_text_as_a_ticket_is_refused(ticket: str) -> None:
    ticket = well_formed(ticket)  # as a URL has it
    if ticket != GOOD_TICKET:
        # The last character of a signature has bits that mean nothing.
        if ticket[:-1] == GOOD_TICKET[:-1]:
            return
        _is_refused(ticket)


@repeatable
@given(anything(b'{"alg":"HS256","typ":"JWT"}'), anything(b'{"sub":"x","exp":9999999999}'), st.binary(max_size=40))
def test_any_parts_as_a_ticket_are_refused(header: bytes, claims: bytes, signature: bytes) -> None:
    _is_refused(f"{_part(header)}.{_part(claims)}.{_part(signature)}")


@repeatable
@given(
    st.fixed_dictionaries({}, optional={"sub": _VALUE, "aud": _VALUE, "exp": _VALUE, "nbf": _VALUE, "rev": _VALUE})
)
def test_a_validly_signed_ticket_with_other_claims_is_refused(claims: dict[str, Any]) -> None:
    """Another version of the gateway may sign other claims with the same secret."""
    try:
        text = json.dumps(claims).encode()
    except ValueError:
        return
    signed = jwt.PyJWS().encode(text, SECRET, algorithm="HS256")
    _is_refused(signed)


# --- input of providers


def _openai(**delta: object) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}).encode()


CALL = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"a":1}'}}
PIECES = {
    "openai": [
        _openai(content="x"),
        _openai(reasoning_content="x", refusal="y"),
        _openai(tool_calls=[CALL]),
        b'{"choices":[{"delta":{},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
        b'{"error":{"code":"429","type":"x"}}',
        b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
        b"[DONE]",
    ],
    "anthropic": [
        b'{"type":"message_start","message":{"usage":{"input_tokens":1,"output_tokens":1}}}',
        b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"x"}}',
        b'{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"a","name":"f","input":{}}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}',
        b'{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\\"a\\":"}}',
        b'{"type":"content_block_stop","index":1}',
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}',
        b'{"type":"message_stop"}',
        b'{"type":"error","error":{"type":"overloaded_error"}}',
    ],
    "ollama": [
        b'{"message":{"content":"x","thinking":"y"},"done":false}',
        b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]},"done":false}',
        b'{"done":true,"done_reason":"stop","prompt_eval_count":1,"eval_count":2}',
        b'{"error":"x"}',
    ],
}
DOCUMENTED: tuple[type[Exception], ...] = (*NETWORK_ERRORS, StreamedError, ProviderError)
UPSTREAM = Upstream("x", "host", "KEY", "URL", "openai")


def _answer(name: str) -> tuple[AnswerReader, ProviderCall]:
    exchange = ProviderCall(UPSTREAM, "m", (*NETWORK_ERRORS, StreamedError))
    calls = ToolCalls(name)
    answers: dict[str, Callable[[], AnswerReader]] = {
        "openai": lambda: ChatCompletionReader(exchange, calls),
        "anthropic": lambda: MessageReader(exchange, calls, by_tool=False),
        "ollama": lambda: OllamaReader(exchange, calls),
    }
    return answers[name](), exchange


def _pieces(name: str) -> st.SearchStrategy[list[bytes]]:
    return st.lists(st.sampled_from(PIECES[name]) | anything(*PIECES[name]), max_size=6)


@pytest.mark.parametrize("name", PIECES)
@repeatable
@given(data=st.data())
def test_any_pieces_of_an_answer_raise_only_documented_errors(name: str, data: st.DataObject) -> None:
    answer, _ = _answer(name)
    for piece in data.draw(_pieces(name)):
        try:
            for delta in answer.take(piece):
                repr(delta)
        except DOCUMENTED:
            return


def _reads(body: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = 0
    for cut in [*sorted(cut % (len(body) + 1) for cut in cuts), len(body)]:
        yield body[at:cut]
        at = cut


async def _each(reads: Iterable[bytes]) -> AsyncIterator[bytes]:
    for read in reads:
        yield read


CUTS = st.lists(st.integers(0, 10_000), max_size=6)


def _all(cutter: Cutter, reads: Iterable[bytes]) -> list[bytes]:
    return [*(piece for read in reads for piece in cutter.feed(read)), *cutter.end()]


@pytest.mark.parametrize("make", [EventCutter, LineCutter])
@repeatable
@given(body=anything(b"data: x\r\n\r\n: c\ndata:y\ndata: z\n\nevent: e\n", b'{"a":1}\n\n{"b":2}\r\n'), cuts=CUTS)
def test_framing_does_not_depend_on_reads(make: Callable[[], Cutter], body: bytes, cuts: list[int]) -> None:
    in_reads, at_once = _all(make(), _reads(body, cuts)), _all(make(), [body])
    assert in_reads == at_once
    assert not any(b"\n\n" in piece for piece in at_once)


@pytest.mark.parametrize("name", PIECES)
@repeatable
@given(data=st.data())
def test_any_answer_ends_as_an_answer_or_as_a_provider_error(name: str, data: st.DataObject) -> None:
    form = b"%b\n" if name == "ollama" else b"data: %b\n\n"
    good = b"".join(form % piece for piece in PIECES[name])
    body = data.draw(mutated([good]) | _pieces(name).map(lambda pieces: b"".join(form % p for p in pieces)))
    cuts = data.draw(CUTS)

    async def read() -> None:
        answer, exchange = _answer(name)
        exchange.started = True
        with exchange:
            cutter = LineCutter() if name == "ollama" else EventCutter()
            async for deltas in deltas_of(ResponseBody(_each(_reads(body, cuts))), cutter, answer, 2):
                assert deltas

    try:
        asyncio.run(read())
    except ProviderError as error:
        assert error.code.startswith(("provider_", "tool_call_invalid", "upstream_truncated"))  # noqa: PT017
        assert len(error.message) < 300  # noqa: PT017


@repeatable
@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms"]), TEXT | st.datetimes().map(str) | st.floats().map(str)
    )
)
@example({"retry-after-ms": "9" * 5000})
@example({"retry-after": "9" * 5000})
@example({"retry-after": "Mon, 01 Jan 0001 00:00:00 -0000"})
@example({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"})
@example({"retry-after": f"Thu, 01 Jan 1970 00:00:{'9' * 400} GMT"})
def test_any_retry_after_is_a_time_or_ignored(headers: dict[str, str]) -> None:
    wait_s = retry_after_s(headers)
    assert wait_s is None or wait_s >= 0


@repeatable
@given(_VALUE, _VALUE)
@example("9" * 5000, None)
def test_any_error_of_a_provider_has_a_code(code: object, kind: object) -> None:
    error = provider_error(StreamedError({"code": code, "type": kind}), UPSTREAM, model="m", started=True)
    assert error.code.startswith(("provider_", "tool_call_invalid"))


SCHEMA = {"type": "object", "properties": {"a": {"type": "array", "items": {"pattern": "^(x+)+$"}}}}
JSON_TEXT = b'Sure: {"a": ["x", 1, null, {"b": 1.5e3}], "c": "\\ud83e\\udd4a", "d": {"e": [[]]}} ok'


@repeatable
@given(anything(JSON_TEXT).map(lambda b: b.decode("latin-1")) | TEXT, CUTS, st.integers(1, 4))
def test_any_text_as_a_json_answer_is_parsed_or_a_schema_violation(text: str, cuts: list[int], depth: int) -> None:
    answer = JsonAnswer(SCHEMA, depth=depth)
    values: list[Event] = []
    at = 0
    for cut in [*sorted(cut % (len(text) + 1) for cut in cuts), len(text)]:
        values += answer.take([TextDelta(text[at:cut])])
        at = cut
    try:
        values.append(answer.finish())
    except GenerationError as error:
        assert error.code == "schema_violation"  # noqa: PT017
        assert len(error.message) < 300  # noqa: PT017
    for event in values:  # every event can be stored and read again
        assert isinstance(events.decode(events.encode(event)), Json)


@repeatable
@given(TEXT)
def test_any_text_can_be_made_well_formed(text: str) -> None:
    well_formed(text).encode()


# --- our own data

STORED = [
    events.encode(event)
    for event in (
        Start("s", "m", "p", 1),
        Token("x", 0),
        ToolCall(0, "{}", "a", "f", complete=True),
        Json(["a", 1], {"b": None}),
        Done("stop", None, Usage(1, 2)),
    )
]


@repeatable
@given(anything(*STORED))
def test_any_stored_event_is_decoded_or_refused(stored: bytes) -> None:
    try:
        event = events.decode(stored)
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    assert events.encode(event).split(b" ")[0] == event.TYPE
    fold([event])


STREAM = b'retry: 1000\nid: 3-1\nevent: token\ndata: {"token":"x"}\n\n: ping\nid: 3-2\nevent: done\ndata: {}\r\n\r\n'


@repeatable
@given(anything(STREAM), CUTS)
@example(b"retry: " + b"9" * 5000 + b"\n", [])
def test_events_do_not_depend_on_how_the_stream_is_split(body: bytes, cuts: list[int]) -> None:
    whole, in_reads = SseDecoder(), SseDecoder()
    at_once = list(whole.feed(body))
    at = 0
    events_read: list[Frame] = []
    for cut in [*sorted(cut % (len(body) + 1) for cut in cuts), len(body)]:
        events_read += in_reads.feed(body[at:cut])
        at = cut
    assert events_read == at_once
    assert in_reads.retry_ms == whole.retry_ms


# --- the fuzzer


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_parser_withstands_its_mutated_inputs(target: Target) -> None:
    """A part of ``python -m tests.fuzz``; always the same inputs."""
    found = failures(target, seed=1, numbers=range(200))
    assert not found, "\n\n".join(found[:2])


def test_the_fuzzer_reports_what_is_not_documented() -> None:
    def run(made: bytes) -> None:
        if b"x" not in made:
            raise KeyError(made)

    (target,) = (each for each in TARGETS if each.name == "stored-event")
    broken = dataclasses.replace(target, run=run, documented=(ValueError,))
    found = failures(broken, seed=1, numbers=range(100))
    assert found
    assert all("KeyError" in each and "--number " in each for each in found)


def test_the_fuzzer_stops_an_input_that_takes_too_long() -> None:
    def run(made: bytes) -> None:
        while True:
            pass

    endless = dataclasses.replace(TARGETS[0], run=run)
    failure = failure_of(endless, 1, 0, most_cpu_s=0.05)
    assert failure is not None
    assert "TooExpensive" in failure
