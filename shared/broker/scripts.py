"""One typed function for each ``.lua`` file. Each makes a :class:`Call`; ``shared.broker.client`` sends it.

Keeping calls apart from their sending lets a worker put those of all its streams into one pipeline.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from typing import Any, Final, Generic, TypeVar

import msgspec

from shared.broker import replies as answers
from shared.broker.keys import (
    QUEUE,
    TAKEN,
    TURNS,
    WAITING,
    job_key,
    lane_keys,
    owned_key,
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

T_co = TypeVar("T_co", covariant=True)
Argument = str | bytes | int

#: In one page of the log.
MOST_EVENTS: Final = 256
#: Beyond a lease: how long a worker that lives may take to write again what Redis lost (design §4 rule 5).
HEALING_MS: Final = 4000
Fields = Mapping[str, Argument]


class Script:
    """One ``.lua`` file, behind the parts it shares with others. ``sha`` is Redis' own name for it."""

    def __init__(self, name: str, *, after: tuple[str, ...] = ("_stream",)) -> None:
        folder = files("shared.broker") / "lua"
        first_line, _, body = (folder / f"{name}.lua").read_text().partition("\n")
        parts = [(folder / f"{part}.lua").read_text() for part in after]
        self.name = name
        self.source = "\n".join([first_line, *parts, body])
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class Call(msgspec.Struct, Generic[T_co], frozen=True):
    script: Script
    keys: Sequence[str]
    arguments: Sequence[Argument]
    parse: Callable[[Any], T_co]


@dataclass(frozen=True)
class Holder:
    """Who writes: the epoch it was given and the random token that tells it from another of the same epoch."""

    stream_id: str
    epoch: int
    token: str
    idempotency: str | None

    @cached_property
    def keys(self) -> list[str]:
        return stream_keys(self.stream_id, self.idempotency)


@dataclass(frozen=True, slots=True)
class Ending:
    """``fields``: finish_reason, reason, usage, error. ``tokens``: what it took of its account's limits.
    ``only_if_unwatched``: answer WATCHED where a reader came."""

    status: Status
    fields: Fields
    tokens: int
    only_if_unwatched: bool = False


