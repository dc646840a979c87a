"""Targets: everything that a provider sends."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.errors import GenerationError, ProviderError
from shared.protocol import events
from shared.protocol.events import Event, Json
from tests.fuzz.mutations import any_text, mutated_bytes, mutated_json, split_randomly
from tests.fuzz.target import Target, from_text, from_values
from tests.wires.answers import OFFERED
from tests.wires.reading_layer import read
from tests.wires.trial import Trial
from workers.providers.base import TextDelta
from workers.providers.errors import StreamedError, Upstream, host_of, provider_error, retry_after_s
from workers.providers.framing import Cutter, EventCutter, LineCutter
from workers.providers.refusals import named_fields
from workers.providers.refused_fields import ANTHROPIC_FIELDS, OLLAMA_FIELDS, OPENAI_FIELDS, RESPONSES_FIELDS
from workers.writing.structured_output import JsonAnswer
from workers.writing.surrogates import well_formed

_UPSTREAM: Final = Upstream("x", "host", "KEY", "URL", "openai")
_FIELDS: Final = (*OPENAI_FIELDS, *ANTHROPIC_FIELDS, *OLLAMA_FIELDS, *RESPONSES_FIELDS)
_CODES: Final = ("provider_", "tool_call_invalid", "upstream_truncated")
_REPORT: Final = {
    "error": {
        "message": 'Error code: 429 - {"error": {"message": "rate limit", "code": 429}}',
        "type": "invalid_request_error",
        "param": "messages.0.content",
        "code": "context_length_exceeded",
        "metadata": {"raw": '{"error":"overloaded"}'},
        "details": [{"loc": ["body", "x"], "msg": "extra fields not permitted", "type": "extra_forbidden"}],
    },
    "status": 503,
}
_DATE: Final = "Thu, 01 Jan 1970 00:00:00 GMT"
_JSON_TEXT: Final = 'Sure: {"a": ["x", 1, null, {"b": 1.5e3}], "c": "\\ud83e\\udd4a", "d": {"e": [[]]}} ok'
_JSON_SCHEMA: Final = {
    "type": "object",
    "properties": {"a": {"type": "array"}, "c": {"type": "string", "pattern": "^(x+)+$"}},
}


@dataclass(frozen=True)
class _Response:
    """A body in pieces, as they are read."""

    wire: str
    pieces: Sequence[bytes]
    is_reset: bool


def _response(rng: random.Random) -> _Response:
    """Make a generated response of any provider, with mutations on top of those of ``tests/wires``."""
    stream, _, _ = Trial(rng.randrange(10**6), rng.randrange(10**6)).stream()
    if rng.random() < 0.5:
        for event in rng.sample(stream.events, min(len(stream.events), rng.randrange(1, 4))):
            event.raw = _line(mutated_json(event.data, rng))
    body = stream.body()
    if rng.random() < 0.6:
        body = mutated_bytes(body, rng)
    return _Response(stream.wire, split_randomly(body, rng), stream.is_reset)


def _line(data: Any) -> str:
    try:
        return json.dumps(data)
    except (RecursionError, ValueError):
        return "{"


def _read(response: _Response) -> None:
    seen = asyncio.run(read(response.wire, response.pieces, OFFERED, is_reset=response.is_reset))
    faults = [fault for fault in seen.faults if fault != "neither an end nor an error"]
    assert not faults, faults
    seen.text.encode()
    assert seen.error is None or seen.error.startswith(_CODES)


def _frame(body: bytes) -> None:
    """Check that framing does not depend on how the body is split."""
    pieces = split_randomly(body, random.Random(len(body)))
    for make in (EventCutter, LineCutter):
        assert _cut(make(), pieces) == _cut(make(), [body])


def _cut(cutter: Cutter, reads: Sequence[bytes]) -> list[bytes]:
    return [*(piece for read in reads for piece in cutter.feed(read)), *cutter.end()]


def _framed(rng: random.Random) -> bytes:
    return b"".join(_response(rng).pieces)[:20_000]


def _report(raw: Any) -> None:
    error = provider_error(StreamedError(raw), _UPSTREAM, model="m", started=True)
    _check_error(error)
    named_fields(raw, _FIELDS)


def _report_text(text: str) -> None:
    """Report an error as text, which may quote JSON."""
    _report(text)
    _report({"error": {"message": text, "code": text}})


def _check_error(error: ProviderError) -> None:
    assert error.code.startswith(_CODES)
    assert len(error.message) < 300
    assert error.param is None or len(error.param) <= 64


def _retry_after(text: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        wait_s = retry_after_s({name: text})
        assert wait_s is None or wait_s >= 0


def _host(text: str) -> None:
    assert "@" not in host_of(text)


@dataclass(frozen=True)
class _Answer:
    text: str
    cut: int
    depth: int


def _json_answer(rng: random.Random) -> _Answer:
    return _Answer(any_text([_JSON_TEXT], rng), rng.randrange(1, 30), rng.randrange(1, 5))


def _structured(made: _Answer) -> None:
    answer = JsonAnswer(_JSON_SCHEMA, depth=made.depth)
    values: list[Event] = []
    text = made.text if len(made.text) < 5000 else made.text[:5000]
    for at in range(0, len(text), made.cut):
        values += answer.take([TextDelta(text[at : at + made.cut])])
    try:
        values.append(answer.finish())
    except GenerationError as error:
        assert error.code == "schema_violation"
        assert len(error.message) < 300
    for event in values:  # every event can be stored and read again
        assert isinstance(events.decode(events.encode(event)), Json)


def _surrogates(text: str) -> None:
    well_formed(text).encode()


def _halves(rng: random.Random) -> str:
    return any_text(["a\U0001f94ab"], rng) + chr(rng.randrange(0xD800, 0xE000)) * rng.randrange(3)


PROVIDERS: Final = (
    Target("provider-response", _response, _read),
    Target("provider-framing", _framed, _frame),
    Target("provider-report", from_values(_REPORT, _REPORT["error"], [_REPORT]), _report),
    Target("provider-report-text", from_text(json.dumps(_REPORT), "rate limit: HTTP 503"), _report_text),
    Target("retry-after", from_text("5", "1.5", _DATE), _retry_after),
    Target("provider-host", from_text("http://u:p@host:80/v1", "host:11434", "[::1]:1"), _host, (ValueError,)),
    Target("json-answer", _json_answer, _structured),
    Target("surrogates", _halves, _surrogates),
)
