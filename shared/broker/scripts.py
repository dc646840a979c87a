"""One typed function for each ``.lua`` file. Each makes a :class:`Call`; ``shared.broker.client`` sends it.

Keeping calls apart from their sending lets a worker put those of all its streams into one pipeline.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar

import msgspec

from shared.broker import replies
from shared.broker.keys import (
    QUEUE,
    TAKEN,
    TURNS,
    WAITING,
    job_key,
    principal_streams_key,
    provider_limit_keys,
    stream_keys,
    stream_keys_and,
)
from shared.broker.replies import (
    Claimed,
    Created,
    Due,
    Full,
    Gone,
    Known,
    Limited,
    LogPage,
    LogPosition,
    Lost,
    Refused,
    WriteReply,
)
from shared.broker.sealing import Sealing
from shared.protocol.ids import EventId
from shared.protocol.lifecycle import Status
from shared.rate_limits import LIMIT_NAMES, Demand
from shared.settings import Settings

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Argument = str | bytes | int
Fields = Mapping[str, Argument]

#: Most events in one page of the log.
MOST_EVENTS: Final = 256
#: Time beyond a lease for a living worker to restore a stream that Redis lost (design §4 rule 5).
HEALING_MS: Final = 4000
#: The first keys of every script of one stream, in the order of `stream_keys`.
STREAM_KEYS: Final = ("state", "log", "tail", "readers", "index", "tombstone", "pulse", "idempotency")


class Script:
    """One ``.lua`` file with the names of its arguments. A name that ends in ``…`` stands for any number of values.

    ``keys`` are the script's own; a script of one stream takes :data:`STREAM_KEYS` before them. ``parts``: the shared
    files that precede the script's code. ``sha``: the name Redis gives the script.
    """

    def __init__(
        self, name: str, *, args: tuple[str, ...], keys: tuple[str, ...] = (), parts: tuple[str, ...] = ("_stream",)
    ) -> None:
        folder = files("shared.broker") / "lua"
        first_line, _, body = (folder / f"{name}.lua").read_text().partition("\n")
        shared = [(folder / f"{part}.lua").read_text() for part in parts]
        self.name = name
        self.args = args
        self.own_keys = keys
        self.keys = (*STREAM_KEYS, *keys) if "_stream" in parts else keys
        self.source = "\n".join([first_line, *shared, body])
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        fixed = [arg for arg in args if not arg.endswith("…")]
        self._fixed = itemgetter(*fixed) if len(fixed) > 1 else lambda arguments: (arguments[fixed[0]],)
        self._tails = [arg.removesuffix("…") for arg in args if arg.endswith("…")]

    def call(self, keys: Sequence[str], parse: Callable[[Any], T], /, **arguments: Any) -> "Call[T]":
        """A call with ``arguments`` by their declared names. Raises KeyError and TypeError for other names."""
        if len(arguments) != len(self.args):
            raise TypeError(f"{self.name} takes {self.args}, not {tuple(arguments)}")
        flat: list[Argument] = list(self._fixed(arguments))
        for name in self._tails:
            flat += arguments[name]
        return Call(self, keys, flat, parse)

    def named_keys(self, **keys: str) -> list[str]:
        """The script's own keys, by their declared names, in the order of the declaration."""
        return [keys[name] for name in self.own_keys]


