"""Parameters of requests, and what the description says of them. The handlers check them: each error has its code."""

from typing import Annotated, Final

from fastapi import Header, Path, Query

MOST_KEY_CHARACTERS: Final = 255
#: Also what is no event's id and means the start.
_CURSOR: Final = "^(|0|-1|[0-9]{1,15}-[0-9]{1,15})$"

StreamId = Annotated[str, Path(json_schema_extra={"pattern": "^[0-9a-f]{34}$"})]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="A repeated request with the same key and body attaches to the same stream.",
        json_schema_extra={"minLength": 1, "maxLength": MOST_KEY_CHARACTERS},
    ),
]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        description="The `id` of the last event that was seen; all that follows is sent. Absent: from the start.",
        json_schema_extra={"pattern": _CURSOR},
    ),
]
QueryCursor = Annotated[
    str | None,
    Query(
        alias="last_event_id",
        description="The same for who cannot send a header. The header wins: an `EventSource` repeats its old URL.",
        json_schema_extra={"pattern": _CURSOR},
    ),
]
#: Described as a way to show who one is, not as a parameter.
Ticket = Annotated[str | None, Query(include_in_schema=False)]
