"""Reader of streams of Responses, as OpenAI and the servers that follow it send them.

Items are told apart by their index, because some servers give an item another id in each event. An answer ends with
the event of its end. Everything that the deltas have not brought by then is taken from the whole parts and items.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.protocol.events import Extra
from workers.providers.base import EMPTY_ANSWER, Delta, Finished, FinishReason, TextDelta
from workers.providers.errors import StreamedError
from workers.providers.finish_reasons import FinishNote
from workers.providers.framing import ErrorEvent, decode, loose_json
from workers.providers.http_calls import ProviderCall
from workers.providers.responses_calls import Calls, is_call
from workers.providers.responses_events import (
    ADDED,
    ANNOTATION,
    ARGUMENTS,
    DONE,
    ENDS,
    INPUT,
    PARTS,
    TEXT,
    TEXTS,
    WHOLE_PARTS,
    WHOLE_TEXTS,
    Event,
    decoder,
)
from workers.providers.responses_texts import FAMILY, Place, Texts
from workers.providers.responses_usage import count, further_usage
from workers.providers.tool_calls import ToolCalls
from workers.providers.usage_counts import UsageCounts, member, whole_number

Data = Mapping[str, Any]
#: Members of a response that the gateway sets itself, or that are large and the client's own.
_OWN: Final = frozenset(
    {
        *("id", "object", "created_at", "status", "model", "output", "usage", "error", "background", "store"),
        *("previous_response_id", "instructions", "tools", "metadata", "output_text"),
    }
)
#: Members of an event that say which item it is about. The gateway sets its own.
_LOCATION: Final = frozenset({"output_index", "item_id", "sequence_number"})


class ResponsesReader:
    """Reader of one answer (:class:`workers.providers.reading.AnswerReader`)."""

    def __init__(self, call: ProviderCall, calls: ToolCalls) -> None:
        self.is_whole = False
        self._call = call
        self._tool_calls = calls
        self._calls = Calls(calls)
        self._texts = Texts()
        self._finish = FinishNote(call.provider)
        self._counts = UsageCounts()
        self._items: dict[int, Data] = {}
        self._ended: set[int] = set()
        self._has_begun = False
        self._has_output = False
        self._has_other = False  # pieces that are no event of this API have come
        self._waiting: list[Extra] = []  # until there is output: they alone are none

    @property
    def can_end(self) -> bool:
        return self._finish.reason is not None

    def take(self, piece: bytes) -> Iterator[Delta]:
        if not piece.startswith(b"{") or isinstance(piece, ErrorEvent):
            self._take_other(piece)
            return
        event = decode(decoder, piece)
        if event.type == TEXT and self._is_plain(event):
            yield TextDelta(event.delta)
            return
        for delta in self._deltas(event, piece):
            if isinstance(delta, Extra) and "at" not in delta.data and "call" not in delta.data:
                self._waiting.append(delta)
            else:
                self._has_output = True
                yield from self._extras_so_far()
                yield delta

    def end(self) -> Iterator[Delta]:
        reason = self._finish.reason
        if reason is None:
            raise self._call.incomplete(is_protocol=self._has_begun or not self._has_other)
        yield from self._extras_so_far()
        for delta in self._tool_calls.finish(reason):
            self._has_output = True
            yield delta
        has_refused = self._texts.has_refused
        given: FinishReason = "content_filter" if has_refused else self._tool_calls.reason(reason)
        detail = "refusal" if has_refused else self._finish.unknown
        if not self._has_output:  # further members of the response are none
            detail = detail or EMPTY_ANSWER
        self._call.finished = Finished(given, self._counts.usage(), detail)

    def _take_other(self, piece: bytes) -> None:
        if piece == b"[DONE]":
            self.is_whole = True
        elif isinstance(piece, ErrorEvent):
            raise StreamedError(_error_of(loose_json(piece)))
        else:  # a keep-alive of some server: it is not an object, so it carries nothing
            self._has_other = True

    def _is_plain(self, event: Event) -> bool:
        """Return True for a text that continues the one before, and has nothing beside it."""
        if self._waiting or event.logprobs or not (event.delta and isinstance(event.delta, str)):
            return False
        return self._texts.place == (event.output_index, "output_text", event.content_index)

    def _extras_so_far(self) -> list[Extra]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _deltas(self, event: Event, piece: bytes) -> Iterator[Delta]:
        kind = event.type
        if not isinstance(kind, str):
            yield from self._whole_response(loose_json(piece))
            return
        if kind.startswith("response."):
            self._has_begun = True
        else:
            self._has_other = True
        if kind in PARTS:
            yield from self._texts.delta(self._place(event, PARTS[kind]), event.delta, event.logprobs)
        elif kind == ARGUMENTS:
            yield from self._calls.arguments(self._key(event), event.delta)
        elif kind == INPUT:
            yield from self._calls.input(self._key(event), event.delta)
        elif kind in ENDS:
            yield from self._end(ENDS[kind], _object(member(loose_json(piece), "response")))
        elif kind in {"error", "response.error"}:
            raise StreamedError(_error_of(loose_json(piece)))
        else:
            yield from self._of_item(event, _object(loose_json(piece)))

    def _of_item(self, event: Event, whole: Data) -> Iterator[Delta]:
        """Take an event about an item or a part of one. Events of later versions about other things carry nothing."""
        kind = event.type
        if kind == ADDED:
            yield from self._add(event, _object(whole.get("item")))
        elif kind == DONE:
            item = _object(whole.get("item"))
            yield from self._finish_item(self._key(event, item), item)
        elif kind == ANNOTATION and whole.get("annotation"):
            yield from self._texts.annotation(self._place(event, "output_text"), whole["annotation"])
        elif kind in WHOLE_TEXTS:
            part, name = WHOLE_TEXTS[kind]
            yield from self._texts.whole(self._place(event, part), whole.get(name))
        elif kind in WHOLE_PARTS:
            yield from self._texts.whole_part(self._key(event), _index(event), _object(whole.get("part")))
        elif (key := self._known_key(event)) is not None and _is_of_provider(self._items[key]):
            members = {name: value for name, value in whole.items() if name not in _LOCATION}
            yield Extra(FAMILY, {"at": key, "event": members})

    def _add(self, event: Event, item: Data) -> Iterator[Delta]:
        key = whole_number(event.output_index)
        key = len(self._items) if key is None else key
        self._items[key] = item
        self._ended.discard(key)
        if item.get("type") in TEXTS:
            self._texts.add(key, item)
            return
        self._texts.interrupt()
        if is_call(item):
            yield from self._calls.add(key, item)
        elif _is_of_provider(item):
            yield Extra(FAMILY, {"at": key, "added": item})

    def _finish_item(self, key: int, item: Data) -> Iterator[Delta]:
        if key in self._ended:
            return
        self._ended.add(key)
        self._items[key] = {"id": item.get("id"), "type": item.get("type")}
        if item.get("type") in TEXTS:
            yield from self._texts.finish(key, item)
            return
        self._texts.interrupt()
        if is_call(item):
            yield from self._calls.finish(key, item)
        elif _is_of_provider(item):
            yield Extra(FAMILY, {"at": key, "done": item})

    def _whole_response(self, whole: object) -> Iterator[Delta]:
        """Take a response of a server that does not stream, or an error without a type."""
        data = _object(whole)
        if data.get("error"):
            raise StreamedError(data)
        if data.get("object") == "response" and isinstance(status := data.get("status"), str):
            self._has_begun = True
            yield from self._end(status, data)
        else:
            self._has_other = True

    def _end(self, status: str, response: Data) -> Iterator[Delta]:
        if status in {"failed", "cancelled"} or response.get("error"):
            raise StreamedError(response.get("error") or {"code": "server_error"})
        if status == "incomplete":
            reason = member(response.get("incomplete_details"), "reason")
            self._finish.note(reason if isinstance(reason, str) and reason else "incomplete")
        else:
            self._finish.note(status)
        output = [item for item in _list(response.get("output")) if isinstance(item, Mapping)]
        yield from self._missing(output)
        count(self._counts, response.get("usage"))
        members = {name: value for name, value in response.items() if name not in _OWN and value is not None}
        if members:
            yield Extra(FAMILY, {"response": members})
        if usage := further_usage(response.get("usage")):
            yield Extra(FAMILY, {"usage": usage})
        self.is_whole = True

    def _missing(self, output: list[Data]) -> Iterator[Delta]:
        """Return what the events have not brought of the whole output."""
        if not self._items:
            for key, item in enumerate(output):
                yield from self._finish_item(key, item)
            return
        by_id = {item.get("id"): item for item in output if item.get("id")}
        for key, known in list(self._items.items()):
            at_key = output[key] if key < len(output) else {}
            fits = known.get("type") in {None, at_key.get("type")}
            item = by_id.get(known.get("id")) or (at_key if fits else known)
            yield from self._finish_item(key, item)
        known_ids = {known.get("id") for known in self._items.values()}
        types = Counter(known.get("type") for known in self._items.values())
        for key, item in enumerate(output):
            types[item.get("type")] -= 1
            is_new = key not in self._items and item.get("id") not in known_ids
            if is_new and types[item.get("type")] < 0:  # some servers change the ids of items
                yield from self._finish_item(key, item)

    # --- places

    def _place(self, event: Event, part: str) -> Place:
        return self._key(event), part, _index(event)

    def _key(self, event: Event, item: Data | None = None) -> int:
        """Return the number of the item that an event is about. An event that does not say is about the latest."""
        key = self._known_key(event, item)
        if key is not None:
            return key
        key = whole_number(event.output_index)
        if key is None:
            key = len(self._items) if item is not None else max(self._items, default=0)
        self._items.setdefault(key, {"id": event.item_id})
        return key

    def _known_key(self, event: Event, item: Data | None = None) -> int | None:
        number = whole_number(event.output_index)
        if number is not None:
            return number if number in self._items else None
        id = event.item_id or (item or {}).get("id")
        return next((key for key, known in self._items.items() if id and known.get("id") == id), None)


def _index(event: Event) -> int:
    index = event.content_index if event.content_index is not None else event.summary_index
    return whole_number(index) or 0


def _is_of_provider(item: Data) -> bool:
    """Return True for an item of a tool that the provider runs, or of a kind that is not known."""
    kind = item.get("type")
    return isinstance(kind, str) and kind not in TEXTS and not is_call(item)


def _error_of(report: object) -> object:
    """Return the error of an ``error`` event, whose members some servers put into ``error``."""
    return member(report, "error") or report


def _object(value: object) -> Data:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
