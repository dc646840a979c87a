"""Request parameters with their descriptions. The handlers check them, because each error has its own code."""

from typing import Annotated, Final

from fastapi import Header, Path, Query

from gateway.intake.submit import MOST_KEY_CHARACTERS

#: Also the values that are no event id and mean the start.
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
        description="The `id` of the last event received; all later ones are sent. Absent: from the start.",
        json_schema_extra={"pattern": _CURSOR},
    ),
]
QueryCursor = Annotated[
    str | None,
    Query(
        alias="last_event_id",
        description="For clients that cannot send the header, which wins: an `EventSource` repeats its old URL.",
        json_schema_extra={"pattern": _CURSOR},
    ),
]
#: Described as a security scheme, not as a parameter.
Ticket = Annotated[str | None, Query(include_in_schema=False)]
