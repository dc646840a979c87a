"""The protocol without I/O: ids, lifecycle, events and their frames, transcripts, and how deltas become events."""

import itertools
import json
import re
from itertools import groupby

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from gateway.dialects import native
from gateway.dialects.native import Native
from gateway.live.batch import Batch
from shared.errors import InvalidLastEventId
from shared.protocol import events
from shared.protocol.events import (
    Done,
    Error,
    Event,
    Json,
    PartialUsage,
    Reasoning,
    Refusal,
    Start,
    Token,
    ToolCall,
    Usage,
)
from shared.protocol.ids import (
    START,
    EventId,
    bucket_of,
    format_event_id,
    idempotency_digest,
    is_stream_id,
    new_stream_id,
    parse_cursor,
    parse_event_id,
)
from shared.protocol.lifecycle import (
    ACTIVE,
    STATUS_AFTER,
    STEPS,
    TERMINAL,
    TRANSITIONS,
    Status,
    Step,
    is_allowed,
    is_reachable,
)
from shared.protocol.transcript import Transcript, fold
from shared.protocol.usage import Estimate
from tests.transitions import DOCUMENT, with_diagram
from workers.providers.base import ReasoningDelta, TextDelta
from workers.providers.framing import EventCutter
from workers.writing.coalescer import Coalescer

#: The same examples every time.
repeatable = settings(derandomize=True, deadline=None, max_examples=150, database=None)

