"""Tools that a model may call."""

from typing import Annotated, Literal

from pydantic import Discriminator, StringConstraints, Tag

from shared.schemas.json_schema import JsonSchema
from shared.schemas.model import Function, Model, Name


class ToolFunction(Model):
    """``parameters``: none at all where it is left out. ``strict``: for providers that can promise to follow it."""

    name: Name
    description: Annotated[str, StringConstraints(max_length=16_384)] | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class Tool(Model):
    type: Function
    function: ToolFunction


class FunctionName(Model):
    name: Name


class NamedToolChoice(Model):
    """This tool, and no other."""

    type: Function
    function: FunctionName


def _form_of(choice: object) -> str:
    return "(tool)" if isinstance(choice, dict | NamedToolChoice) else "(word)"


#: ``required``: one of them, whichever.
ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag("(word)")] | Annotated[NamedToolChoice, Tag("(tool)")],
    Discriminator(_form_of),
]
