"""Tools that a model may call."""

from typing import Annotated, Literal

from pydantic import Discriminator, Tag

from shared.schemas.json_schema import ForeignSchema
from shared.schemas.model import CacheControl, Function, Model, ToolName


class ToolFunction(Model):
    """A function. Without ``parameters`` it takes none; ``strict`` is for providers that can guarantee the schema."""

    name: ToolName
    description: str | None = None
    parameters: ForeignSchema | None = None
    strict: bool | None = None


class Tool(Model):
    """A tool. ``cache_control``: as in Anthropic's API."""

    type: Function
    function: ToolFunction
    cache_control: CacheControl | None = None


class FunctionName(Model):
    name: ToolName


class NamedToolChoice(Model):
    """Choice of one tool."""

    type: Function
    function: FunctionName


def _form_of(choice: object) -> str:
    return "(tool)" if isinstance(choice, dict | NamedToolChoice) else "(word)"


#: ``required``: the model must call some tool.
ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag("(word)")] | Annotated[NamedToolChoice, Tag("(tool)")],
    Discriminator(_form_of),
]
