"""Declarations of the scripts: the names of their keys and arguments, as the ``.lua`` files have them too."""

import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar

import msgspec

from shared.rate_limits import LIMIT_NAMES, TARGET_LIMIT_NAMES

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Argument = str | bytes | int

#: The first keys of every script of one stream, in the order of `stream_keys`.
STREAM_KEYS: Final = (
    *("state", "log", "tail", "readers", "index", "tombstone", "pulse", "request", "answers", "idempotency"),
)


class Script:
    """One ``.lua`` file with the names of its arguments. A name that ends in ``…`` stands for any number of values.

    ``keys`` are the script's own; a script of one stream takes :data:`STREAM_KEYS` before them. ``parts``: the shared
    files that precede the script's code. ``most_streams``: if more than one, keys and arguments repeat for each
    stream of a call, and the reply is a list; ``keys`` are then all keys of a stream. ``after``: the script that
    comes before it in an exchange of both. ``sha``: the name Redis gives the script.
    """

    def __init__(
        self,
        name: str,
        *,
        args: tuple[str, ...],
        keys: tuple[str, ...] = (),
        parts: tuple[str, ...] = ("_stream",),
        most_streams: int = 1,
        after: "Script | None" = None,
    ) -> None:
        folder = files("shared.broker") / "lua"
        first_line, _, body = (folder / f"{name}.lua").read_text().partition("\n")
        takes_many = most_streams > 1
        if "_stream" in parts:
            parts = ("_messages", "_chunks", *(("_many",) if takes_many else ()), *parts)
        for start in ("_stream", "_desk"):
            if start in parts:
                at = parts.index(start)
                parts = (*parts[:at], "_common", *parts[at:])
        shared = [(folder / f"{part}.lua").read_text() for part in parts]
        self.name = name
        self.args = args
        self.own_keys = keys
        self.takes_many = takes_many
        self.most_streams = most_streams
        self.after = after
        self.keys = (*STREAM_KEYS, *keys) if "_stream" in parts and not takes_many else keys
        self.source = "\n".join([first_line, *shared, body])
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        fixed = [arg for arg in args if not arg.endswith("…")]
        self._fixed = itemgetter(*fixed) if len(fixed) > 1 else lambda arguments: (arguments[fixed[0]],)
        self._tails = [arg.removesuffix("…") for arg in args if arg.endswith("…")]

    @property
    def to_load(self) -> tuple[str, ...]:
        """The sources to load where Redis lacks the script, in order. A script is never known without the one that
        it follows: else an exchange would run it alone, and the first one later."""
        return (*(self.after.to_load if self.after else ()), self.source)

    def call(self, keys: Sequence[str], parse: Callable[[Any], T], route: str = "", /, **arguments: Any) -> "Call[T]":
        """A call with ``arguments`` by their declared names. Raises KeyError and TypeError for other names."""
        if len(arguments) != len(self.args):
            raise TypeError(f"{self.name} takes {self.args}, not {tuple(arguments)}")
        flat: list[Argument] = list(self._fixed(arguments))
        for name in self._tails:
            flat += arguments[name]
        return Call(self, keys, flat, parse, route)

    def named_keys(self, **keys: str) -> list[str]:
        """The script's own keys, by their declared names, in the order of the declaration. A name that ends in ``…``
        stands for any number of keys, which the caller adds."""
        return [keys[name] for name in self.own_keys if not name.endswith("…")]


