"""Responses that servers were publicly reported to send, as data, and the answer that a reader must get from each.

One JSON object a line in ``*.jsonl``:

- ``id``, ``title``, ``source`` (the report of the deviation), ``provider`` (the wire: openai, anthropic, ollama);
- ``wire`` (text) or ``wire_base64``: the whole body; ``content_type``; ``status`` (200 if absent); ``pace_ms`` (each
  event is a TCP segment of its own, so long apart); ``keeps_open`` (the connection stays open after the body);
- ``request``: members added to a native request;
- ``want``, in the native words: ``text``, ``reasoning``, ``calls`` as ``[name, arguments]``, ``ids``, ``finish``,
  ``reason``, ``usage`` as ``[input, output]``, ``cached``, ``cache_write``, ``reasoning_tokens``; ``error``: codes,
  any of which is right; ``retryable``. The text is empty if ``text`` is absent; no other absent member is checked.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_CONTENT_TYPES = {"ollama": "application/x-ndjson"}


@dataclass(frozen=True)
class UpstreamCase:
    """One response of a provider. ``body`` is the whole of it."""

    id: str
    provider: str
    body: bytes
    want: dict[str, Any]
    request: dict[str, Any]
    content_type: str
    status: int = 200
    pace_s: float = 0.0
    keeps_open: bool = False

    @property
    def events(self) -> list[bytes]:
        """The body cut after each event or line."""
        end = b"\n" if self.provider == "ollama" or self.content_type == "application/json" else b"\n\n"
        pieces = self.body.replace(b"\r\n\r\n", b"\r\n\r\n\0").replace(end, end + b"\0").split(b"\0")
        return [piece for piece in pieces if piece]


def upstream_cases() -> list[UpstreamCase]:
    """All cases of all files, in their order."""
    lines = [line for path in sorted(_FOLDER.glob("upstream*.jsonl")) for line in path.read_text().splitlines()]
    return [_case(json.loads(line)) for line in lines if line.strip()]


def _case(row: dict[str, Any]) -> UpstreamCase:
    body = base64.b64decode(row["wire_base64"]) if "wire_base64" in row else row["wire"].encode()
    return UpstreamCase(
        id=row["id"],
        provider=row["provider"],
        body=body,
        want=row["want"],
        request=row.get("request", {}),
        content_type=row.get("content_type") or _CONTENT_TYPES.get(row["provider"], "text/event-stream"),
        status=row.get("status", 200),
        pace_s=row.get("pace_ms", 0) / 1000,
        keeps_open=row.get("keeps_open", False),
    )
