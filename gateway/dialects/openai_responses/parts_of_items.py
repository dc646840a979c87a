"""Forms of the parts that contain the text of an item."""

from dataclasses import dataclass
from typing import Any, Final

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PartForm:
    """Form of one kind of part. ``item`` and ``prefix``: type and id prefix of its item. ``holder``: the item's list
    of parts. ``index``: name of the part's number in events. ``part_event`` and ``text_event``: beginnings of the
    names of events. ``member``: the part's text."""

    item: str
    prefix: str
    holder: str
    index: str
    part_event: str
    text_event: str
    member: str = "text"


PARTS: Final = {
    "output_text": PartForm("message", "msg", "content", "content_index", "content_part", "output_text"),
    "refusal": PartForm("message", "msg", "content", "content_index", "content_part", "refusal", "refusal"),
    "summary_text": PartForm(
        *("reasoning", "rs", "summary", "summary_index"), "reasoning_summary_part", "reasoning_summary_text"
    ),
    "reasoning_text": PartForm("reasoning", "rs", "content", "content_index", "content_part", "reasoning_text"),
}


def new_part(kind: str) -> Body:
    """Return a part without its text."""
    part: Body = {"type": kind, PARTS[kind].member: ""}
    return part | ({"annotations": [], "logprobs": []} if kind == "output_text" else {})


def new_item(kind: str) -> Body:
    """Return the members of the item that a part of this kind needs."""
    if PARTS[kind].item == "message":
        return {"role": "assistant", "content": []}
    return {"summary": []} | ({"content": []} if kind == "reasoning_text" else {})
