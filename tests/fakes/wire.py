"""The common interface of the wire formats."""

import json
import re
from collections.abc import Sequence
from typing import Any, Protocol

from tests.fakes.answer import Counts, ToolCall


class Wire(Protocol):
    """Bytes of one answer in one provider's format. An instance serves one call."""

    name: str
    content_type: str
    #: Bytes between frames that mean nothing.
    comment: bytes
    #: An event that no current client knows.
    unknown: bytes

    def __init__(self, *, number: int, request: dict[str, Any]) -> None: ...

    def opening(self, usage: Counts | None) -> bytes: ...

    def reasoning(self, text: str) -> bytes: ...

    def text(self, text: str) -> bytes: ...

    def refused(self, text: str) -> bytes: ...

    def tool_calls(self, calls: Sequence[ToolCall]) -> list[bytes]: ...

    def ending(self, finish_reason: str, usage: Counts | None) -> bytes: ...

    def error_in_band(self, message: str, error_type: str | None) -> bytes: ...

    @staticmethod
    def refusal(status: int, message: str) -> dict[str, Any]:
        """Return the body of an HTTP error."""
        ...

    @staticmethod
    def model_list(models: list[str]) -> dict[str, Any]: ...


def without_none(counts: dict[str, int | None]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}


def dumps(value: object) -> str:
    """Dump compact JSON in UTF-8, like real providers. Half a character is written as an escape."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)