class Call(msgspec.Struct, Generic[T_co], frozen=True):
    """One call of a script, ready to send. ``parse`` turns Redis' reply into ours. ``route``: calls of a script that
    ``takes_many`` go together if they have the same."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Argument]
    parse: Callable[[Any], T_co]
    route: str = ""


#: Keys of an account at the desk.
_ACCOUNT: Final = ("used", "streams", "stored", "kept", "sources")

STORE: Final = Script("store", args=("piece_number", "kept_ms", "piece"))
BEGIN: Final = Script(
    "begin",
    args=("body_hash", "retention_ms", "tombstone_ms", "look_after_ms", "reader_lease_ms", "fields…"),
    parts=("_stream", "_content"),
)
FORGET: Final = Script("forget", args=("principal",))
ADMIT: Final = Script(
    "admit",
    keys=(
        "of",
        "queue",
        "turns",
        "waiting",
        "waiting_accounts",
        *_ACCOUNT,
        "dropping",
        "job",
        "batch_turns",
        "budgets…",
    ),
    args=(
        *("stream_id", "account", "tokens", "bytes", "retention_ms", "longest_life_ms", *LIMIT_NAMES, "queue_depth"),
        *("queue_limit", "targets", "sources", "final", "force", "job", "slot", "batch"),
        "budgets…",
    ),
    parts=("_desk", "_rate_limits", "_budgets", "_storage", "_classes", "_queue"),
    after=BEGIN,
)
CLAIM: Final = Script("claim", args=("holder", "lease_ms"))
TAKE: Final = Script(
    "take",
    keys=("of", "waiting", "waiting_accounts", "taken", "lanes…"),
    args=("stream_id", "holder", "lease_ms", "limits…"),
    parts=("_desk", "_rate_limits", "_provider_limit"),
)
LEAVE: Final = Script(
    "leave",
    keys=("of", "queue", "lanes…"),
    args=("stream_id", "holder", "requeue", "life_ms", "lanes…"),
    parts=("_desk", "_classes", "_rate_limits", "_provider_limit"),
)
APPEND: Final = Script(
    "append",
    keys=STREAM_KEYS[:3],
    args=("epoch", "holder", "first_seq", "window", "cap", "lineage", "provider_cursor", "count", "events…"),
    parts=("_append_fast", "_stream"),
    most_streams=512,
)
FINISH: Final = Script(
    "finish",
    args=(
        *("epoch", "holder", "first_seq", "cap", "retention_ms", "tombstone_ms", "status", "only_if_unwatched"),
        *("tokens", "lineage", "field_items", "chunk_ends", "delivery_ms", "archive_ms", "cost"),
        *("fields…", "chunks…", "events…"),
    ),
    parts=("_stream", "_content"),
)
RESTORE: Final = Script(
    "restore",
    args=(
        *("epoch", "holder", "lease_ms", "retention_ms", "tombstone_ms", "body_hash", "reader_lease_ms"),
        *("lineage", "field_items", "chunk_ends", "fields…", "chunks…", "events…"),
    ),
    parts=("_stream", "_content"),
)
PACK: Final = Script(
    "pack", args=("epoch", "holder", "lineage", "before", "chunk_ends", "chunks…"), parts=("_stream", "_content")
)
NOTE_CURSOR: Final = Script("note_cursor", args=("epoch", "holder", "provider_cursor"))
RENEW: Final = Script(
    "renew",
    keys=STREAM_KEYS,
    args=("epoch", "holder", "lease_ms", "retention_ms", "tombstone_ms"),
    parts=("_stream", "_content"),
    most_streams=64,
)
RELEASE: Final = Script("release", args=("epoch", "holder"))
TAKE_SLOT: Final = Script(
    "take_slot",
    keys=("of", "lanes…"),
    args=("stream_id", "holder", "lease_ms", "provider", "target", *TARGET_LIMIT_NAMES, "lanes…"),
    parts=("_desk", "_rate_limits", "_provider_limit"),
)
ACKNOWLEDGE: Final = Script(
    "acknowledge",
    keys=STREAM_KEYS[:4],
    args=("gateway", "reader_lease_ms", "epoch", "seq", "window", "worker_lease_ms"),
    most_streams=256,
)
CANCEL: Final = Script("cancel", args=("reason",))
DELETE: Final = Script("delete", args=("tombstone_ms",))
DROP: Final = Script("drop", args=("tombstone_ms", "retention_min_ms"))
PAID: Final = Script("paid", args=("owed", "archive_ms"))
DELIVER: Final = Script(
    "deliver",
    keys=("dead_letters",),
    args=("outcome", "undelivered", "detail", "next_look_ms", "retention_ms", "delivery_ms", "archive_ms"),
)
ARCHIVED: Final = Script(
    "archived",
    keys=("dead_letters",),
    args=("unarchived", "retention_ms", "tombstone_ms", "delivery_ms"),
    parts=("_stream", "_content"),
)
TAKE_DUE: Final = Script("take_due", keys=("queue",), args=("most_ids", "lease_ms"), parts=("_common",))
READ: Final = Script("read", args=("epoch", "seq", "most_events", "most_bytes", "healing_ms"))
AMEND: Final = Script("amend", args=("owed", "next_owed", "ledger", "usage_final"))
NOTE: Final = Script("note", args=("event", "detail", "holder", "ledger", "accounted"))
SWEEP: Final = Script("sweep", keys=("index", "pulse"), args=("lease_ms", "most_ids"), parts=())
REQUEUE: Final = Script(
    "requeue", keys=("of", "queue", "job"), args=("stream_id", "life_ms", "job"), parts=("_desk", "_classes")
)
SETTLE: Final = Script(
    "settle",
    keys=(
        *("of", "job", "queue", "waiting", "waiting_accounts", *_ACCOUNT, "removed", "ended", "failed", "minute"),
        *("usage…", "lanes…", "budgets…"),
    ),
    args=(
        *("stream_id", "account", "kind", "status", "reason", "tokens", "bytes", "expires", "digest"),
        *("tombstone_ms", "retention_ms", "cost", "usage_ms", "usage_days", "usage_items", "lane_count"),
        "charged_tokens",
        *("usage…", "lanes…", "budgets…"),
    ),
    parts=("_desk", "_rate_limits", "_budgets", "_storage", "_provider_limit", "_endings", "_usage"),
)
HOLD: Final = Script(
    "hold",
    keys=(
        *("of", "above_limit", "streams", "stored", "kept", "sources", "waiting", "waiting_accounts"),
        "lanes…",
    ),
    args=(
        *("stream_id", "holder", "lease_ms", "account", "bytes", "expires", "stored_limit", "again", "life_ms"),
        *("tokens", "targets", "made_from", "budgets", "batch", "lane_items", "lanes…"),
    ),
    parts=("_many", "_desk", "_rate_limits", "_storage", "_classes", "_provider_limit"),
    most_streams=64,
)
MAY_DROP: Final = Script(
    "may_drop", keys=("of", "stored", "sources", "dropping"), args=("stream_id",), parts=("_desk", "_storage")
)
UNPARK: Final = Script(
    "unpark",
    keys=("running", "parked", "tokens", "used", "queue"),
    args=(*TARGET_LIMIT_NAMES, "life_ms"),
    parts=("_common", "_classes"),
)
REVOKE_LINKS: Final = Script("revoke_links", keys=("revoked_links",), args=("account", "kept_ms"), parts=())
RECORD_ACT: Final = Script(
    "record_act", keys=("audit",), args=("entry", "most_entries", "kept_ms"), parts=("_common",)
)
JOIN_CHAT: Final = Script(
    "join_chat",
    keys=("chat", "members"),
    args=("stream_id", "expected", "message", "pending_ms", "most_members", "life_ms"),
    parts=("_common",),
)
JOINED_CHAT: Final = Script(
    "joined_chat", keys=("chat", "members"), args=("stream_id", "is_created"), parts=("_common",)
)
FORGET_CHAT: Final = Script("forget_chat", keys=("chat", "members"), args=("stream_ids",), parts=("_common",))
RIGHTS: Final = Script("rights", keys=("probe",), args=("checks",), parts=())
