"""Base class and common types of all parts of a request."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints

#: A name of a tool or a schema that every provider accepts.
Name = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,64}$")]
Function = Literal["function"]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: For int fields: accepts 5.0, since JSON has only one kind of number.
WHOLE: Final = BeforeValidator(_whole)


class Model(BaseModel):
    """Base class that refuses unknown fields and values of another type: neither ``"5"`` nor ``true`` is 5."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, serialize_by_alias=True)
