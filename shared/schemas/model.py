"""Base class and common types of all parts of a request."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints

from shared.schemas.json_bounds import check_values

#: A name of a schema that every provider accepts.
Name = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,64}$")]
#: A name of a tool. A provider with a narrower rule gets a name that stands for it.
ToolName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,256}$")]
Function = Literal["function"]


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    check_values(value)
    return value


#: Any JSON object that a provider gets as it is.
AnyObject = Annotated[dict[str, Any], AfterValidator(_bounded)]
#: A breakpoint of the provider's prompt cache, in Anthropic's form, such as ``{"type": "ephemeral"}``.
CacheControl = AnyObject
#: Data of a provider family that goes back to it unchanged, by family.
Extra = dict[Literal["anthropic", "openai", "responses"], AnyObject]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: For int fields: accepts 5.0, since JSON has only one kind of number.
WHOLE: Final = BeforeValidator(_whole)


class Model(BaseModel):
    """Base class that refuses unknown fields and values of another type: neither ``"5"`` nor ``true`` is 5."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, serialize_by_alias=True)
