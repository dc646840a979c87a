"""Queries for lists of archived streams: by owner, chat, model, time and text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from shared.archive.rows import Rows, clean
from shared.archive.tables import LATEST_MS, STREAMS

#: Columns of an entry of a list.
LISTED: Final = (
    *(STREAMS.c[name] for name in ("stream_id", "status", "provider", "model", "finish_reason", "metadata")),
    *(STREAMS.c[name] for name in ("created_at", "ended_at", "sealed")),
)
_ESCAPE: Final = "\\"


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions of a search; None: any. ``model`` is a model's name, or ``provider/model``. Times are ms since 1970;
    ``to`` is the first moment after. ``text``: a part of the answer, in any case."""

    text: str | None = None
    chat_id: str | None = None
    model: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


#: Position in a list, as ``next_page`` has it: time of creation and stream id.
Position = tuple[int, str]


def listing(
    rows: Rows, dialect: str, principal: str, filters: Filters, before: Position | None, most: int
) -> Select[Any]:
    """Return the query for a principal's streams, the newest first, that come after the position ``before``."""
    conditions = [STREAMS.c.principal == principal, *_conditions(rows, dialect, principal, filters)]
    if before is not None:
        at, stream_id = min(before[0], LATEST_MS), before[1]
        same = and_(STREAMS.c.created_at == at, STREAMS.c.stream_id < stream_id)
        conditions += [STREAMS.c.created_at <= at, or_(STREAMS.c.created_at < at, same)]
    order = STREAMS.c.created_at.desc(), STREAMS.c.stream_id.desc()
    return select(*LISTED).where(*conditions).order_by(*order).limit(most)


def by_ids(principal: str, stream_ids: Sequence[str]) -> Select[Any]:
    """Return the query for some of a principal's streams."""
    return select(*LISTED).where(STREAMS.c.principal == principal, STREAMS.c.stream_id.in_(stream_ids))


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