class Call(msgspec.Struct, Generic[T_co], frozen=True):
    """One call of a script, ready to send. ``parse`` turns Redis' reply into ours."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Argument]
    parse: Callable[[Any], T_co]


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


@dataclass(frozen=True, slots=True)
class Ending:
    """``fields``: finish_reason, reason, usage, error. ``tokens``: to charge to the account's limits.
    ``only_if_unwatched``: the reply is WATCHED if a reader came."""

    status: Status
    fields: Fields
    tokens: int
    only_if_unwatched: bool = False


class StreamScripts:
    """The scripts of one stream, with the settings they take filled in. Arguments and replies are plain; content is
    sealed on its way to Redis if there is a key for it."""

    def __init__(self, settings: Settings) -> None:
        self.sealing = Sealing([bytes.fromhex(key.get_secret_value()) for key in settings.content_keys])
        self._cap = settings.cap
        self._window = settings.window
        self._lease_ms = _ms(settings.lease_s)
        self._reader_lease_ms = _ms(settings.reader_lease_s)
        self._retention_ms = _ms(settings.retention_s)  # from the end on
        self._unended_ms = _ms(settings.unended_s)  # from the last renewal on
        self._tombstone_ms = _ms(settings.tombstone_s)
        self._queue_depth = settings.queue_depth
        longest_s = settings.queue_timeout_s + settings.max_attempts * (settings.total_deadline_s + settings.lease_s)
        self._longest_life_ms = _ms(longest_s)
        self._provider_limits = [item for limit in settings.provider_streams.items() for item in limit]

    def create(
        self, stream_id: str, *, fields: Fields, body_hash: str, idempotency: str | None, demand: Demand, job: bytes
    ) -> Call[Created | Known | Limited | Full]:
        """Create and queue a stream. ``fields`` must contain ``principal`` and ``on_disconnect``. ``job``: arq's."""
        more = _CREATE.named_keys(
            queue=QUEUE,
            job=job_key(stream_id),
            turns=TURNS,
            waiting=WAITING,
            principal_streams=principal_streams_key(str(fields["principal"])),
        )
        return _CREATE.call(
            stream_keys_and(stream_id, idempotency, more),
            replies.parse_created,
            body_hash=body_hash,
            retention_ms=self._unended_ms,
            tombstone_ms=self._tombstone_ms,
            look_after_ms=self._lease_ms,
            reader_lease_ms=self._reader_lease_ms,
            job=job,
            queue_depth=self._queue_depth,
            account=demand.account,
            tokens=demand.tokens,
            longest_life_ms=self._longest_life_ms,
            **{name: getattr(demand.limits, name) for name in LIMIT_NAMES},
            fields=_flat(self.sealing.seal_fields(stream_id, fields)),
        )

    def claim(self, stream_id: str, token: str, *, to_end: bool = False) -> Call[Claimed | Refused]:
        """Take a stream. ``to_end``: ignore the concurrency limit of its provider."""
        more = _CLAIM.named_keys(waiting=WAITING, taken=TAKEN)

        def parse(raw: Any) -> Claimed | Refused:
            claimed = replies.parse_claim(raw)
            if isinstance(claimed, Claimed):
                return replace(claimed, fields=self.sealing.open_fields(stream_id, claimed.fields))
            return claimed

        return _CLAIM.call(
            stream_keys_and(stream_id, None, more),
            parse,
            holder=token,
            lease_ms=self._lease_ms,
            provider_limits=[] if to_end else self._provider_limits,
        )

    def append(
        self, holder: Holder, first: int, events: Sequence[bytes], *, resend: bool = False
    ) -> Call[WriteReply]:
        """Add ``events`` from seq ``first`` on. A ``resend`` ignores the window."""
        window = 0 if resend else self._window
        sealed = self.sealing.seal_all(holder.stream_id, events)
        # Positional, since this is the hot path: `_APPEND.call` takes 1 µs more. A test compares the two.
        arguments: list[Argument] = [holder.epoch, holder.token, first, window, self._cap, *sealed]
        return Call(_APPEND, holder.keys, arguments, replies.parse_write)

    def finish(self, holder: Holder, first: int, events: Sequence[bytes], ending: Ending) -> Call[WriteReply]:
        """End a stream with ``events`` from seq ``first`` on; the last is ``done``."""
        fields = _flat(ending.fields)
        return _FINISH.call(
            holder.keys,
            replies.parse_write,
            epoch=holder.epoch,
            holder=holder.token,
            first_seq=first,
            cap=self._cap,
            retention_ms=self._retention_ms,
            tombstone_ms=self._tombstone_ms,
            status=ending.status,
            only_if_unwatched=int(ending.only_if_unwatched),
            tokens=ending.tokens,
            field_items=len(fields),
            fields=fields,
            events=self.sealing.seal_all(holder.stream_id, events),
        )

    def restore(self, holder: Holder, events: Sequence[bytes], *, fields: Fields, body_hash: str) -> Call[WriteReply]:
        """Write a stream again that Redis lost: all ``events`` of the epoch so far, and the state's ``fields`` as
        they were claimed."""
        flat = _flat(self.sealing.seal_fields(holder.stream_id, fields))
        return _RESTORE.call(
            holder.keys,
            replies.parse_write,
            epoch=holder.epoch,
            holder=holder.token,
            lease_ms=self._lease_ms,
            cap=self._cap,
            retention_ms=self._unended_ms,
            tombstone_ms=self._tombstone_ms,
            body_hash=body_hash,
            reader_lease_ms=self._reader_lease_ms,
            field_items=len(flat),
            fields=flat,
            events=self.sealing.seal_all(holder.stream_id, events),
        )

    def renew(self, holder: Holder) -> Call[WriteReply]:
        """Extend the lease."""
        return _RENEW.call(
            holder.keys,
            replies.parse_write,
            epoch=holder.epoch,
            holder=holder.token,
            lease_ms=self._lease_ms,
            retention_ms=self._unended_ms,
            tombstone_ms=self._tombstone_ms,
        )

    def release(self, holder: Holder) -> Call[WriteReply]:
        """Hand the stream over to the next claim, without waiting for the lease to end."""
        return _RELEASE.call(holder.keys, replies.parse_write, epoch=holder.epoch, holder=holder.token)

    def acknowledge(self, stream_id: str, gateway_id: str, lead: EventId) -> Call[LogPosition | None]:
        """Report readers, the leading one at ``lead``. The reply is None if there is no state."""
        return self._acknowledge(stream_id, gateway_id, lead, self._reader_lease_ms)

    def leave(self, stream_id: str, gateway_id: str, lead: EventId) -> Call[LogPosition | None]:
        """Report that the last reader of this gateway has left, at ``lead``."""
        return self._acknowledge(stream_id, gateway_id, lead, 0)

    def _acknowledge(
        self, stream_id: str, gateway_id: str, lead: EventId, reader_lease_ms: int
    ) -> Call[LogPosition | None]:
        return _ACKNOWLEDGE.call(
            stream_keys(stream_id),
            replies.parse_log_position,
            gateway=gateway_id,
            reader_lease_ms=reader_lease_ms,
            epoch=lead.epoch,
            seq=lead.seq,
            window=self._window,
        )

    def cancel(self, stream_id: str, reason: str) -> Call[Refused]:
        """Mark a stream to be stopped."""
        return _CANCEL.call(stream_keys(stream_id), replies.parse_refused, reason=reason)

    def note_resume(self, stream_id: str, how: str) -> Call[str]:
        """Note that a reader came back. The reply is the stream's ``traceparent``; '' if it has none."""
        return _NOTE.call(stream_keys(stream_id), bytes.decode, event="resume", detail=how)

    def note_failure(self, stream_id: str, provider: str, code: str) -> Call[str]:
        """Note that a provider failed; another may follow. Replies as :meth:`note_resume` does."""
        return _NOTE.call(stream_keys(stream_id), bytes.decode, event="failure", detail=f"{provider}:{code}")

    def delete(self, stream_id: str, principal: str) -> Call[bool]:
        """Delete a stream's content. The reply is False if there was none."""
        more = _DELETE.named_keys(
            queue=QUEUE,
            job=job_key(stream_id),
            waiting=WAITING,
            principal_streams=principal_streams_key(principal),
        )
        keys = stream_keys_and(stream_id, None, more)
        return _DELETE.call(keys, replies.parse_deleted, tombstone_ms=self._retention_ms + self._tombstone_ms)

    def read(
        self, stream_id: str, after: EventId, *, most_events: int = MOST_EVENTS, most_bytes: int = 64 * 1024
    ) -> Call[LogPage | Gone | Lost | None]:
        """Read a page of the log, from the start if ``after`` is of another epoch. None: the stream is unknown."""

        def parse(raw: Any) -> LogPage | Gone | Lost | None:
            page = replies.parse_page(raw)
            if isinstance(page, LogPage):
                return replace(page, events=self.sealing.open_all(stream_id, page.events))
            return page

        return _READ.call(
            stream_keys(stream_id),
            parse,
            epoch=after.epoch,
            seq=after.seq,
            most_events=most_events,
            most_bytes=most_bytes,
            healing_ms=self._lease_ms + HEALING_MS,
        )

    def sweep(self, keys: tuple[str, str], run_id: str, *, most: int = 100) -> Call[Due]:
        """Update one bucket's pulse and return its streams that are due. ``keys``: index and pulse."""
        return _SWEEP.call(keys, replies.parse_due, lease_ms=self._lease_ms, most_ids=most, run_id=run_id)


