"""What all parts of a request have in common."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints

#: What every provider takes as the name of a tool or a schema.
Name = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,64}$")]
Function = Literal["function"]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: For an int: JSON has one kind of number, and 5.0 is whole.
WHOLE: Final = BeforeValidator(_whole)


class Model(BaseModel):
    """A field nobody knows is refused by name. So is a value of another type: neither ``"5"`` nor ``true`` is 5."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, serialize_by_alias=True)
