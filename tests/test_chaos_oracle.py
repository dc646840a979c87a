"""Excuses and complaints of the chaos suite's judge, about made-up histories."""

import time
from dataclasses import replace

import pytest

from tests.chaos.chat import Record
from tests.chaos.history import History, ProviderCall, Span
from tests.chaos.numbered import NumberedTranscript
from tests.chaos.oracle import judge
from tests.chaos.plans import draw_plan
from tests.chaos.transcript import Transcript
from tests.sse_client import Frame


def _stream_that_ends(code: str, *, is_stored: bool = False) -> tuple[Record, History, ProviderCall]:
    """Return a stream whose one reader got an error, and a history with its one call of the provider."""
    plan = next(plan for plan in (draw_plan(1, number) for number in range(100)) if plan.end == "finish")
    plan = replace(plan, is_stored=is_stored)
    now = time.monotonic()
    transcript = Transcript()
    transcript.take(Frame("error", {"code": code}, None, None))
    transcript.take(Frame("done", {"finish_reason": "error", "reason": code}, None, None))
    call = ProviderCall(1, plan.number, 0, now - 5, now)
    record = Record(plan, now - 6, now - 6, "id", {"id"}, [transcript])
    return record, History(calls={plan.number: [call]}), call


@pytest.mark.parametrize(("deleted_before_the_loss", "is_excused"), [(True, True), (False, False)])
def test_a_deleted_stream_may_be_lost(deleted_before_the_loss: bool, is_excused: bool) -> None:
    """A loss of Redis takes the tombstone too, and the reader has not seen the deletion yet."""
    record, history, call = _stream_that_ends("stream_lost")
    history.losses.append(call.begin + 2)
    record.deleted_at = call.begin + (1 if deleted_before_the_loss else 3)
    assert ("reader 0: ended error stream_lost (at None, 0 characters)" not in judge(record, history)) is is_excused


def test_a_stopped_worker_may_find_no_connection_in_time() -> None:
    record, history, call = _stream_that_ends("provider_connect_timeout")
    record.transcripts[0].done = Frame("done", record.transcripts[0].done.data, "1-2", None)  # type: ignore[union-attr]
    assert judge(record, history) != []
    history.provider_disturbances[0] = [Span(call.begin, call.begin + 1)]
    assert judge(record, history) == []


@pytest.mark.parametrize("stopped", [0, 1, None], ids=["the first", "the second", "none"])
def test_a_second_call_needs_a_worker_that_was_out(stopped: int | None) -> None:
    """The second one, if it was stopped before its call: then its successor's call is the first."""
    record, history, call = _stream_that_ends("provider_rejected")
    history.calls[record.plan.number].append(replace(call, number=2, worker=1, begin=call.begin + 3))
    if stopped is not None:
        history.worker_out[stopped] = [Span(call.begin, call.begin + 2)]
    complaint = "call 2 though worker 1 of call 1 was well"
    assert (complaint in judge(record, history)) is (stopped is None)


@pytest.mark.parametrize(
    ("is_stored", "deleted_before_the_loss", "is_excused"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_a_stored_answer_whose_deletion_is_lost_was_stopped_at_its_provider(
    is_stored: bool, deleted_before_the_loss: bool, is_excused: bool
) -> None:
    record, history, call = _stream_that_ends("provider_unavailable", is_stored=is_stored)
    record.transcripts[0].done = Frame("done", record.transcripts[0].done.data, "1-2", None)  # type: ignore[union-attr]
    history.losses.append(call.begin + 2)
    record.deleted_at = call.begin + (1 if deleted_before_the_loss else 3)
    complaint = "reader 0: ended error provider_unavailable (at None, 0 characters)"
    assert (complaint not in judge(record, history)) is is_excused


@pytest.mark.parametrize(("code", "is_excused"), [("provider_unreachable", True), ("provider_rate_limited", False)])
def test_a_stored_answer_that_cannot_be_reached_ends_with_what_its_readers_had(code: str, is_excused: bool) -> None:
    record, history, call = _stream_that_ends(code, is_stored=True)
    record.transcripts[0].resets.append((call.begin + 2, False))
    history.worker_out[0] = [Span(call.begin, call.begin + 1)]
    assert ("reader 0: reset though the answer is stored" in "".join(judge(record, history))) is not is_excused


def _take(transcript: NumberedTranscript, *events: tuple[int, str]) -> NumberedTranscript:
    for number, delta in events:
        event = {"sequence_number": number, "type": "response.output_text.delta", "delta": delta}
        transcript.take_event(event)
    return transcript


def test_a_resumed_response_has_the_same_events_without_a_hole() -> None:
    transcript = _take(NumberedTranscript(), (0, "a"), (1, "b"))
    transcript.begin(0)
    _take(transcript, (1, "b"), (2, "c"))
    assert (transcript.text, transcript.complaints) == ("abc", [])


@pytest.mark.parametrize(
    ("again", "complaint"),
    [((3, "d"), "delta 3, expected 1"), ((2, "c"), "delta 2, expected 1"), ((1, "B"), "event 1 was")],
)
def test_a_response_with_a_hole_or_another_event_is_found(again: tuple[int, str], complaint: str) -> None:
    transcript = _take(NumberedTranscript(), (0, "a"), (1, "b"))
    transcript.begin(0)
    (found,) = _take(transcript, again).complaints
    assert complaint in found


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_response_may_be_taken_back_only_if_its_worker_was_lost(is_lost: bool) -> None:
    record, history, call = _stream_that_ends("stream_reset")
    transcript = NumberedTranscript()
    transcript.done, transcript.error = record.transcripts[0].done, record.transcripts[0].error
    transcript.ended_at = call.end
    record.transcripts = [transcript]
    if is_lost:
        history.worker_out[0] = [Span(call.begin, call.begin + 1)]
    assert (judge(record, history) == []) is is_lost
