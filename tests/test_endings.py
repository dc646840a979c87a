"""Every ending and failure of a provider is reported as the table of docs/providers.md describes."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from shared.protocol import events
from tests.conftest import RESPONSES
from tests.fakes import Answer, Counts, FakeProvider, ToolCall
from tests.provider_client import NETWORK, Make, ask, collect, failure, network, text_in
from tests.raw_server import answering
from tests.sse_client import Frame, text_of
from tests.system import System
from workers.providers.base import Delta, Finished, ToolCallDelta

DOCS = Path(__file__).parent.parent / "docs" / "providers.md"


@dataclass(frozen=True)
class Row:
    """``ends``: ``error <code>``, ``error <code>, retryable`` or the finish_reason, with its reason if there is one.
    ``tries``: number of calls by a worker that retries once."""

    answer: Answer
    ends: str
    text: str = ""
    tries: int = 1
    body: tuple[tuple[str, Any], ...] = ()
    only: tuple[str, ...] = NETWORK


TOOL = ("tools", [{"type": "function", "function": {"name": "f"}}])
JSON = ("response_format", {"type": "json_object"})
HALF = ("a", "b")
#: Input tokens of a prompt of one word with 40 characters, without the counts of the end: Anthropic reports its own
#: before its output.
INPUT = {"anthropic": 1}

ROWS: dict[str, Row] = {
    "reset before a word": Row(Answer(end="refuse"), "error provider_unreachable, retryable", tries=2),
    "HTTP 400": Row(Answer(status=400), "error provider_rejected"),
    "HTTP 401": Row(Answer(status=401), "error provider_auth"),
    "HTTP 403": Row(Answer(status=403), "error provider_auth"),
    "HTTP 404": Row(Answer(status=404), "error provider_model_not_found"),
    "HTTP 408": Row(Answer(status=408), "error provider_unavailable, retryable", tries=2),
    "HTTP 413": Row(Answer(status=413), "error provider_rejected"),
    "HTTP 422": Row(Answer(status=422), "error provider_rejected"),
    "HTTP 429": Row(Answer(status=429), "error provider_rate_limited, retryable", tries=2),
    "HTTP 500": Row(Answer(status=500), "error provider_unavailable, retryable", tries=2),
    "HTTP 503": Row(Answer(status=503), "error provider_unavailable, retryable", tries=2),
    "HTTP 529": Row(Answer(status=529), "error provider_unavailable, retryable", tries=2),
    "a web page": Row(Answer(raw=b"<html>\n\n<p>Welcome</p>\n</html>\n"), "error provider_protocol"),
    "not its protocol": Row(Answer(raw=b'event: x\ndata: {"cho\n\n{"mes\n'), "error provider_protocol"),
    "silence": Row(Answer(deltas=(), end="hang"), "error provider_first_token_timeout, retryable", tries=2),
    "pings only": Row(Answer(deltas=(), end="ping"), "error provider_first_token_timeout, retryable", tries=2),
    "silence after text": Row(Answer(deltas=HALF, end="hang"), "error provider_idle_timeout, retryable", "ab"),
    "pings after text": Row(Answer(deltas=HALF, end="ping"), "error provider_idle_timeout, retryable", "ab"),
    "no end marker": Row(Answer(deltas=HALF, end="truncate"), "error upstream_truncated, retryable", "ab"),
    "nothing at all": Row(Answer(raw=b""), "error upstream_truncated, retryable", tries=2),
    "error after text": Row(Answer(deltas=HALF, end="error_in_band"), "error provider_unavailable, retryable", "ab"),
    "error after HTTP 200": Row(
        Answer(deltas=(), end="error_in_band"), "error provider_unavailable, retryable", tries=2
    ),
    "rate limit after HTTP 200": Row(
        Answer(deltas=(), end="error_in_band", error_type="rate_limit_error"),
        "error provider_rate_limited, retryable",
        tries=2,
        only=("openai", "anthropic"),
    ),
    "end": Row(Answer(deltas=HALF), "stop", "ab"),
    "limit": Row(Answer(deltas=HALF, finish_reason="length"), "length", "ab"),
    "tool calls": Row(Answer(deltas=HALF, tools=(ToolCall("c", "f"),)), "tool_calls", "ab", body=(TOOL,)),
    "tool call that does not parse": Row(
        Answer(deltas=HALF, tools=(ToolCall("c", "f", ("{",)),)),
        "error tool_call_invalid, retryable",
        "ab",
        body=(TOOL,),
        only=("openai", "anthropic", "responses"),
    ),
    "content filter": Row(
        Answer(deltas=HALF, finish_reason="content_filter"), "content_filter", "ab", only=("openai", "responses")
    ),
    "refusal": Row(
        Answer(deltas=(), refusal=HALF, finish_reason="content_filter"),
        "content_filter, refusal",
        only=("openai", "anthropic", "responses"),
    ),
    "empty answer": Row(Answer(deltas=()), "stop, empty_answer"),
    "not the JSON that was asked for": Row(
        Answer(deltas=HALF), "error schema_violation, retryable", "ab", body=(JSON,)
    ),
}


#: Timeouts of the models that fall silent. Those of all others are long: a busy machine must make none of them late.
TIMEOUTS = {
    f"{name}/{name}-{title}": timeouts
    for title, timeouts in {
        "silence": {"first_token_s": 1},
        "pings only": {"first_token_s": 1},
        "silence after text": {"between_tokens_s": 1},
        "pings after text": {"between_tokens_s": 1},
    }.items()
    for name in NETWORK
}


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Yield one gateway and one worker that retries once."""
    system = System(
        tmp_path_factory.mktemp("endings"),
        gateways=1,
        workers=1,
        providers=NETWORK,
        configuration=RESPONSES,
        provider_retries=1,
        model_timeouts=json.dumps(TIMEOUTS),
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


def ending_of(frames: list[Frame]) -> str:
    done = frames[-1].data
    if done["finish_reason"] != "error":
        return f"{done['finish_reason']}, {done['reason']}" if done["reason"] else str(done["finish_reason"])
    error = frames[-2].data
    assert (frames[-2].event, error["code"]) == ("error", done["reason"])
    return f"error {error['code']}" + (", retryable" if error["retryable"] else "")


@pytest.mark.parametrize(("name", "title"), [(name, title) for title, row in ROWS.items() for name in row.only])
async def test_each_ending_of_a_provider_is_reported_as_documented(system: System, name: str, title: str) -> None:
    row, model = ROWS[title], f"{name}-{title}"
    system.fake.play(model, row.answer)
    async with await system.stream(model, "my secret prompt", provider=name, **dict(row.body)) as connection:
        frames = await connection.rest()
    assert ending_of(frames) == row.ends
    refused = "".join(frame.data["text"] for frame in frames if frame.event == "refusal")
    assert text_of(frames) + refused == (row.text or "".join(row.answer.refusal))
    assert sum(call.model == model for call in system.fake.calls) == row.tries
    assert sum(frame.event == "done" for frame in frames) == 1
    assert frames[-1].data["usage"] is not None
    # Providers repeat prompts and keys in their errors.
    assert "secret" not in json.dumps([frame.data for frame in frames])
    status = await system.status(connection.stream_id)
    assert status["text"] == text_of(frames)


def test_the_docs_have_the_same_table() -> None:
    section = DOCS.read_text().partition("## How an answer ends")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| (.+?) \| .* \| `(.+?)` \|$", section, re.MULTILINE)
    assert dict(documented) == {title: row.ends for title, row in ROWS.items()}


# --- usage


@network
async def test_a_cancel_reports_the_tokens_saved(system: System, name: str) -> None:
    gate = asyncio.Event()
    system.fake.play(f"{name}-saved", Answer(deltas=["word "] * 10, gate=gate, gate_after=10, reasoning=["hm"]))
    stream_id = await system.post(f"{name}-saved", "p" * 40, provider=name, max_tokens=100)
    async with await system.read(stream_id) as connection:
        frames: list[Frame] = []
        while text_of(frames) != "word " * 10:
            frames += await connection.take(1)
        await system.http.post(f"{system.url}/chat/{stream_id}/cancel")
        frames += await connection.rest()
    gate.set()
    usage = frames[-1].data["usage"]
    # 52 characters are 13 tokens, by the rule of thumb.
    counted = {"input_tokens": INPUT.get(name, 10), "output_tokens": 13}
    assert usage == counted | {"estimated": True, "tokens_saved": 87}
    assert (await system.status(stream_id))["usage"] == usage


@network
@pytest.mark.parametrize("end", ["truncate", "error_in_band"])
async def test_the_usage_of_a_failed_answer_is_estimated(system: System, name: str, end: Any) -> None:
    system.fake.play(f"{name}-{end}-usage", Answer(deltas=["word "] * 8, end=end))
    async with await system.stream(f"{name}-{end}-usage", "p" * 40, provider=name, max_tokens=50) as connection:
        frames = await connection.rest()
    counted = {"input_tokens": INPUT.get(name, 10), "output_tokens": 10}
    assert frames[-1].data["usage"] == counted | {"estimated": True}


@network
async def test_usage_that_the_provider_does_not_report_is_estimated(system: System, name: str) -> None:
    system.fake.play(f"{name}-silent", Answer(deltas=["word "] * 8, usage=None))
    async with await system.stream(f"{name}-silent", "p" * 40, provider=name) as connection:
        frames = await connection.rest()
    assert frames[-1].data["usage"] == {"input_tokens": 10, "output_tokens": 10, "estimated": True}


@network
async def test_the_side_that_the_provider_does_not_count_is_estimated(system: System, name: str) -> None:
    for counts, expected in (
        (Counts(30, None, cached=20), {"input_tokens": 30, "output_tokens": 10, "cached_tokens": 20}),
        (Counts(None, 9), {"input_tokens": 10, "output_tokens": 9}),
    ):
        system.fake.play(f"{name}-half", Answer(deltas=["word "] * 8, usage=counts))
        async with await system.stream(f"{name}-half", "p" * 40, provider=name) as connection:
            frames = await connection.rest()
        assert frames[-1].data["usage"] == {**expected, "estimated": True}


@network
async def test_counts_are_in_start_in_done_and_in_the_status(system: System, name: str) -> None:
    answer = Answer(deltas=["word "] * 8, usage=Counts(30, 9, cached=20, cache_write=4, reasoning=5))
    system.fake.play(f"{name}-details", answer)
    async with await system.stream(f"{name}-details", provider=name) as connection:
        frames = await connection.rest()
    (start,) = [frame.data for frame in frames if frame.event == "start"]
    at_once = {"input_tokens": 30, "cached_tokens": 20, "cache_write_tokens": 4}
    assert start.get("usage") == (at_once if name == "anthropic" else None)
    usage = {"input_tokens": 30, "output_tokens": 9, "estimated": False, "cached_tokens": 20}
    if name != "ollama":
        usage |= {"cache_write_tokens": 4, "reasoning_tokens": 5}
    assert frames[-1].data["usage"] == usage
    assert (await system.status(connection.stream_id))["usage"] == usage


@network
async def test_an_unknown_finish_reason_is_kept_as_the_reason(system: System, name: str) -> None:
    word = "Out of ideas! " * 9
    system.fake.play(f"{name}-odd", Answer(deltas=["word "] * 8, finish_reason=word))
    async with await system.stream(f"{name}-odd", provider=name) as connection:
        frames = await connection.rest()
    assert ending_of(frames) == f"stop, {word[:64]}"
    assert (await system.status(connection.stream_id))["reason"] == word[:64]


# --- segmentation

TEXT = ("Zwölf ", "Boxkämpfer 🥊", "\n", "jagen\r\n\n", "Viktor\u2028", ' "quer" \x85 \\ ', "data: x\n\n")
EVERYTHING = Answer(
    reasoning=("Hm", "…"),
    deltas=TEXT,
    tools=(ToolCall("a", "f", ('{"k": "\\ud83e', '\\udd4a ü"', "}")), ToolCall("b", "g", ('{"n"', ": [1, 2]}"))),
    usage=(5, 7),
    comments=True,
    unknown=True,
)


@network
@pytest.mark.parametrize("crlf", [False, True])
async def test_a_providers_bytes_may_be_split_anywhere(fake: FakeProvider, make: Make, name: str, crlf: bool) -> None:
    """Over a real socket, each part is a segment and a chunk of its own. Separate frames may arrive together."""
    provider = make(name)
    answer = replace(EVERYTHING, crlf=crlf)
    fake.play("m", answer)
    request = ask("m", tools=[{"type": "function", "function": {"name": name}} for name in ("f", "g")])
    whole = summary(await collect(provider, request))
    assert [text for kind, text in whole if kind == "TextDelta"] == list(TEXT)
    assert len(whole) == len(TEXT) + 2 + (4 if name == "ollama" else 5 + 2) + 1
    cuts = [replace(answer, frame_bytes=size) for size in (1, 2)]
    for cut in cuts + [replace(answer, cut_seed=seed) for seed in range(25)]:
        fake.play("m", cut)
        assert summary(await collect(provider, request)) == whole


def summary(deltas: list[Delta | Finished]) -> list[tuple[str, object]]:
    """Return everything except ids, which are generated if a provider has none, and data of its own."""
    parts: list[tuple[str, object]] = []
    for delta in deltas:
        match delta:
            case ToolCallDelta():
                parts.append(("fragment", (delta.index, delta.name, delta.text)))
            case events.ToolCall():
                parts.append(("call", (delta.index, delta.name, delta.arguments)))
            case events.Extra():
                pass
            case Finished() | events.Json():
                parts.append(("end", delta))
            case _:
                parts.append((type(delta).__name__, delta.text))
    return parts


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        ({"error": {"code": 400, "type": "BadRequestError"}}, "provider_rejected"),
        ({"error": {"code": 429}}, "provider_rate_limited"),
        ({"error": {"type": "AuthenticationError"}}, "provider_auth"),
        ({"error": "boom"}, "provider_unavailable"),
        ({"choices": [{"delta": {}, "finish_reason": "insufficient_system_resource"}]}, "provider_unavailable"),
        ({"choices": [{"delta": {}, "finish_reason": "abort"}]}, "provider_unavailable"),
    ],
)
async def test_failures_of_compatible_servers_have_their_codes(make: Make, said: dict[str, Any], ends: str) -> None:
    async with answering(b"data: " + json.dumps(said).encode() + b"\n\ndata: [DONE]\n\n") as url:
        assert (await failure(make("openai", OPENAI_BASE_URL=url), ask("m"))).code == ends


async def test_two_halves_of_a_character_are_joined_across_reads(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("halves", Answer(deltas=["a\ud83e", "\udd4ab\ud83e"], gate=gate, gate_after=1))
    async with await system.stream("halves") as connection:
        await connection.next("token")
        gate.set()
        frames = await connection.rest()
    status = await system.status(connection.stream_id)
    assert status["text"] == "a🥊b\ufffd"
    assert frames[-1].data["finish_reason"] == "stop"


@network
async def test_a_line_of_seven_megabytes_is_read(fake: FakeProvider, make: Make, name: str) -> None:
    text = "x" * 7_000_000
    fake.play("m", Answer(deltas=[text, "y"]))
    assert text_in(await collect(make(name), ask("m"))) == text + "y"
