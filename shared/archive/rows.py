"""Archived streams as rows of the table ``streams``.

With ``HEADRACE_CONTENT_KEYS``, content is sealed as in Redis, in base64 where the column is text. The id of a chat is
then a keyed digest, by which a chat can be found, and is itself in the sealed ``fields``.
"""

import base64
import hashlib
import hmac
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from sqlalchemy import Row

from shared.archive.records import ArchivedStream, ListedStream
from shared.broker.sealing import Sealing
from shared.errors import ContentUnreadable
from shared.protocol.ledger import LedgerEntry
from shared.rate_limits import account_of

_CHAT: Final = "chat_id"
_LEVEL: Final = 6


class Rows:
    """Converts streams to rows and back. ``keys``: those of ``HEADRACE_CONTENT_KEYS``; the first one seals."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self._sealing = Sealing(keys)

    @property
    def are_sealed(self) -> bool:
        return bool(self._keys)

    def chat_ids(self, principal: str, chat_id: str) -> list[str]:
        """Return every value that the column ``chat_id`` may have for a chat of a principal."""
        return [clean(chat_id), *(_digest(key, principal, chat_id) for key in self._keys)]

    def of(self, stream: ArchivedStream) -> dict[str, Any]:
        """Return a stream's row."""
        usage, error = stream.view.get("usage") or {}, stream.view.get("error") or {}
        chat_id = stream.chat_id
        if chat_id is not None:
            chat_id = _digest(self._keys[0], stream.principal, chat_id) if self._keys else clean(chat_id)
        return {
            "stream_id": stream.stream_id,
            "principal": stream.principal,
            "account": account_of(stream.principal),
            "chat_id": chat_id,
            "status": stream.status,
            "finish_reason": stream.view.get("finish_reason"),
            "reason": _clean_or_none(stream.view.get("reason")),
            "error_code": _clean_or_none(error.get("code")),
            "provider": clean(stream.provider),
            "model": clean(stream.model),
            "created_at": stream.created,
            "started_at": stream.started,
            "ended_at": stream.ended,
            "input_tokens": usage.get("input_tokens"),
            "output_tokens": usage.get("output_tokens"),
            "estimated": usage.get("estimated"),
            **_cost_of(stream.ledger),
            "sealed": self.are_sealed,
            **self._content(stream),
            "has_cursors": stream.has_cursors,
            "last_event_id": stream.end,
        }

    def stream(self, row: Row[Any], ledger: list[LedgerEntry]) -> ArchivedStream:
        """Return the stream of a row. Raises :class:`ContentUnreadable`."""
        fields = msgspec.json.decode(self._open_text(row, "fields"), type=dict[str, str])
        events = zlib.decompress(self._sealing.open(row.stream_id, row.events))
        return ArchivedStream(
            stream_id=row.stream_id,
            principal=row.principal,
            chat_id=fields.pop(_CHAT, None),
            status=row.status,
            model=row.model,
            provider=row.provider,
            created=row.created_at,
            started=row.started_at,
            ended=row.ended_at,
            view=msgspec.json.decode(self._open_text(row, "answer")),
            request=self._open_text(row, "request") if "request" in row._mapping else b"",
            fields=fields,
            events=events.split(b"\n") if events else [],
            has_cursors=row.has_cursors,
            end=row.last_event_id,
            text=row.text,
            ledger=ledger,
        )

    def listed(self, row: Row[Any]) -> ListedStream:
        """Return the entry of a list. Raises :class:`ContentUnreadable`."""
        try:
            fields = msgspec.json.decode(self._open_text(row, "fields"), type=dict[str, str])
            metadata = msgspec.json.decode(self._open_text(row, "metadata") or b"{}", type=dict[str, Any])
        except ValueError as error:  # not base64 or not JSON: damaged
            raise ContentUnreadable from error
        opened = self.listed_unopened(row)
        return replace(opened, chat_id=fields.get(_CHAT), title=fields.get("title", ""), metadata=metadata)

    def listed_unopened(self, row: Row[Any]) -> ListedStream:
        """Return the entry of a list without its content: chat, title and metadata."""
        return ListedStream(
            stream_id=row.stream_id,
            chat_id=None,
            title="",
            status=row.status,
            provider=row.provider,
            model=row.model,
            finish_reason=row.finish_reason,
            metadata={},
            created=row.created_at,
            ended=row.ended_at,
        )

    def _content(self, stream: ArchivedStream) -> dict[str, Any]:
        fields = stream.fields if stream.chat_id is None else {**stream.fields, _CHAT: stream.chat_id}
        texts = {
            "metadata": msgspec.json.encode(stream.view.get("metadata") or {}),
            "request": stream.request,
            "answer": msgspec.json.encode(stream.view),
            "fields": msgspec.json.encode(fields),
        }
        if self._keys:
            texts = {column: base64.b64encode(self._seal(stream, plain)) for column, plain in texts.items()}
        return {
            **{column: clean(plain.decode()) for column, plain in texts.items()},
            "text": None if self._keys else _clean_or_none(stream.text),
            "events": self._seal(stream, zlib.compress(b"\n".join(stream.events), _LEVEL)),
        }

    def _seal(self, stream: ArchivedStream, plain: bytes) -> bytes:
        return self._sealing.seal(stream.stream_id, plain)

    def _open_text(self, row: Row[Any], column: str) -> bytes:
        stored: bytes = (row._mapping[column] or "").encode()
        return self._sealing.open(row.stream_id, base64.b64decode(stored)) if row.sealed else stored


def clean(value: str) -> str:
    """Return text as PostgreSQL can store it: without NUL and lone surrogates."""
    return value.replace("\0", "\ufffd").encode(errors="replace").decode()


def _clean_or_none(value: str | None) -> str | None:
    return None if value is None else clean(value)


def _digest(key: bytes, principal: str, chat_id: str) -> str:
    message = b"headrace chat\0" + principal.encode() + b"\0" + chat_id.encode(errors="surrogatepass")
    return hmac.digest(key, message, hashlib.sha256).hex()[:32]


def _cost_of(ledger: list[LedgerEntry]) -> dict[str, Any]:
    """Return the cost of all calls, unless one has no price or the currencies differ."""
    costs, currencies = [entry.cost_nanos for entry in ledger], {entry.currency for entry in ledger}
    known = [cost for cost in costs if cost is not None]
    if not ledger or len(known) < len(costs) or len(currencies) > 1:
        return {"cost_nanos": None, "currency": None}
    return {"cost_nanos": sum(known), "currency": currencies.pop()}
