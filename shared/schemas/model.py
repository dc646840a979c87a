"""What all parts of a request have in common."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

#: What every provider takes as the name of a tool or a schema.
Name = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,64}$")]
Function = Literal["function"]


class Model(BaseModel):
    """A field nobody knows is refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)