def enqueue(stream_id: str, job: bytes, *, life_s: float) -> Call[bool]:
    """Put a stream's id before all others into the queue; False if it is queued already."""
    keys = _ENQUEUE.named_keys(queue=QUEUE, job=job_key(stream_id))
    return _ENQUEUE.call(keys, bool, stream_id=stream_id, job=job, life_ms=_ms(life_s))


def unpark(provider: str, limit: int) -> Call[list[str]]:
    """Take parked streams for which their provider has free slots; the caller queues them."""
    running, parked = provider_limit_keys(provider)
    return _UNPARK.call(_UNPARK.named_keys(running=running, parked=parked), replies.parse_unparked, limit=limit)


_CREATE: Final = Script(
    "create",
    keys=("queue", "job", "turns", "waiting", "principal_streams"),
    args=(
        *("body_hash", "retention_ms", "tombstone_ms", "look_after_ms", "reader_lease_ms", "job", "queue_depth"),
        *("account", "tokens", "longest_life_ms", *LIMIT_NAMES, "fields…"),
    ),
    parts=("_stream", "_rate_limits", "_queue"),
)
_CLAIM: Final = Script(
    "claim",
    keys=("waiting", "taken"),
    args=("holder", "lease_ms", "provider_limits…"),
    parts=("_stream", "_provider_limit"),
)
_APPEND: Final = Script(
    "append",
    args=("epoch", "holder", "first_seq", "window", "cap", "events…"),
    parts=("_append_fast", "_stream"),
)
_FINISH: Final = Script(
    "finish",
    args=(
        *("epoch", "holder", "first_seq", "cap", "retention_ms", "tombstone_ms", "status", "only_if_unwatched"),
        *("tokens", "field_items", "fields…", "events…"),
    ),
    parts=("_stream", "_rate_limits", "_provider_limit", "_endings"),
)
_RESTORE: Final = Script(
    "restore",
    args=(
        *("epoch", "holder", "lease_ms", "cap", "retention_ms", "tombstone_ms", "body_hash", "reader_lease_ms"),
        *("field_items", "fields…", "events…"),
    ),
    parts=("_stream", "_rate_limits", "_provider_limit"),
)
_RENEW: Final = Script(
    "renew",
    args=("epoch", "holder", "lease_ms", "retention_ms", "tombstone_ms"),
    parts=("_stream", "_provider_limit"),
)
_RELEASE: Final = Script("release", args=("epoch", "holder"), parts=("_stream", "_provider_limit"))
_ACKNOWLEDGE: Final = Script("acknowledge", args=("gateway", "reader_lease_ms", "epoch", "seq", "window"))
_CANCEL: Final = Script("cancel", args=("reason",))
_DELETE: Final = Script(
    "delete",
    keys=("queue", "job", "waiting", "principal_streams"),
    args=("tombstone_ms",),
    parts=("_stream", "_rate_limits", "_provider_limit"),
)
_READ: Final = Script("read", args=("epoch", "seq", "most_events", "most_bytes", "healing_ms"))
_NOTE: Final = Script("note", args=("event", "detail"))
_SWEEP: Final = Script("sweep", keys=("index", "pulse"), args=("lease_ms", "most_ids", "run_id"), parts=())
_ENQUEUE: Final = Script("enqueue", keys=("queue", "job"), args=("stream_id", "job", "life_ms"), parts=())
_UNPARK: Final = Script("unpark", keys=("running", "parked"), args=("limit",), parts=())


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _flat(fields: Fields) -> list[Argument]:
    return [item for pair in fields.items() for item in pair]