# Text that breaks line protocols: every kind of line end, NUL, and SSE's own field names.
CONTROLS = list("\x00\n\r\x0b\x0c\x1c\x1e\x7f\x85\u2028\u2029")
MARKUP = ["\r\n", "\n\n", "data:", "data: x\n\n", "id: 9-9\n", "event: done\n", ":", " ", "\\", '"', "\ufeff", "x"]
NASTY = st.lists(st.sampled_from(CONTROLS + MARKUP), max_size=8).map("".join)
TEXT = st.one_of(NASTY, st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
COUNT = st.integers(0, 2**53)
MAYBE_COUNT = st.one_of(st.just(UNSET), COUNT)
USAGE = st.builds(
    Usage,
    COUNT,
    COUNT,
    st.booleans(),
    cached_tokens=MAYBE_COUNT,
    cache_write_tokens=MAYBE_COUNT,
    reasoning_tokens=MAYBE_COUNT,
)
EVENT: st.SearchStrategy[Event] = st.one_of(
    st.builds(Start, TEXT, TEXT, TEXT, COUNT, st.booleans()),
    st.builds(Token, TEXT, COUNT, COUNT),
    st.builds(Reasoning, TEXT, COUNT, COUNT),
    st.builds(Refusal, TEXT, COUNT, COUNT),
    st.builds(ToolCall, COUNT, TEXT, TEXT, TEXT, st.just(value=True), st.just(0)),
    st.builds(Json, st.lists(TEXT | COUNT, max_size=3), st.none() | TEXT | st.lists(COUNT, max_size=3)),
    st.builds(Error, TEXT, TEXT, st.booleans()),
    st.builds(Done, TEXT, st.none() | TEXT, st.none() | USAGE),
)
EVENT_ID = st.builds(EventId, st.integers(0, 10**15 - 1), st.integers(0, 10**15 - 1))


# --- ids


@repeatable
@given(EVENT_ID)
def test_an_event_id_survives_its_text(at: EventId) -> None:
    assert parse_event_id(str(at)) == at
    assert parse_cursor(str(at)) == at


@pytest.mark.parametrize("text", [None, "", "0", "0-0", "-1"])
def test_cursors_that_mean_the_start(text: str | None) -> None:
    assert parse_cursor(text) == START


@pytest.mark.parametrize(
    "text",
    [
        *["1", "-", "1-", "-2", "0-", "1-2-3", "1--2", "-1-2", "+1-2", "1-+2", "1_0-2", "1.0-2", "0x1-2", "1e3-2"],
        *[
            " 1-2",
            "1-2 ",
            "1-2\n",
            "\n1-2",
            "1-2\x00",
            "1\u20132",
            "\u0661-\u0662",
            "\uff11-\uff12",
            "null",
            "$",
            "*",
        ],
        *["1" * 16 + "-1", "1-" + "1" * 16, "9" * 5000 + "-1"],
    ],
)
def test_junk_is_no_cursor(text: str) -> None:
    with pytest.raises(InvalidLastEventId) as refused:
        parse_cursor(text)
    assert (refused.value.http_status, refused.value.code) == (400, "invalid_last_event_id")


@repeatable
@given(st.text(max_size=12) | st.text("0123456789-", max_size=34))
def test_a_cursor_is_two_short_numbers_or_refused(text: str) -> None:
    if text in {"", "0", "0-0", "-1"}:
        assert parse_cursor(text) == START
    elif re.fullmatch("[0-9]{1,15}-[0-9]{1,15}", text):
        epoch, _, seq = text.partition("-")
        assert parse_cursor(text) == (int(epoch), int(seq))
    else:
        with pytest.raises(InvalidLastEventId):
            parse_cursor(text)


def test_stream_ids_are_all_different_and_begin_with_their_bucket() -> None:
    ids = [new_stream_id() for _ in range(300)]
    assert len(set(ids)) == 300
    assert all(is_stream_id(stream_id) and bucket_of(stream_id) == stream_id[:2] for stream_id in ids)
    assert len({bucket_of(stream_id) for stream_id in ids}) > 100


@repeatable
@given(TEXT, TEXT)
def test_a_stream_lies_in_the_bucket_of_its_idempotency_key(principal: str, key: str) -> None:
    digest = idempotency_digest(principal, key)
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert bucket_of(new_stream_id(digest)) == digest[:2]
    assert new_stream_id(digest) != new_stream_id(digest)


def test_a_digest_stands_for_one_principal_and_one_key() -> None:
    pairs = [("a", "b"), ("ab", ""), ("", "ab"), ("a", "c"), ("c", "b")]
    assert len({idempotency_digest(*pair) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    "text",
    ["", "a" * 33, "a" * 35, "A" * 34, "g" * 34, "a" * 34 + "\n", "\uff11" * 34, "../" * 11 + "a", "a" * 33 + "}"],
)
def test_junk_is_no_stream_id(text: str) -> None:
    assert not is_stream_id(text)


# --- lifecycle


def test_a_terminal_status_is_final() -> None:
    assert {Status.COMPLETED, Status.CANCELLED, Status.FAILED} == TERMINAL
    assert {Status.QUEUED, Status.RUNNING} == ACTIVE
    assert set(TRANSITIONS) == {None, *Status}
    assert all(TRANSITIONS[status] == {Step.DELETE: None, Step.DROP: None} for status in TERMINAL)


def test_every_step_is_one_scripts_and_every_status_can_be_reached() -> None:
    assert sorted(step for steps in STEPS.values() for step in steps) == sorted(Step)
    assert {step for row in TRANSITIONS.values() for step in row} == set(Step)
    assert all(is_reachable(None, status) for status in Status)
    assert not any(is_reachable(status, other) for status in TERMINAL for other in {*Status} - {status})


@pytest.mark.parametrize(
    ("script", "before", "after"),
    [
        ("claim", Status.COMPLETED, Status.RUNNING),
        ("claim", None, Status.RUNNING),
        ("finish", Status.QUEUED, Status.FAILED),
        ("append", Status.QUEUED, Status.RUNNING),
        ("restore", Status.FAILED, Status.RUNNING),
        ("read", Status.RUNNING, None),
    ],
)
def test_other_transitions_are_not_allowed(script: str, before: Status | None, after: Status | None) -> None:
    assert not is_allowed(script, before, after)


def test_the_diagram_in_the_rules_is_that_of_the_table() -> None:
    text = DOCUMENT.read_text()
    assert text == with_diagram(text), "run `make diagrams`"


def test_every_ending_leaves_a_terminal_status() -> None:
    assert set(STATUS_AFTER) == {"stop", "length", "tool_calls", "content_filter", "cancelled", "error"}
    assert set(STATUS_AFTER.values()) == TERMINAL
    assert {TRANSITIONS[Status.RUNNING][step] for step in STEPS["finish"]} == TERMINAL


# --- events and frames


@repeatable
@given(EVENT)
def test_an_event_survives_its_bytes(event: Event) -> None:
    stored = events.encode(event)
    assert events.decode(stored) == event
    kind, data = events.split(stored)
    assert kind == event.TYPE
    assert stored == kind + b" " + data
    assert json.loads(data) == msgspec.to_builtins(event)
    assert events.is_done(stored) == isinstance(event, Done)
    assert events.is_start(stored) == isinstance(event, Start)


@repeatable
@given(EVENT_ID, EVENT)
@example(EventId(1, 2), Token("data: x\n\nevent: done\r\rid: 9-9\n\x00\u2028\x85", 0))
def test_a_frame_is_one_block_whose_data_is_the_json(at: EventId, event: Event) -> None:
    stored = events.encode(event)
    assert blocks(native.frame(format_event_id(*at), stored)) == [
        (str(at), event.TYPE.decode(), stored.partition(b" ")[2].decode())
    ]


@repeatable
@given(EVENT_ID, st.builds(Start, TEXT, TEXT, TEXT, COUNT))
def test_a_reset_frame_differs_only_in_its_flag(at: EventId, start: Start) -> None:
    run = Batch([(format_event_id(*at), events.encode(start))], at, reset=True)
    ((event_id, kind, data),) = blocks(Native("an-id").render(run))
    assert (event_id, kind) == (str(at), "start")
    assert json.loads(data) == {**msgspec.to_builtins(start), "reset": True}


@repeatable
@given(TEXT, TEXT, st.booleans())
def test_a_synthetic_frame_is_one_block_without_an_id(code: str, message: str, retryable: bool) -> None:
    closing = (events.Error(code, message, retryable), events.Done(code, message, None))
    rendered = Native(code).render(Batch([(b"", events.encode(event)) for event in closing], EventId(1, 1)))
    frames = rendered + Native(code).queued(1)
    error, done, queued = blocks(frames)
    assert [block[:2] for block in (error, done, queued)] == [(None, "error"), (None, "done"), (None, "queued")]
    assert json.loads(error[2]) == {"code": code, "message": message, "retryable": retryable}
    assert json.loads(done[2]) == {"finish_reason": code, "reason": message, "usage": None, "cost": None}
    assert json.loads(queued[2]) == {"stream_id": code, "position": 1}


def test_unknown_and_broken_events_raise_different_errors() -> None:
    with pytest.raises(KeyError):
        events.decode(b'tomorrow {"x":1}')
    for broken in (b"token", b"token ", b'token {"token":', b'token {"token":1,"token_index":0}', b"done []"):
        with pytest.raises(msgspec.DecodeError):
            events.decode(broken)


def blocks(raw: bytes) -> list[tuple[str | None, str, str]]:
    """(id, event, data) of each block, by the standard: a line ends at CR LF, LF or CR and nowhere else."""
    lines = re.split("\r\n|\n|\r", raw.decode())
    assert lines.pop() == "", "does not end with a line end"
    found: list[tuple[str | None, str, str]] = []
    fields: dict[str, list[str]] = {}
    for line in lines:
        if line:
            name, colon, value = line.partition(":")
            assert colon, line
            fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        assert set(fields) <= {"id", "event", "data"}
        (kind,) = fields["event"]
        found.append((*fields.get("id", [None]), kind, "\n".join(fields["data"])))
        fields = {}
    assert not fields, "the last block is open"
    return found


# --- transcript


@repeatable
@given(st.lists(EVENT, max_size=12))
def test_a_transcript_is_the_sum_of_its_events(run: list[Event]) -> None:
    transcript = fold(run)
    assert transcript.text == "".join(e.token for e in run if isinstance(e, Token))
    assert transcript.reasoning == "".join(e.text for e in run if isinstance(e, Reasoning))
    assert transcript.refusal == "".join(e.text for e in run if isinstance(e, Refusal))
    assert transcript.deltas == sum(e.n for e in run if isinstance(e, Token | Reasoning | Refusal))
    for kind, last in ((Start, transcript.start), (Error, transcript.error), (Done, transcript.done)):
        assert last == next((e for e in reversed(run) if isinstance(e, kind)), None)


@repeatable
@given(st.lists(EVENT, max_size=8), st.lists(EVENT, max_size=8))
def test_a_transcript_can_be_folded_in_pages(first: list[Event], second: list[Event]) -> None:
    transcript = fold(first)
    for event in second:
        transcript.add(event)
    assert transcript == fold(first + second)
    assert fold([]) == Transcript()


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_estimated_usage(characters: int, tokens: int) -> None:
    assert Estimate(characters, 0).usage(7, 10) == Usage(tokens, 7, estimated=True)


@pytest.mark.parametrize(
    ("counted", "usage"),
    [
        (PartialUsage(input_tokens=5), Usage(5, 25, True)),
        (PartialUsage(output_tokens=5), Usage(10, 5, True)),
        (PartialUsage(input_tokens=5, cached_tokens=3), Usage(5, 25, True, cached_tokens=3)),
        (PartialUsage(output_tokens=5, cached_tokens=12), Usage(12, 5, True, cached_tokens=12)),
        (PartialUsage(reasoning_tokens=90), Usage(10, 90, True, reasoning_tokens=90)),
    ],
)
def test_the_side_that_was_not_counted_is_estimated(counted: PartialUsage, usage: Usage) -> None:
    """A side is at least as large as its parts."""
    assert Estimate(40, 0).completed(counted, 7, 100) == usage


@pytest.mark.parametrize(
    ("deltas", "sent", "output"),
    [(7, 10, 7), (1, 400, 100), (0, 0, 0)],  # a delta is a token at least; some providers send several in one
)
def test_a_cancel_saves_the_unused_tokens(deltas: int, sent: int, output: int) -> None:
    estimate = Estimate(4, max_tokens=120)
    assert estimate.usage(deltas, sent) == Usage(1, output, estimated=True)
    assert estimate.usage(deltas, sent, cancelled=True) == Usage(1, output, True, tokens_saved=120 - output)
    assert Estimate(4, 0).usage(deltas, sent, cancelled=True) == Usage(1, output, estimated=True)


# --- gathering


def deltas(text: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[TextDelta | ReasoningDelta]]]:
    """Deltas between one append and the next, several times."""
    one = st.builds(TextDelta, text) | st.builds(ReasoningDelta, text)
    return st.lists(st.lists(one, max_size=8), max_size=6)


def made(gathering: Coalescer, batches: list[list[TextDelta | ReasoningDelta]]) -> list[list[Token | Reasoning]]:
    taken = []
    for batch in batches:
        for delta in batch:
            gathering.add([delta])
        taken.append([event_of(stored) for stored in gathering.take()])
        assert gathering.bytes == 0
        assert gathering.take() == []
    return taken


def event_of(stored: bytes) -> Token | Reasoning:
    event = events.decode(stored)
    assert isinstance(event, Token | Reasoning)
    return event


def text_of(event: Token | Reasoning) -> str:
    return event.token if isinstance(event, Token) else event.text


def index_of(event: Token | Reasoning) -> int:
    return event.token_index if isinstance(event, Token) else event.index


@repeatable
@given(deltas(TEXT), st.integers(1, 60))
def test_coalesced_text_is_the_text_of_the_deltas(
    batches: list[list[TextDelta | ReasoningDelta]], limit: int
) -> None:
    for batch, taken in zip(batches, made(Coalescer(limit), batches), strict=True):
        came = [(type(d) is TextDelta, d.text) for d in batch]
        gave = [(type(e) is Token, text_of(e)) for e in taken]
        # In order, also where the two kinds alternate.
        assert joined(gave) == joined(came)
        assert all(len(text) <= limit for _, text in gave)


def joined(pieces: list[tuple[bool, str]]) -> list[tuple[bool, str]]:
    return [(kind, "".join(text for _, text in run)) for kind, run in groupby(pieces, key=lambda piece: piece[0])]


@repeatable
@given(deltas(TEXT), st.integers(1, 60))
def test_deltas_are_counted_once(batches: list[list[TextDelta | ReasoningDelta]], limit: int) -> None:
    gathering = Coalescer(limit)
    taken = [event for batch in made(gathering, batches) for event in batch]
    came = [delta for batch in batches for delta in batch]
    assert gathering.deltas == len(came)
    for kind, delta_kind in ((Token, TextDelta), (Reasoning, ReasoningDelta)):
        next_index = begun = 0
        for event in (e for e in taken if type(e) is kind):
            if event.n:
                begun = next_index
            assert index_of(event) == begun  # the rest of a delta too large for one event counts as no delta
            next_index += event.n
        assert next_index == sum(type(d) is delta_kind for d in came)
    assert fold(taken).deltas == len(came)


@repeatable
@given(st.lists(TEXT, min_size=1, max_size=8))
def test_one_append_makes_one_event_of_one_kind(texts: list[str]) -> None:
    ((event,),) = made(Coalescer(8192), [[TextDelta(text) for text in texts]])
    assert event == Token("".join(texts), 0, len(texts))


ANY_TEXT = st.text(st.characters(codec=None, categories=["Cs"]) | st.sampled_from("a\u00e9\U0001f94a\n"), max_size=6)


@repeatable
@given(deltas(ANY_TEXT), st.integers(1, 60))
def test_lone_surrogates_never_raise(batches: list[list[TextDelta | ReasoningDelta]], limit: int) -> None:
    for taken in made(Coalescer(limit), batches):
        for event in taken:
            text_of(event).encode()


@repeatable
@given(deltas(ANY_TEXT))
def test_halves_of_a_pair_are_joined_over_deltas(batches: list[list[TextDelta | ReasoningDelta]]) -> None:
    """Also where the other half comes with a later append."""
    gathering = Coalescer(8192)
    taken = [event for batch in made(gathering, batches) for event in batch]
    taken += [event_of(stored) for stored in gathering.take(final=True)]
    for kind, delta_kind in ((Token, TextDelta), (Reasoning, ReasoningDelta)):
        came = "".join(d.text for batch in batches for d in batch if type(d) is delta_kind)
        assert "".join(text_of(e) for e in taken if type(e) is kind) == well_formed(came)


def well_formed(text: str) -> str:
    def whole(pair: re.Match[str]) -> str:
        high, low = map(ord, pair[0])
        return chr(0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00)

    return re.sub("[\ud800-\udfff]", "\ufffd", re.sub("[\ud800-\udbff][\udc00-\udfff]", whole, text))


def test_a_pair_split_over_two_deltas() -> None:
    ((event,),) = made(Coalescer(8192), [[TextDelta("a\ud83e"), TextDelta("\udd4ab")]])
    assert event == Token("a\U0001f94ab", 0, 2)


# --- a provider's event stream, however it is cut

DATA = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30).map(str.encode)
LINE_END = st.sampled_from([b"\n", b"\r\n"])
OTHER_LINES = st.sampled_from([b": ping", b"event: x", b"id: 7", b"retry: 1", b"nonsense"])


@repeatable
@given(
    st.lists(st.tuples(DATA.filter(lambda data: bool(data.strip())), st.lists(OTHER_LINES, max_size=2)), max_size=6),
    LINE_END,
    st.booleans(),
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
)
def test_the_data_does_not_depend_on_the_cuts(
    sent: list[tuple[bytes, list[bytes]]], end: bytes, last_is_open: bool, cuts: list[int]
) -> None:
    blocks = [end.join([*others, b"data: " + data]) + end for data, others in sent]
    wire = end.join(blocks) + (b"" if last_is_open else end)

    cutter, found, at = EventCutter(), list[bytes](), 0
    for cut in itertools.cycle(cuts):
        if at >= len(wire):
            break
        found += cutter.feed(wire[at : at + cut])
        at += cut
    assert [*found, *cutter.end()] == [data.strip() for data, _ in sent]
