"""Judges whether one stream kept its promises (docs/protocol.md), from its client's frames and the faults."""

import re
from collections.abc import Iterator
from typing import Any

from tests.chaos.chat import Record
from tests.chaos.history import History
from tests.chaos.numbered import NumberedTranscript
from tests.chaos.transcript import Transcript

_CALL = re.compile(r"\[(\d+):")
_SILENT = {"provider_first_token_timeout", "provider_idle_timeout"}
_NO_CONNECTION = {"provider_unreachable", "provider_unavailable", "provider_connect_timeout"}
_BROKEN_NETWORK = {"upstream_truncated", *_NO_CONNECTION, *_SILENT}
_ANY_ERROR = {
    "truncate": {"upstream_truncated"},
    "reset": {"upstream_truncated", "provider_unreachable"},
    "hang": _SILENT,
}
_BY_STATUS = {429: "provider_rate_limited", 500: "provider_unavailable"}


def judge(record: Record, history: History) -> list[str]:
    """Return a description of every broken promise."""
    return list(_Judge(record, history).faults())


class _Judge:
    def __init__(self, record: Record, history: History) -> None:
        self._record = record
        self._plan = record.plan
        self._history = history
        self._calls = history.calls.get(record.plan.number, [])

    def faults(self) -> Iterator[str]:
        record = self._record
        yield from record.complaints
        yield from self._of_calls()
        if len(record.stream_ids) > 1 and not self._lost_since_request(record.accepted_at):
            yield f"one key, streams {sorted(record.stream_ids)}"
        for i, transcript in enumerate(record.transcripts):
            for fault in self._of_reader(transcript):
                yield f"reader {i}: {fault} (at {transcript.cursor}, {len(transcript.text)} characters)"
        for body in record.polled:
            yield from (f"a poll: {fault}" for fault in self._of_text(body["text"], whole=False))
        yield from self._of_endings()

    # --- the provider's side

    def _of_calls(self) -> Iterator[str]:
        """A stream is generated again only if its worker was lost. One that was stopped before its call makes it
        after the call of its successor."""
        for call, following in zip(self._calls, self._calls[1:], strict=False):
            excused = self._history.is_excused(call, following.begin)
            excused = excused or self._history.was_out(following.worker, self._record.requested_at, following.begin)
            if not excused and not (self._lost_since_request(following.begin) and len(self._record.stream_ids) > 1):
                yield f"call {following.number} though worker {call.worker + 1} of call {call.number} was well"

    # --- one reader's side

    def _of_reader(self, transcript: Transcript) -> Iterator[str]:
        yield from transcript.complaints
        # A process that only ends the stream copies it under an epoch of its own (rule E4). So does a worker that
        # reaches its provider neither for the stored answer nor for another.
        reason = transcript.done.data["reason"] if transcript.done is not None else None
        is_ended_by_another = reason in {"worker_lost", "cancelled", "abandoned", "deleted"} | _BROKEN_NETWORK
        for at, same_epoch in transcript.resets:
            if fault := self._of_reset(at, same_epoch, is_stored=self._plan.is_stored and not is_ended_by_another):
                yield fault
        if transcript.refused is not None:
            yield from self._of_refusal(transcript.refused, transcript.ended_at)
            yield from self._of_text(transcript.text, whole=False)
        elif transcript.done is not None:
            yield from self._of_done(transcript)

    def _of_reset(self, at: float, same_epoch: bool, *, is_stored: bool) -> str | None:
        if same_epoch:
            return None if self._lost_since_request(at) else "reset under the same epoch"
        begun = [call for call in self._calls if call.begin <= at]
        if is_stored and len(begun) == 1 and not self._lost_since_request(at):
            return "reset though the answer is stored"
        if len(begun) > 1 or any(self._history.is_excused(call, at) for call in begun):
            return None
        return f"reset though the worker of {[call.number for call in begun]} was well"

    def _of_refusal(self, status: int, at: float) -> Iterator[str]:
        if status == 410 and self._record.deleted:
            return
        if status == 404 and self._may_be_lost(at):
            return
        yield f"status {status}"

    def _of_done(self, transcript: Transcript) -> Iterator[str]:
        done = transcript.done
        assert done is not None
        finish, reason = done.data["finish_reason"], done.data["reason"]
        yield from self._of_text(transcript.text, whole=finish == "stop")
        has_id = done.id is not None or _is_numbered(transcript)
        if not has_id and reason not in ("stream_lost", "deleted", "resume_without_key"):
            yield f"synthetic done, {reason}"
        if (finish == "error") != (transcript.error is not None):
            yield f"done {finish}, error {transcript.error}"
        elif transcript.error is not None and transcript.error["code"] != reason:
            yield f"error {transcript.error['code']}, done {reason}"
        if finish == "stop" and done.data["usage"]["output_tokens"] != self._plan.tokens:
            yield f"usage {done.data['usage']}, {self._plan.tokens} deltas"
        if not self._may_end(finish, reason, transcript):
            yield f"ended {finish} {reason}"

    def _of_text(self, text: str, *, whole: bool) -> Iterator[str]:
        """A prefix of one call's answer, or all of it."""
        match = _CALL.match(text)
        if match is None:
            if whole or text:
                yield f"text {text[:30]!r}"
            return
        call = int(match[1])
        if call not in [c.number for c in self._calls]:
            yield f"the text of call {call}, which is another stream's"
        expected = "".join(self._plan.texts(call))
        if not expected.startswith(text):
            at = next((i for i, (a, b) in enumerate(zip(expected, text, strict=False)) if a != b), len(expected))
            yield f"not a prefix of call {call}: …{text[max(0, at - 30) : at + 30]!r}"
        elif whole and len(text) != len(expected):
            yield f"stop after {len(text)} of {len(expected)} characters of call {call}"

    # --- ends

    def _may_end(self, finish: str, reason: str | None, transcript: Transcript) -> bool:
        record, plan, at = self._record, self._plan, transcript.ended_at
        if finish == "stop":
            return plan.end == "finish" and plan.status is None
        if reason in ("stream_lost", "resume_without_key"):
            return self._may_be_lost(at)
        if finish == "cancelled":
            asked = {"cancelled": record.cancelled, "deleted": record.deleted, "abandoned": plan.grace_s is not None}
            if _is_numbered(transcript):
                return any(asked.values())  # its events name no reason
            return bool(reason) and asked.get(reason or "", False)
        if reason == "stream_reset":  # this dialect cannot take back what a restart drops
            return _is_numbered(transcript) and self._of_reset(at, False, is_stored=plan.is_stored) is None
        return finish == "error" and reason in self._excused_errors(transcript)

    def _excused_errors(self, transcript: Transcript) -> set[str]:
        plan, codes, at = self._plan, set[str](), transcript.ended_at
        if plan.status is not None:
            codes.add(_BY_STATUS[plan.status])
        codes |= _ANY_ERROR.get(plan.end, set())
        history = self._history
        if plan.is_stored and history.losses_between(self._record.deleted_at, at):
            codes.add("provider_unavailable")  # its worker stopped it at the provider; Redis lost the deletion
        unseen = not transcript.text and history.a_call_may_have_failed_unseen(self._record.requested_at, at)
        connections = history.connections(plan.number)
        if unseen or any(history.provider_was_disturbed(call) for call in connections):
            codes |= _BROKEN_NETWORK
        lost = [call for call in connections if history.is_excused(call, at)]
        if lost and (plan.on_worker_lost == "fail" or plan.is_response or len(lost) > 1):
            codes.add("worker_lost")
        return codes

    def _of_endings(self) -> Iterator[str]:
        """All readers and the JSON status must have the same ending, unless Redis lost data in between."""
        record = self._record
        ends = {t.done.id: t for t in record.transcripts if t.done is not None and t.done.id is not None}
        if self._lost_since_request(record.final[2] if record.final else float("inf")):
            return
        if len(ends) > 1:
            yield f"readers ended at {sorted(map(str, ends))}"
        if record.final is None:
            return
        status, body, at = record.final
        if status != 200:
            yield from (f"GET: {fault}" for fault in self._of_refusal(status, at))
            return
        yield from self._of_numbered_endings(body)
        for end, transcript in ends.items():
            assert transcript.done is not None
            theirs = (end, transcript.text, transcript.done.data["finish_reason"], transcript.done.data["reason"])
            ours = (body["last_event_id"], body["text"], body["finish_reason"], body["reason"])
            if theirs != ours:
                yield f"GET returned {_brief(ours)}, a reader got {_brief(theirs)}"

    def _of_numbered_endings(self, body: dict[str, Any]) -> Iterator[str]:
        """The readers of a response must have the same text and ending too, unless it was taken back."""
        for transcript in filter(_is_numbered, self._record.transcripts):
            if transcript.done is not None and transcript.done.data["reason"] != "stream_reset":
                theirs = f"{len(transcript.text)} characters {transcript.done.data['finish_reason']}"
                if body["text"] != transcript.text or body["finish_reason"] != transcript.done.data["finish_reason"]:
                    ours = f"{len(body['text'])} characters {body['finish_reason']}"
                    yield f"GET returned {ours}, a reader of the response got {theirs}"

    def _lost_since_request(self, until: float) -> bool:
        return bool(self._history.losses_between(self._record.requested_at, until))

    def _may_be_lost(self, at: float) -> bool:
        # No worker restores a deleted stream, so Redis may also lose that it was deleted.
        if self._history.losses_between(self._record.deleted_at, at):
            return True
        return self._history.may_be_lost(self._plan.number, self._record.requested_at, at)


def _is_numbered(transcript: Transcript) -> bool:
    """Return True for a reader of a response, whose events have numbers instead of ids."""
    return isinstance(transcript, NumberedTranscript)


def _brief(ending: tuple[object, object, object, object]) -> str:
    end, text, finish, reason = ending
    return f"{end} {len(str(text))} characters {finish} {reason}"
