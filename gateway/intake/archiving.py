"""Marks streams for the archive at their creation."""

from collections.abc import Mapping

from shared.schemas import ChatRequest
from shared.settings import Settings


def archive_fields(settings: Settings, chat_request: ChatRequest, extra_fields: Mapping[str, str]) -> dict[str, str]:
    """Return the field ``archive`` of the stream's state (``events``: with the cursor of each event); none if there
    is no archive. ``extra_fields``: those of the dialect. A response without ``follow_up`` was requested with
    ``store: false``."""
    is_unstored = "response" in extra_fields and "follow_up" not in extra_fields
    if settings.archive_url is None or chat_request.only_count or is_unstored:
        return {}
    return {"archive": "events" if settings.archive_events else "1"}
