"""One typed function for each ``.lua`` file. Each makes a :class:`Call`; ``shared.broker.client`` sends it.

Keeping calls apart from their sending lets a worker put those of all its streams into one pipeline.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from shared.broker import declarations, replies
from shared.broker.declarations import Argument, Call
from shared.broker.desk_replies import OtherLanes, Parked, Taken, TargetFull
from shared.broker.desk_scripts import DeskScripts
from shared.broker.keys import (
    dead_letters_key,
    stream_keys,
    stream_keys_and,
)
from shared.broker.replies import (
    Begun,
    Claimed,
    Due,
    Gone,
    Known,
    LogPage,
    LogPosition,
    Lost,
    Owed,
    Refused,
    Removed,
    Unstored,
    WriteReply,
)
from shared.broker.routes import Routes, routes_at
from shared.broker.sealing import Sealing
from shared.broker.stored_request import PIECE_BYTES, pieces_of
from shared.errors import ContentUnreadable
from shared.prices import Prices
from shared.protocol.chunks import Chunks, compress, leaving, take
from shared.protocol.ids import EventId
from shared.protocol.ledger import LedgerEntry
from shared.protocol.lifecycle import Status
from shared.protocol.lineage import NO_LINEAGE, Lineage
from shared.rate_limits import UNLIMITED, Demand, TargetLimits
from shared.settings import Settings

Fields = Mapping[str, Argument]

#: Most events in one page of the log.
MAX_EVENTS_PER_PAGE: Final = 256
#: Time beyond a lease for a living worker to restore a stream that Redis lost (rule R4).
HEALING_MS: Final = 4000
#: Time for which a stream is kept after the last try to deliver its webhook is due.
_DELIVERY_MARGIN_MS: Final = 3_600_000
#: Time for which a stream is kept after the last look, if it is not archived yet.
_ARCHIVE_MS: Final = 30 * 86_400_000
NO_LEDGER: Final[Mapping[str, str]] = {"ledger": "", "accounted": ""}
#: Life of a piece of a large request until its stream is created.
_PIECE_MS: Final = 60_000


@dataclass(frozen=True)
class Holder:
    """A claim on a stream: its epoch, and the random token that distinguishes it from another claim of that epoch."""

    stream_id: str
    epoch: int
    token: str
    idempotency: str | None

    @cached_property
    def keys(self) -> list[str]:
        return stream_keys(self.stream_id, self.idempotency)

    @property
    def state_key(self) -> str:
        return self.keys[0]

    @cached_property
    def append_keys(self) -> list[str]:
        return self.keys[:3]


@dataclass(frozen=True, slots=True)
class Ending:
    """Final state of a stream. ``fields``: finish_reason, reason, usage, error, ledger. ``tokens``: to charge to the
    account's limits. ``only_if_unwatched``: the reply is WATCHED if a reader came. ``cost``: of all calls, in nanos,
    or ``?``; ``ledger``: the calls."""

    status: Status
    fields: Fields
    tokens: int
    only_if_unwatched: bool = False
    cost: str = "0"
    ledger: Sequence[LedgerEntry] = ()


class Delivery(StrEnum):
    """Outcomes of a stream's webhook. WANTED: it is sent again, although it was delivered or given up."""

    DELIVERED = "delivered"
    FAILED = "failed"
    GIVEN_UP = "given_up"
    WANTED = "wanted"


class Archived(StrEnum):
    """Replies to :meth:`StreamScripts.archived`. OWED: the desk has to settle the stream. OTHER: it ended again
    meanwhile, or that was noted before. DELETED: the archive must not have it."""

    ARCHIVED = "ARCHIVED"
    OWED = "OWED"
    OTHER = "OTHER"
    DELETED = "DELETED"
    GONE = "GONE"


