"""Tools that a model may call."""

from typing import Annotated, Literal

from pydantic import Discriminator, StringConstraints, Tag

from shared.schemas.json_schema import ForeignSchema
from shared.schemas.model import Function, Model, Name


class ToolFunction(Model):
    """A function. Without ``parameters`` it takes none; ``strict`` is for providers that can guarantee the schema."""

    name: Name
    description: Annotated[str, StringConstraints(max_length=16_384)] | None = None
    parameters: ForeignSchema | None = None
    strict: bool | None = None


class Tool(Model):
    type: Function
    function: ToolFunction


class FunctionName(Model):
    name: Name


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