class StreamScripts:
    """The scripts with the settings they take filled in. What they are given and answer is plain; what Redis is
    sent is sealed where there is a key."""

    def __init__(self, settings: Settings) -> None:
        self.sealing = Sealing([bytes.fromhex(key.get_secret_value()) for key in settings.content_keys])
        self._cap = settings.cap
        self._window = settings.window
        self._lease = _ms(settings.lease_s)
        self._reader_lease = _ms(settings.reader_lease_s)
        self._life = (_ms(settings.retention_s), _ms(settings.tombstone_s))  # from the end on
        self._unended = (_ms(settings.unended_s), _ms(settings.tombstone_s))
        self._queue_depth = settings.queue_depth
        longest_s = settings.queue_timeout_s + settings.max_attempts * (settings.total_deadline_s + settings.lease_s)
        self._longest_life = _ms(longest_s)
        self._lanes = [item for lane in settings.provider_streams.items() for item in lane]

    def create(
        self, stream_id: str, *, fields: Fields, body_hash: str, idempotency: str | None, demand: Demand, job: bytes
    ) -> Call[Created | Known | Limited | Full]:
        """``fields`` must contain ``principal`` and ``on_disconnect``. ``job``: what arq is to find."""
        keys = [QUEUE, job_key(stream_id), TURNS, WAITING, owned_key(str(fields["principal"]))]
        arguments: list[Argument] = [
            body_hash,
            *self._unended,
            self._lease,
            self._reader_lease,
            job,
            self._queue_depth,
            demand.account,
            demand.tokens,
            self._longest_life,
            *(getattr(demand.limits, name) for name in LIMIT_NAMES),
            *_flat(self.sealing.seal_fields(stream_id, fields)),
        ]
        return Call(_CREATE, stream_keys_and(stream_id, idempotency, keys), arguments, answers.parse_created)

    def claim(self, stream_id: str, token: str, *, to_end: bool = False) -> Call[Claimed | Refused]:
        """``to_end``: whatever room its provider has."""
        keys = stream_keys_and(stream_id, None, [WAITING, TAKEN])
        lanes = [] if to_end else self._lanes

        def parse(raw: Any) -> Claimed | Refused:
            claimed = answers.parse_claim(raw)
            if isinstance(claimed, Claimed):
                return replace(claimed, fields=self.sealing.open_fields(stream_id, claimed.fields))
            return claimed

        return Call(_CLAIM, keys, [token, self._lease, *lanes], parse)

    def append(
        self, holder: Holder, first: int, events: Sequence[bytes], *, resend: bool = False
    ) -> Call[WriteReply]:
        """``events`` from seq ``first``. A ``resend`` ignores the window."""
        window = 0 if resend else self._window
        sealed = self.sealing.seal_all(holder.stream_id, events)
        arguments: list[Argument] = [holder.epoch, holder.token, first, window, self._cap, *sealed]
        return Call(_APPEND, holder.keys, arguments, answers.parse_write)

    def finish(self, holder: Holder, first: int, events: Sequence[bytes], ending: Ending) -> Call[WriteReply]:
        """``events`` from seq ``first``; the last is ``done``."""
        fields = _flat(ending.fields)
        head: list[Argument] = [holder.epoch, holder.token, first, self._cap, *self._life, ending.status]
        head += [int(ending.only_if_unwatched), ending.tokens]
        sealed = self.sealing.seal_all(holder.stream_id, events)
        arguments: list[Argument] = [*head, len(fields), *fields, *sealed]
        return Call(_FINISH, holder.keys, arguments, answers.parse_write)

    def restore(self, holder: Holder, events: Sequence[bytes], *, fields: Fields, body_hash: str) -> Call[WriteReply]:
        """All ``events`` of the epoch so far, and the state's ``fields`` as they were claimed."""
        flat = _flat(self.sealing.seal_fields(holder.stream_id, fields))
        head: list[Argument] = [
            holder.epoch,
            holder.token,
            self._lease,
            self._cap,
            *self._unended,
            body_hash,
            self._reader_lease,
        ]
        sealed = self.sealing.seal_all(holder.stream_id, events)
        return Call(_RESTORE, holder.keys, [*head, len(flat), *flat, *sealed], answers.parse_write)

    def renew(self, holder: Holder) -> Call[WriteReply]:
        arguments: list[Argument] = [holder.epoch, holder.token, self._lease, *self._unended]
        return Call(_RENEW, holder.keys, arguments, answers.parse_write)

    def release(self, holder: Holder) -> Call[WriteReply]:
        """Hand the stream over to whoever claims it next, without a lease wait."""
        return Call(_RELEASE, holder.keys, [holder.epoch, holder.token], answers.parse_write)

    def acknowledge(self, stream_id: str, gateway_id: str, lead: EventId) -> Call[LogPosition | None]:
        """Readers are there, the leading one at ``lead``. None: there is no state."""
        arguments: list[Argument] = [gateway_id, self._reader_lease, *lead, self._window]
        return Call(_ACKNOWLEDGE, stream_keys(stream_id), arguments, answers.parse_log_position)

    def leave(self, stream_id: str, gateway_id: str, lead: EventId) -> Call[LogPosition | None]:
        """The last reader of this gateway has left, at ``lead``."""
        return Call(
            _ACKNOWLEDGE, stream_keys(stream_id), [gateway_id, 0, *lead, self._window], answers.parse_log_position
        )

    def cancel(self, stream_id: str, reason: str) -> Call[Refused]:
        return Call(_CANCEL, stream_keys(stream_id), [reason], answers.parse_refused)

    def resumed(self, stream_id: str, how: str) -> Call[str]:
        """A reader came back. The ``traceparent`` of the stream, '' where it has none."""
        return Call(_NOTE, stream_keys(stream_id), ["resume", how], bytes.decode)

    def failed(self, stream_id: str, provider: str, code: str) -> Call[str]:
        """A provider failed, and another may be asked. Answers as :meth:`resumed` does."""
        return Call(_NOTE, stream_keys(stream_id), ["failure", f"{provider}:{code}"], bytes.decode)

    def delete(self, stream_id: str, principal: str) -> Call[bool]:
        """False: there was nothing to delete."""
        keys = stream_keys_and(stream_id, None, [QUEUE, job_key(stream_id), WAITING, owned_key(principal)])
        return Call(_DELETE, keys, [self._life[0] + self._life[1]], answers.parse_deleted)

    def read(
        self, stream_id: str, after: EventId, *, most_events: int = MOST_EVENTS, most_bytes: int = 64 * 1024
    ) -> Call[LogPage | Gone | Lost | None]:
        """A page of the log; from the start where ``after`` is of another epoch. None: never heard of it."""
        arguments: list[Argument] = [*after, most_events, most_bytes, self._lease + HEALING_MS]

        def parse(raw: Any) -> LogPage | Gone | Lost | None:
            page = answers.parse_page(raw)
            if isinstance(page, LogPage):
                return replace(page, events=self.sealing.open_all(stream_id, page.events))
            return page

        return Call(_READ, stream_keys(stream_id), arguments, parse)

    def sweep(self, keys: tuple[str, str], run_id: str, *, most: int = 100) -> Call[Due]:
        """One bucket's turn: its pulse, and what is due."""
        return Call(_SWEEP, keys, [self._lease, most, run_id], answers.parse_due)


def enqueue(stream_id: str, job: bytes, *, life_s: float) -> Call[bool]:
    """Puts a stream's id before all others into the queue, unless it waits there already (False)."""
    return Call(_ENQUEUE, [QUEUE, job_key(stream_id)], [stream_id, job, _ms(life_s)], bool)


def unpark(provider: str, most: int) -> Call[list[str]]:
    """Streams for which their provider has room by now; they are to be queued."""
    return Call(_UNPARK, lane_keys(provider), [most], answers.parse_unparked)


_CREATE: Final = Script("create", after=("_stream", "_rate_limits", "_queue"))
_CLAIM: Final = Script("claim", after=("_stream", "_provider_limit"))
_APPEND: Final = Script("append", after=("_append_fast", "_stream"))
_FINISH: Final = Script("finish", after=("_stream", "_rate_limits", "_provider_limit", "_endings"))
_RESTORE: Final = Script("restore", after=("_stream", "_rate_limits", "_provider_limit"))
_RENEW: Final = Script("renew", after=("_stream", "_provider_limit"))
_RELEASE: Final = Script("release", after=("_stream", "_provider_limit"))
_ACKNOWLEDGE: Final = Script("acknowledge")
_CANCEL: Final = Script("cancel")
_DELETE: Final = Script("delete", after=("_stream", "_rate_limits", "_provider_limit"))
_READ: Final = Script("read")
_NOTE: Final = Script("note")
_SWEEP: Final = Script("sweep", after=())
_ENQUEUE: Final = Script("enqueue", after=())
_UNPARK: Final = Script("unpark", after=())


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _flat(fields: Fields) -> list[Argument]:
    return [item for pair in fields.items() for item in pair]