class StreamScripts:
    """The scripts of one stream, with the settings they take filled in. Arguments and replies are plain; content is
    sealed on its way to Redis if there is a key for it."""

    def __init__(self, settings: Settings, routes: Routes | None = None) -> None:
        self.routes = routes or routes_at(settings.redis_url)
        self.sealing = Sealing([bytes.fromhex(key.get_secret_value()) for key in settings.content_keys])
        self.has_archive = settings.archive_url is not None
        self._cap = settings.cap
        self._window = settings.window
        self._lease_ms = _ms(settings.lease_s)
        self._reader_lease_ms = _ms(settings.reader_lease_s)
        self._retention_ms = _ms(settings.retention_s)  # from the end on
        self._unended_ms = _ms(settings.unended_s)  # from the last renewal on
        self._retention_min_ms = min(_ms(settings.retention_min_s), self._retention_ms)
        self._tombstone_ms = _ms(settings.tombstone_s)
        self._delivery_ms = _ms(settings.webhook_retry_s) + _DELIVERY_MARGIN_MS
        self.desk = DeskScripts(settings)
        #: Limits of providers; see shared_configuration.py.
        self.target_limits: Mapping[str, TargetLimits] = {
            name: TargetLimits(concurrent_streams=limit) for name, limit in settings.provider_streams.items()
        }
        #: Prices of the configuration in force, by which calls are priced that end.
        self.prices: Prices = {}

    def new_token(self, owner: str, stream_id: str) -> str:
        """Return a token for a claim. The scripts derive the channel of its holder from it; see `worker_channel`."""
        return f"{owner}{self.routes.of(stream_id)}.{secrets.token_hex(8)}"

    def split_request(self, stream_id: str, fields: Fields) -> tuple[Fields, list[Call[WriteReply]]]:
        """Return the fields for :meth:`begin` or :meth:`restore`, and the calls that store a large request before
        it, piece by piece. A small request stays in the fields."""
        request = fields.get("request", b"")
        request = request.encode() if isinstance(request, str) else bytes(request)
        rest: dict[str, Argument] = {name: value for name, value in fields.items() if name != "request_bytes"}
        if len(request) <= PIECE_BYTES:
            return rest, []
        del rest["request"]
        sealed = self.sealing.seal(stream_id, request)
        calls = [
            declarations.STORE.call(
                stream_keys(stream_id),
                replies.parse_write,
                piece_number=number,
                kept_ms=_PIECE_MS,
                piece=piece,
            )
            for number, piece in enumerate(pieces_of(sealed))
        ]
        return {**rest, "request_bytes": len(sealed)}, calls

    def begin(
        self, stream_id: str, sealed: Fields, body_hash: str, idempotency: str | None, demand: Demand
    ) -> Call[Begun | Known | Unstored]:
        """Create a stream, which is not counted and queued yet; see ``creation.py``. ``sealed``: its fields; a large
        request is stored before (:meth:`split_request`)."""
        of_account: dict[str, Argument] = {"account": demand.account, "stored_limit": demand.limits.stored_bytes or 0}
        if demand.limits.has_rates:
            of_account["limited"] = 1
        if demand.reservations:
            of_account["budgets"] = demand.budgets
        return declarations.BEGIN.call(
            stream_keys(stream_id, idempotency),
            replies.parse_begun,
            body_hash=body_hash,
            retention_ms=self._unended_ms,
            tombstone_ms=self._tombstone_ms,
            look_after_ms=self._lease_ms,
            reader_lease_ms=self._reader_lease_ms,
            fields=_flat({**sealed, **of_account}),
        )

    def forget(self, stream_id: str, principal: str, idempotency: str | None) -> Call[bool]:
        """Undo :meth:`begin` for a stream that was refused."""
        return declarations.FORGET.call(stream_keys(stream_id, idempotency), bool, principal=principal)

    @property
    def listed_ms(self) -> int:
        """Life of the list of a principal's streams, which outlives each stream in it."""
        return self.desk.longest_life_ms + self._unended_ms

    @property
    def chat_ms(self) -> int:
        """Life of the keys of a chat after its last change: that of a stream and its tombstone."""
        return self.listed_ms + self._tombstone_ms

    def take(self, stream_id: str, token: str, held: str = "") -> Call[Taken | Parked | OtherLanes | Refused]:
        """Take a stream's place, and a slot of the first of its targets with room, before :meth:`claim`. ``held``:
        further lanes that the stream has, one a line."""
        return self.desk.take(stream_id, token, self.target_limits, held)

    def claim(self, stream_id: str, token: str) -> Call[Claimed | Refused]:
        """Take a stream that no worker holds."""

        def parse(raw: Any) -> Claimed | Refused:
            claimed = replies.parse_claim(raw)
            if isinstance(claimed, Claimed):
                return replace(claimed, fields=self.sealing.open_fields(stream_id, claimed.fields))
            return claimed

        return declarations.CLAIM.call(stream_keys(stream_id), parse, holder=token, lease_ms=self._lease_ms)

    def append(
        self,
        holder: Holder,
        first: int,
        events: Sequence[bytes],
        *,
        resend: bool = False,
        lineage: Lineage = NO_LINEAGE,
        cursor: str = "",
    ) -> Call[WriteReply]:
        """Add ``events`` from seq ``first`` on. A ``resend`` ignores the window. ``lineage``: of the log that the
        epoch continues. ``cursor``: the place in the provider's stored answer after the last event, if there is one;
        see ``provider_cursor`` in ``append.lua``."""
        window = 0 if resend else self._window
        sealed = self.sealing.seal_all(holder.stream_id, events)
        # Positional, since this is the hot path: `declarations.APPEND.call` takes 1 µs more. A test compares the two.
        place = (holder.epoch, holder.token, first, window, self._cap, lineage.text, cursor, len(sealed))
        return Call(
            declarations.APPEND,
            holder.append_keys,
            [*place, *sealed],
            replies.parse_write,
            self.routes.of(holder.stream_id),
        )

    def pack(
        self, holder: Holder, before: int, events: Sequence[bytes], lineage: Lineage = NO_LINEAGE
    ) -> Call[WriteReply]:
        """Move ``events`` from the tail into chunks of the log, which has ``before`` events in chunks."""
        chunks = compress(events, before)
        return declarations.PACK.call(
            holder.keys,
            replies.parse_write,
            epoch=holder.epoch,
            holder=holder.token,
            lineage=lineage.text,
            before=before,
            chunk_ends=chunks.ends_text,
            chunks=self.sealing.seal_all(holder.stream_id, chunks.data),
        )

    def finish(
        self,
        holder: Holder,
        first: int,
        events: Sequence[bytes],
        chunks: Chunks,
        ending: Ending,
        lineage: Lineage = NO_LINEAGE,
    ) -> Call[WriteReply]:
        """End a stream with ``events`` from seq ``first`` on; the last is ``done``. ``chunks``: the whole log, which
        replaces its other forms."""
        fields = _flat(ending.fields)
        return declarations.FINISH.call(
            holder.keys,
            replies.parse_counted,
            epoch=holder.epoch,
            holder=holder.token,
            first_seq=first,
            cap=self._cap,
            retention_ms=self._retention_ms,
            tombstone_ms=self._tombstone_ms,
            status=ending.status,
            only_if_unwatched=int(ending.only_if_unwatched),
            tokens=ending.tokens,
            cost=ending.cost,
            lineage=lineage.text,
            field_items=len(fields),
            chunk_ends=chunks.ends_text,
            delivery_ms=self._delivery_ms,
            archive_ms=_ARCHIVE_MS,
            fields=fields,
            chunks=self.sealing.seal_all(holder.stream_id, chunks.data),
            events=self.sealing.seal_all(holder.stream_id, events),
        )

    def amend(self, stream_id: str, owed: str, next_owed: str, ledger: str, usage_final: bytes) -> Call[bool]:
        """Replace the usage of a stream that has ended and is not settled. The reply is False if it is."""
        return declarations.AMEND.call(
            stream_keys(stream_id),
            bool,
            owed=owed,
            next_owed=next_owed,
            ledger=ledger,
            usage_final=usage_final,
        )

    def owed(self, ending: Ending, reply: WriteReply) -> Owed:
        """Return an ending for the desk. ``reply``: to :meth:`finish`."""
        ended = reply.expires - self._retention_ms
        return Owed(
            ending.status, str(ending.fields.get("reason", "")), ending.tokens, reply.size, ended, ending.cost
        )

    def restore(
        self,
        holder: Holder,
        events: Sequence[bytes],
        *,
        fields: Fields,
        body_hash: str,
        lineage: Lineage = NO_LINEAGE,
    ) -> Call[WriteReply]:
        """Write a stream again that Redis lost: all ``events`` of the epoch and its ``lineage`` so far, and the
        state's ``fields`` as they were claimed."""
        flat = _flat(self.sealing.seal_fields(holder.stream_id, fields))
        packed = leaving(self._cap, events)
        chunks = compress(events[:packed])
        return declarations.RESTORE.call(
            holder.keys,
            replies.parse_counted,
            epoch=holder.epoch,
            holder=holder.token,
            lease_ms=self._lease_ms,
            retention_ms=self._unended_ms,
            tombstone_ms=self._tombstone_ms,
            body_hash=body_hash,
            reader_lease_ms=self._reader_lease_ms,
            lineage=lineage.text,
            field_items=len(flat),
            chunk_ends=chunks.ends_text,
            fields=flat,
            chunks=self.sealing.seal_all(holder.stream_id, chunks.data),
            events=self.sealing.seal_all(holder.stream_id, events[packed:]),
        )

    def renew(self, holder: Holder) -> Call[WriteReply]:
        """Extend the lease."""
        return declarations.RENEW.call(
            stream_keys_and(holder.stream_id, holder.idempotency, ()),
            replies.parse_counted,
            self.routes.of(holder.stream_id),
            epoch=holder.epoch,
            holder=holder.token,
            lease_ms=self._lease_ms,
            retention_ms=self._unended_ms,
            tombstone_ms=self._tombstone_ms,
        )

    def note_cursor(self, holder: Holder, cursor: str) -> Call[WriteReply]:
        """Note where the provider's stored answer is, before it has output."""
        return declarations.NOTE_CURSOR.call(
            holder.keys, replies.parse_write, epoch=holder.epoch, holder=holder.token, provider_cursor=cursor
        )

    def release(self, holder: Holder) -> Call[WriteReply]:
        """Hand the stream over to the next claim, without waiting for the lease to end."""
        return declarations.RELEASE.call(holder.keys, replies.parse_write, epoch=holder.epoch, holder=holder.token)

    def take_slot(
        self, holder: Holder, provider: str, target: str = "", *, held: str = ""
    ) -> Call[TargetFull | OtherLanes | str | None]:
        """Take a slot of a provider for one call, instead of the one that the stream had before. ``target``: count
        the stream there too. ``held``: lanes that the stream has, one a line. The reply is its new lanes; None if
        another holds the stream, as the next append shows."""
        limits = self.target_limits.get(provider, UNLIMITED)
        return self.desk.take_slot(holder.stream_id, holder.token, provider, target, limits, held)

    def acknowledge(self, stream_id: str, gateway_id: str, lead: EventId) -> Call[LogPosition | None]:
        """Report readers, the leading one at ``lead``. The reply is None if there is no state."""
        return self._acknowledge(stream_id, gateway_id, lead, self._reader_lease_ms)

    def leave(self, stream_id: str, gateway_id: str, lead: EventId) -> Call[LogPosition | None]:
        """Report that the last reader of this gateway has left, at ``lead``."""
        return self._acknowledge(stream_id, gateway_id, lead, 0)

    def _acknowledge(
        self, stream_id: str, gateway_id: str, lead: EventId, reader_lease_ms: int
    ) -> Call[LogPosition | None]:
        route = self.routes.of(stream_id)
        return declarations.ACKNOWLEDGE.call(
            stream_keys(stream_id)[:4],
            replies.parse_log_position,
            route,
            # The scripts derive the channel from it; see `gateway_channel`.
            gateway=gateway_id and gateway_id + route,
            reader_lease_ms=reader_lease_ms,
            epoch=lead.epoch,
            seq=lead.seq,
            window=self._window,
            worker_lease_ms=self._lease_ms,
        )

    def cancel(self, stream_id: str, reason: str) -> Call[Refused]:
        """Mark a stream to be stopped."""
        return declarations.CANCEL.call(stream_keys(stream_id), replies.parse_refused, reason=reason)

    def note_resume(self, stream_id: str, how: str) -> Call[str]:
        """Note that a reader came back. The reply is the stream's ``traceparent``; '' if it has none."""
        return self._note(stream_id, "resume", how)

    def note_parked(self, stream_id: str, provider: str) -> Call[str]:
        """Note that a stream waits for a slot of a provider. Replies as :meth:`note_resume` does."""
        return self._note(stream_id, "parked", provider)

    def note_called(self, holder: Holder, provider: str) -> Call[str]:
        """Note that a provider was called and has said nothing yet, if the caller holds the stream. Replies as
        :meth:`note_resume` does."""
        return self._note(holder.stream_id, "called", provider, holder.token)

    def note_failure(self, holder: Holder, provider: str, code: str, ledger: Mapping[str, str]) -> Call[str]:
        """Note that a call failed; another may follow. ``ledger``: the fields of the state that keep it, which are
        written if the caller holds the stream. Replies as :meth:`note_resume` does."""
        return self._note(holder.stream_id, "failure", f"{provider}:{code}", holder.token, ledger)

    def note_ledger(self, holder: Holder, ledger: Mapping[str, str]) -> Call[str]:
        """Write the ledger, if the caller holds the stream. Replies as :meth:`note_resume` does."""
        return self._note(holder.stream_id, "", "", holder.token, ledger)

    def _note(
        self, stream_id: str, event: str, detail: str, holder: str = "", ledger: Mapping[str, str] = NO_LEDGER
    ) -> Call[str]:
        return declarations.NOTE.call(
            stream_keys(stream_id), bytes.decode, event=event, detail=detail, holder=holder, **ledger
        )

    def delete(self, stream_id: str) -> Call[Removed | None]:
        """Delete a stream's content. The reply is None if there was none."""
        return declarations.DELETE.call(
            stream_keys(stream_id), replies.parse_removed, tombstone_ms=self._retention_ms + self._tombstone_ms
        )

    def drop(self, stream_id: str) -> Call[Removed | None]:
        """Drop the answer of a stream that has ended. The reply is None if it is kept."""
        return declarations.DROP.call(
            stream_keys(stream_id),
            replies.parse_removed,
            tombstone_ms=self._retention_ms + self._tombstone_ms,
            retention_min_ms=self._retention_min_ms,
        )

    def paid(self, stream_id: str, owed: str) -> Call[bool]:
        """Take a stream out of the index that has ended or is gone, once the desk has settled it. ``owed``: the field
        of its state; empty if there is none."""
        return declarations.PAID.call(stream_keys(stream_id), bool, owed=owed, archive_ms=_ARCHIVE_MS)

    def deliver(
        self,
        stream_id: str,
        idempotency: str | None,
        outcome: Delivery,
        undelivered: str,
        *,
        detail: str = "",
        again_ms: int = 0,
    ) -> Call[bool]:
        """Note what became of a stream's webhook. ``undelivered``: the field of its state. ``again_ms``: until the
        next try. The reply is False if the stream does not wait for it (any more)."""
        return declarations.DELIVER.call(
            stream_keys_and(stream_id, idempotency, [dead_letters_key(stream_id)]),
            bool,
            outcome=outcome,
            undelivered=undelivered,
            detail=detail,
            next_look_ms=again_ms + self._lease_ms,
            retention_ms=self._retention_ms,
            delivery_ms=self._delivery_ms,
            archive_ms=_ARCHIVE_MS,
        )

    def archived(self, stream_id: str, idempotency: str | None, unarchived: str) -> Call[Archived]:
        """Note that a stream is in the archive. ``unarchived``: the field of its state when it was read."""
        return declarations.ARCHIVED.call(
            stream_keys_and(stream_id, idempotency, [dead_letters_key(stream_id)]),
            lambda reply: Archived(reply.decode()),
            unarchived=unarchived,
            retention_ms=self._retention_ms,
            tombstone_ms=self._tombstone_ms,
            delivery_ms=self._delivery_ms,
        )

    def read(
        self, stream_id: str, after: EventId, *, most_events: int = MAX_EVENTS_PER_PAGE, most_bytes: int = 64 * 1024
    ) -> Call[LogPage | Gone | Lost | None]:
        """Read a page of the log, from the start if ``after`` is of another epoch. None: the stream is unknown."""

        def open_page(chunks: list[bytes], skipped: int, events: list[bytes]) -> list[bytes]:
            opened = self.sealing.open_all(stream_id, events)
            if not chunks:
                return opened
            opened_chunks = (self.sealing.open(stream_id, chunk) for chunk in chunks)
            try:
                return take(opened_chunks, skipped, opened, most_events=most_events, most_bytes=most_bytes)
            except ValueError as error:
                raise ContentUnreadable from error

        def parse(raw: Any) -> LogPage | Gone | Lost | None:
            return replies.parse_page(raw, open_page)

        return declarations.READ.call(
            stream_keys(stream_id),
            parse,
            epoch=after.epoch,
            seq=after.seq,
            most_events=most_events,
            most_bytes=most_bytes,
            healing_ms=self._lease_ms + HEALING_MS,
        )

    def sweep(self, buckets: Sequence[tuple[str, str]], *, most: int = 100) -> Call[Due]:
        """Update the pulses of buckets and return their streams that are due. ``buckets``: index and pulse of each;
        on one server any number of them. ``most``: of each bucket."""
        keys = [key for bucket in buckets for key in bucket]
        return declarations.SWEEP.call(keys, replies.parse_due, lease_ms=self._lease_ms, most_ids=most)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _flat(fields: Fields) -> list[Argument]:
    return [item for pair in fields.items() for item in pair]
