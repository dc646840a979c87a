"""Request parameters with their descriptions. The handlers check them, because each error has its own code."""

import re
from typing import Annotated, Any, Final

from fastapi import Header, Path, Query
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

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


def _no_number(text: Any) -> Any:
    """Refuse a number, which would count as seconds since 1970."""
    if isinstance(text, str) and re.fullmatch(r"[-+]?[0-9.]+", text.strip()):
        raise PydanticCustomError("number", "use a form such as 2026-11-30")
    return text


#: For parameters that are a day or a time.
IsDate: Final = BeforeValidator(_no_number)
#: Described as a security scheme, not as a parameter.
Ticket = Annotated[str | None, Query(include_in_schema=False)]
