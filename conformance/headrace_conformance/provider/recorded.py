"""Responses that providers were publicly reported to send; the build of the package puts them here."""

import base64
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """One response. ``pieces`` are its events or lines; ``keeps_open``: the connection stays open after them."""

    id: str
    title: str
    source: str
    provider: str
    pieces: tuple[bytes, ...]
    content_type: str
    status: int
    pace_s: float
    keeps_open: bool


@cache
def recorded() -> dict[str, Recorded]:
    """Return all recorded responses by their id. None in a source tree, which was not built."""
    folder = files("headrace_conformance.provider") / "cases"
    if not folder.is_dir():
        return {}
    found = sorted(path for path in folder.iterdir() if path.name.endswith(".jsonl"))  # type: ignore[type-var]
    rows = [json.loads(line) for path in found for line in path.read_text("utf-8").splitlines() if line.strip()]
    return {row["id"]: _recorded(row) for row in rows}


def _recorded(row: dict[str, Any]) -> Recorded:
    body = base64.b64decode(row["wire_base64"]) if "wire_base64" in row else row["wire"].encode()
    is_lines = row["provider"] == "ollama"
    content_type = row.get("content_type") or ("application/x-ndjson" if is_lines else "text/event-stream")
    end = b"\n" if is_lines or content_type == "application/json" else b"\n\n"
    return Recorded(
        id=row["id"],
        title=row["title"],
        source=row["source"],
        provider=row["provider"],
        pieces=tuple(piece for piece in body.replace(end, end + b"\0").split(b"\0") if piece),
        content_type=content_type,
        status=row.get("status", 200),
        pace_s=row.get("pace_ms", 0) / 1000,
        keeps_open=row.get("keeps_open", False),
    )
