"""Endings of streams: the closing events and the final state, and the ending of a stream without a holder."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import UNSET

from shared.broker.client import Client, run_script
from shared.broker.desk_requests import Kind, Settlement
from shared.broker.log import read_log
from shared.broker.replies import Claimed, Code
from shared.broker.scripts import Ending, Fields, Holder, StreamScripts
from shared.broker.settlement import settle_soon
from shared.errors import GenerationError
from shared.metrics import count_costs
from shared.priced_calls import lost_calls
from shared.protocol import events
from shared.protocol.chunks import compress
from shared.protocol.events import TargetUsage, Usage
from shared.protocol.ledger import LedgerEntry, cost_of_calls, decode_ledger, encode_ledger, nanos_of_calls
from shared.protocol.lifecycle import STATUS_AFTER
from shared.protocol.transcript import fold
from shared.protocol.usage import Estimate, encode_usage

logger = logging.getLogger(__name__)


#: The stop signal of a stream without readers; only the finish script may decide it.
ABANDONED: Final = "abandoned"
#: The reason of an ending without an answer and without cost: only the tokens of the request were counted.
COUNTED: Final = "counted"
#: Endings whose reason is a code of ours.
_WITH_OWN_REASON: Final = frozenset({"error", "cancelled"})
#: Reasons of answers that ended properly, except the words of providers that are not known.
_REASONS: Final = frozenset({None, "refusal", "empty_answer", "max_stream_bytes", COUNTED})


@dataclass(frozen=True, slots=True)
class Outcome:
    """Reason of a stream's end. ``reason`` is None if the provider's own reason is ``finish_reason``. If that is
    ``stop`` for a word that is not known, ``reason`` is the word, for the event ``done`` alone."""

    finish_reason: str
    reason: str | None = None
    error: GenerationError | None = None

    @classmethod
    def failed(cls, error: GenerationError) -> "Outcome":
        return cls("error", error.code, error)

    @classmethod
    def cancelled(cls, reason: str) -> "Outcome":
        return cls("cancelled", reason)

    @property
    def is_cancelled(self) -> bool:
        return self.finish_reason == "cancelled"

    @property
    def known_reason(self) -> str | None:
        """The reason for the state, logs and metrics. A word of the provider that is not known may quote the answer:
        it is ``other``."""
        is_own = self.finish_reason in _WITH_OWN_REASON or self.reason in _REASONS
        return self.reason if is_own else "other"

    def closing_events(
        self,
        usage: Usage | None,
        by_target: list[TargetUsage] | None = None,
        ledger: Sequence[LedgerEntry] = (),
    ) -> list[bytes]:
        """Return ``error`` if there is one, then ``done``. ``by_target``: the parts of the usage, if there are
        several. ``ledger``: all calls of the stream."""
        closing: list[events.Event] = []
        if self.error is not None:
            closing.append(events.Error.of(self.error))
        closing.append(events.Done(self.finish_reason, self.reason, usage, by_target or UNSET, cost_of_calls(ledger)))
        return [events.encode(event) for event in closing]

    def ending(
        self, usage: Usage | None, ledger: Sequence[LedgerEntry] = (), *, only_if_unwatched: bool = False
    ) -> Ending:
        """Return the final state. ``ledger``: all calls of the stream."""
        fields: dict[str, str | bytes | int] = {
            "finish_reason": self.finish_reason,
            "reason": self.known_reason or "",
            "usage": encode_usage(usage),
        }
        if self.error is not None:
            fields["error"] = msgspec.json.encode(events.Error.without_content(self.error))
        if ledger:
            fields["ledger"] = encode_ledger(ledger)
        only_counted = self.reason == COUNTED and usage is not None and not usage.output_tokens
        tokens = 0 if only_counted else tokens_of(usage)
        return Ending(
            STATUS_AFTER[self.finish_reason], fields, tokens, only_if_unwatched, nanos_of_calls(ledger), tuple(ledger)
        )


def tokens_of(usage: Usage | None) -> int:
    """Return the tokens to charge against limits, cached ones included: 0 if there was no output and the provider
    reported no usage."""
    if usage is None or (usage.estimated and not usage.output_tokens):
        return 0
    return usage.input_tokens + usage.output_tokens


def holder_of(stream_id: str, claimed: Claimed, token: str) -> Holder:
    return Holder(stream_id, claimed.epoch, token, claimed.fields.get("idempotency", b"").decode() or None)


def restorable(fields: dict[str, bytes]) -> Fields:
    """Return the fields of a claimed state that a worker can write again; the scripts set the others."""
    return {name: value for name, value in fields.items() if name not in _SET_BY_SCRIPTS}


_SET_BY_SCRIPTS = frozenset(
    {
        "status",
        "epoch",
        "holder",
        "lease_until",
        "log_epoch",
        "lineage",
        "lead",
        "live_until",
        "polled_until",
        "gateways",
        "full",
        "expires",
        "counted",
        "chunks",
        "owed",
        "undelivered",
        "unarchived",
        "delivery_failures",
        "delivery_error",
        "lane",
    }
)


def ending_line(stream_id: str, claimed: Claimed, outcome: Outcome, ledger: Sequence[LedgerEntry]) -> dict[str, Any]:
    """Return the fields of the log line about a stream's end. They contain nothing of the content."""
    cost = cost_of_calls(ledger)
    logged = {name: claimed.fields.get(name, b"").decode() for name in _LOGGED_FIELDS}
    _, _, trace = logged.pop("traceparent").partition("-")
    return {
        "stream_id": stream_id,
        **logged,
        "trace_id": trace.partition("-")[0],
        "attempt": claimed.attempt,
        "epoch": claimed.epoch,
        "finish_reason": outcome.finish_reason,
        "reason": outcome.known_reason,
        "cost": cost and cost.amount,
        "currency": cost and cost.currency,
    }


