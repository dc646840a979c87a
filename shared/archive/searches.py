"""Queries for lists of archived streams: by owner, chat, model, time and text."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select

from shared.archive.records import LATEST_MS, Filters, Position
from shared.archive.rows import Rows, clean
from shared.archive.tables import STREAMS

#: Columns of an entry of a list.
LISTED: Final = (
    *(STREAMS.c[name] for name in ("stream_id", "status", "provider", "model", "finish_reason", "metadata")),
    *(STREAMS.c[name] for name in ("created_at", "ended_at", "sealed", "fields")),
)
_NEWEST_FIRST: Final = (STREAMS.c.created_at.desc(), STREAMS.c.stream_id.desc())
_ESCAPE: Final = "\\"


def listing(
    rows: Rows, dialect: str, principal: str, filters: Filters, before: Position | None, most: int
) -> Select[Any]:
    """Return the query for a principal's streams, the newest first, that come after the position ``before``."""
    conditions = [STREAMS.c.principal == principal, *_conditions(rows, dialect, principal, filters)]
    return select(*LISTED).where(*conditions, *_after(before)).order_by(*_NEWEST_FIRST).limit(most)


def chats(principal: str, before: Position | None, most: int) -> Select[Any]:
    """Return the query for the newest stream of each of a principal's chats, with ``streams``, their number, and
    ``first``, the time of the oldest. Those after the position ``before``, the newest first."""
    others = STREAMS.alias("others")
    same_chat = and_(others.c.principal == STREAMS.c.principal, others.c.chat_id == STREAMS.c.chat_id)
    follows = and_(others.c.created_at == STREAMS.c.created_at, others.c.stream_id > STREAMS.c.stream_id)
    newer = exists().where(same_chat, or_(others.c.created_at > STREAMS.c.created_at, follows))
    counts = [
        select(func.count()).where(same_chat).scalar_subquery().label("streams"),
        select(func.min(others.c.created_at)).where(same_chat).scalar_subquery().label("first"),
    ]
    conditions = [STREAMS.c.principal == principal, STREAMS.c.chat_id.is_not(None), ~newer, *_after(before)]
    return select(*LISTED, *counts).where(*conditions).order_by(*_NEWEST_FIRST).limit(most)


def chat_members(
    rows: Rows, principal: str, chat_id: str, after: Position | None, before_ms: int, most: int
) -> Select[Any]:
    """Return the query for times and ids of a chat's streams, the oldest first: those after the position ``after``
    that were created before ``before_ms``."""
    created, stream_id = STREAMS.c.created_at, STREAMS.c.stream_id
    conditions = [STREAMS.c.principal == principal, STREAMS.c.chat_id.in_(rows.chat_ids(principal, chat_id))]
    conditions.append(created < min(before_ms, LATEST_MS))
    if after is not None:
        at = min(after[0], LATEST_MS)
        conditions.append(or_(created > at, and_(created == at, stream_id > after[1])))
    return select(created, stream_id).where(*conditions).order_by(created, stream_id).limit(most)


def by_ids(principal: str, stream_ids: Sequence[str]) -> Select[Any]:
    """Return the query for some of a principal's streams."""
    return select(*LISTED).where(STREAMS.c.principal == principal, STREAMS.c.stream_id.in_(stream_ids))


def _after(before: Position | None) -> list[ColumnElement[bool]]:
    """Return the conditions for streams that come after a position, the newest first."""
    if before is None:
        return []
    at, stream_id = min(before[0], LATEST_MS), before[1]
    same = and_(STREAMS.c.created_at == at, STREAMS.c.stream_id < stream_id)
    return [STREAMS.c.created_at <= at, or_(STREAMS.c.created_at < at, same)]


def _conditions(rows: Rows, dialect: str, principal: str, filters: Filters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.chat_id is not None:
        conditions.append(STREAMS.c.chat_id.in_(rows.chat_ids(principal, filters.chat_id)))
    if filters.model is not None:
        name = clean(filters.model)
        conditions.append(or_(STREAMS.c.model == name, STREAMS.c.provider + "/" + STREAMS.c.model == name))
    if filters.from_ms is not None:
        conditions.append(STREAMS.c.created_at >= filters.from_ms)
    if filters.to_ms is not None:
        conditions.append(STREAMS.c.created_at < filters.to_ms)
    if filters.text is not None:
        conditions += _has_text(dialect, clean(filters.text))
    return conditions


def _has_text(dialect: str, text: str) -> list[ColumnElement[bool]]:
    """Return the condition for a part of the text. SQLite ignores the case of ASCII only: it finds candidates with
    any other letters, which the function of our connections then compares."""
    if dialect == "postgresql":
        return [STREAMS.c.text.ilike(f"%{_escaped(text)}%", escape=_ESCAPE)]
    pattern = "".join(_escaped(each) if each.isascii() else "%" for each in text)
    conditions: list[ColumnElement[bool]] = [STREAMS.c.text.like(f"%{pattern}%", escape=_ESCAPE)]
    if not text.isascii():
        conditions.append(func.instr(func.headrace_lower(STREAMS.c.text), text.lower()) > 0)
    return conditions


def _escaped(text: str) -> str:
    for special in (_ESCAPE, "%", "_"):
        text = text.replace(special, _ESCAPE + special)
    return text
