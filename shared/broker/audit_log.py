"""Audit log of administrative acts: ``hr:{desk}:audit``, a stream of entries that are never changed (docs/adr/0035).

An act has two entries: its announcement, without which it does not begin, and its outcome. An act without an outcome
was interrupted, or its outcome could not be written. Entries contain no secret, no prompt and no answer.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec

from shared.broker.client import Client, run_commands, run_script
from shared.broker.declarations import RECORD_ACT
from shared.broker.keys import AUDIT
from shared.errors import BrokerUnavailable, HeadraceError
from shared.printable import one_line

#: Its lines appear at every log level.
LOGGER: Final = "audit"
logger = logging.getLogger(LOGGER)

#: The oldest entries are dropped beyond this number. Redis drops them in blocks, so somewhat later.
MOST_ENTRIES: Final = 20_000
#: The log as a whole expires so long after the last entry.
_KEPT_MS: Final = 400 * 86_400_000
_LONGEST_TEXT: Final = 500
_PAGE: Final = 500


class Outcome(StrEnum):
    """Outcome of an act. UNKNOWN: interrupted, under way, or not recorded."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Act(msgspec.Struct, frozen=True, omit_defaults=True):
    """One administrative act. ``what``: such as ``key.create``. ``who``: a principal, or a user of a machine.
    ``origin``: address or machine, and process or request. ``target``: id or name of its object."""

    what: str
    who: str
    origin: str
    target: str = ""
    details: Mapping[str, str] = {}


class RecordedAct(msgspec.Struct, frozen=True):
    """An act as the log has it. ``id``: of its announcement, for the next page. ``at``: time of that entry."""

    id: str
    at: datetime
    what: str
    who: str
    origin: str
    target: str
    details: Mapping[str, str]
    outcome: Outcome
    reason: str


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Announcement of the act ``number`` (``act``), its outcome, or both."""

    number: str
    act: Act | None = None
    outcome: Outcome = Outcome.UNKNOWN
    reason: str = ""


class ActRefused(Exception):
    """An act that is not possible. The message says why; it contains no secret."""


_decoder: Final = msgspec.json.Decoder(Entry)
#: An entry of another version, or damaged.
_UNREADABLE: Final = Act("unreadable entry", "unknown", "unknown")


@asynccontextmanager
async def recorded(client: Client, act: Act) -> AsyncIterator[None]:
    """Announce an act, run the body, and record its outcome. Raises :class:`BrokerUnavailable` before the body if the
    announcement cannot be written. An exception of the body is recorded and raised again; :class:`ActRefused` makes
    the outcome ``refused``."""
    number = secrets.token_hex(8)
    await _append(client, Entry(number, act))
    try:
        yield
    except BaseException as error:
        outcome = Outcome.REFUSED if isinstance(error, ActRefused) else Outcome.FAILED
        await _conclude(client, act, Entry(number, outcome=outcome, reason=_reason(error)))
        raise
    await _conclude(client, act, Entry(number, outcome=Outcome.DONE))


async def record(client: Client, act: Act, problem: str) -> None:
    """Record an act that has happened, with its problem or an empty text. If Redis is unavailable, only the log line
    remains, and another one says so."""
    outcome = Outcome.REFUSED if problem else Outcome.DONE
    await _conclude(client, act, Entry(secrets.token_hex(8), act, outcome, one_line(problem)[:_LONGEST_TEXT]))


async def read_acts(client: Client, *, most: int, since_ms: int = 0, before: str = "") -> list[RecordedAct]:
    """Return acts, the newest first, from ``since_ms`` on. ``before``: id of the last act of the previous page.
    Raises :class:`BrokerUnavailable`."""
    acts, outcomes = dict[str, tuple[str, Act]](), dict[str, Entry]()
    async for entry_id, entry in _newest_first(client, since_ms):
        if entry.outcome is not Outcome.UNKNOWN:
            outcomes[entry.number] = entry
        if entry.act is not None and (not before or _order(entry_id) < _order(before)):
            acts[entry.number] = entry_id, entry.act
            if len(acts) >= most:
                break
    return [joined(entry_id, act, outcomes.get(number)) for number, (entry_id, act) in acts.items()]


async def _newest_first(client: Client, since_ms: int) -> AsyncIterator[tuple[str, Entry]]:
    last = "+"
    while True:
        (page,) = await run_commands(client, [("XREVRANGE", AUDIT, last, since_ms, "COUNT", _PAGE)])
        for entry_id, fields in page:
            yield entry_id.decode(), decode_entry(entry_id.decode(), fields[1])
        if len(page) < _PAGE:
            return
        last = f"({page[-1][0].decode()}"


def decode_entry(entry_id: str, stored: bytes) -> Entry:
    """Decode an entry. One that cannot be read is an act of its own: it must not hide the others."""
    try:
        return _decoder.decode(stored)
    except ValueError:
        return Entry(entry_id, _UNREADABLE)


def is_entry_id(text: str) -> bool:
    """Return True if the text has the form of an id for ``before``."""
    ms, _, number = text.partition("-")
    return all(part.isascii() and part.isdigit() and len(part) < 16 for part in (ms, number))


async def _append(client: Client, entry: Entry) -> None:
    call = RECORD_ACT.call(
        RECORD_ACT.named_keys(audit=AUDIT),
        bool,
        entry=msgspec.json.encode(entry),
        most_entries=MOST_ENTRIES,
        kept_ms=_KEPT_MS,
    )
    await run_script(client, call)


async def _conclude(client: Client, act: Act, entry: Entry) -> None:
    """Record an outcome. The act is over, so a failure must not look like one of the act."""
    details = {**act.details, "act": entry.number}
    names = ("what", "who", "origin", "target")
    line = {name: getattr(act, name) for name in names} | {"outcome": entry.outcome, "reason": entry.reason}
    logger.info("administrative act", extra={**line, "details": details})
    try:
        await _append(client, entry)
    except BrokerUnavailable as error:
        logger.warning("outcome of an act not recorded in Redis", extra={"act": entry.number, "reason": error.reason})


def _reason(error: BaseException) -> str:
    """Return a text without content: messages of other exceptions may have some."""
    if isinstance(error, ActRefused):
        return one_line(str(error))[:_LONGEST_TEXT]
    return error.code if isinstance(error, HeadraceError) else type(error).__name__


def joined(entry_id: str, act: Act, outcome: Entry | None) -> RecordedAct:
    at = datetime.fromtimestamp(_order(entry_id)[0] / 1000, UTC)
    reason = outcome.reason if outcome else ""
    ended = outcome.outcome if outcome else Outcome.UNKNOWN
    return RecordedAct(entry_id, at, act.what, act.who, act.origin, act.target, act.details, ended, reason)


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number)