_LOGGED_FIELDS: Final = ("request_id", "principal", "provider", "model", "traceparent")


async def end_unheld(client: Client, scripts: StreamScripts, stream_id: str, outcome: Outcome) -> Outcome | None:
    """End a stream that no worker holds; as cancelled if a cancel is pending. Return the outcome, or None if a worker
    holds the stream by now or it has ended."""
    token = scripts.new_token("ending", stream_id)
    claimed = await run_script(client, scripts.claim(stream_id, token))
    if not isinstance(claimed, Claimed):
        return None
    if cancel := claimed.fields.get("cancel"):
        outcome = Outcome.cancelled(cancel.decode())
    return outcome if await end_claimed(client, scripts, stream_id, claimed, token, outcome) else None


async def end_claimed(
    client: Client, scripts: StreamScripts, stream_id: str, claimed: Claimed, token: str, outcome: Outcome
) -> bool:
    """End a stream that was claimed only to be ended: its partial answer is copied under the fresh epoch together
    with the closing events, in one script (rule E4). Return False if an abandoned stream has a reader again;
    the claim then stands, and the caller continues the stream."""
    partial = await read_log(client, scripts, stream_id)
    sent = fold(events.decode(stored) for stored in partial)
    estimate = Estimate.of(claimed.fields)
    cancelled = outcome.is_cancelled
    usage = estimate.usage(sent.deltas, sent.characters, cancelled=cancelled, prefixes=sent.prefixes)
    if sent.start is not None and sent.start.usage is not UNSET and not sent.prefixes:
        usage = estimate.completed(sent.start.usage, sent.deltas, sent.characters, cancelled=cancelled)
    ledger = _whole_ledger(scripts, claimed, partial, outcome)
    everything = partial + outcome.closing_events(usage, ledger=ledger)
    holder = holder_of(stream_id, claimed, token)
    ending = outcome.ending(usage, ledger, only_if_unwatched=outcome.reason == ABANDONED)
    reply = await run_script(client, scripts.finish(holder, 1, everything, compress(everything), ending))
    if reply.code is Code.OK:
        logger.info("stream ended", extra=ending_line(stream_id, claimed, outcome, ledger))
        count_costs(ledger)
        account, lanes, budgets = (claimed.fields.get(name, b"").decode() for name in ("account", "lane", "budgets"))
        owed = scripts.owed(ending, reply)
        settlement = Settlement(
            stream_id,
            account,
            Kind.ENDED,
            owed,
            holder.idempotency or "",
            has_webhook="webhook" in claimed.fields,
            has_archive="archive" in claimed.fields,
            ledger=ending.ledger,
            budgets=budgets,
        )
        await settle_soon(client, scripts, settlement, lanes)
    else:
        logger.debug("stream not ended", extra={"stream_id": stream_id, "code": reply.code})
    return reply.code is not Code.WATCHED


def _whole_ledger(
    scripts: StreamScripts, claimed: Claimed, log: Sequence[bytes], outcome: Outcome
) -> list[LedgerEntry]:
    """Return all calls of a stream that ends without a call of its own."""
    fields = claimed.fields
    known = decode_ledger(fields.get("ledger"), fields.get("key_id", b"").decode())
    lost = lost_calls(scripts.prices, fields, log, "cancelled" if outcome.is_cancelled else "broken_off")
    return [*known, *lost]
