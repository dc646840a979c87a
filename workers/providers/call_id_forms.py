"""Forms of tool-call ids that a server may demand.

Mistral and the servers of its models accept nine letters and digits only, OpenAI at most 40 characters. A substitute
is derived from the id, so a call and its result keep the same id in every request of a conversation.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from workers.providers.substitutes import Substitutes, mistral_call_ids, short_call_ids

_ABOUT_AN_ID: Final = re.compile(r"tool[ _]?calls?\W*(?:\d+\W*)?(?:\bid\b|_id\b)", re.I)
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallIdForm:
    """One form. ``pattern``: the ids that it accepts. ``complaint``: words of a refusal of another id."""

    pattern: re.Pattern[str]
    complaint: re.Pattern[str]
    substitutes: Callable[[], Substitutes]

    def is_refusal(self, text: str, paths: list[str]) -> bool:
        """Return True for a refusal that demands the form. ``paths``: the fields that it names."""
        return any(map(_ABOUT_AN_ID.search, (text, *paths))) and bool(self.complaint.search(text))

    def is_missed_by(self, body: Mapping[str, Any]) -> bool:
        """Return True if a request has an id of another form."""
        return any(not self.pattern.fullmatch(id) for id in _ids(body))

    def apply(self, body: Body) -> None:
        """Replace the ids of a request that have another form. The messages themselves are not changed."""
        substitutes = self.substitutes()
        body["messages"] = [_replaced(message, substitutes) for message in body["messages"]]


NINE_CHARACTERS: Final = CallIdForm(
    re.compile(r"[A-Za-z0-9]{9}"), re.compile(r"length of 9\b|\b(?:9|nine) char|\]\{9\}", re.I), mistral_call_ids
)
AT_MOST_40: Final = CallIdForm(
    re.compile(r".{0,40}", re.S),
    re.compile(r"(?:max(?:imum)? length|at most|exceed\w*)\D{0,12}40\b", re.I),
    short_call_ids,
)


def _ids(body: Mapping[str, Any]) -> Iterator[str]:
    for message in body["messages"]:
        ids = [message.get("tool_call_id"), *(call.get("id") for call in _calls(message))]
        yield from (id for id in ids if isinstance(id, str))


def _calls(message: Mapping[str, Any]) -> list[Body]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _replaced(message: Body, substitutes: Substitutes) -> Body:
    made = dict(message)
    if isinstance(id := message.get("tool_call_id"), str):
        made["tool_call_id"] = substitutes.of(id)
    if _calls(message):
        made["tool_calls"] = [_with_id(call, substitutes) for call in message["tool_calls"]]
    return made


def _with_id(call: Any, substitutes: Substitutes) -> Any:
    id = call.get("id") if isinstance(call, dict) else None
    return {**call, "id": substitutes.of(id)} if isinstance(id, str) else call
