"""Messages of a conversation."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import from_json

from shared.schemas.model import Function, Model, Name
from shared.schemas.request_budget import RequestBudget

#: Characters of text that cost as much as an image: providers charge 85 to 1,600 tokens for one.
IMAGE_CHARACTERS: Final = 4000
Role = Literal["system", "user", "assistant", "tool"]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class TextPart(Model):
    type: Literal["text"]
    text: str


class ImageUrl(Model):
    url: Annotated[str, StringConstraints(pattern=r"^(https?://|data:image/[a-z0-9.+-]+;base64,)")]
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Model):
    """An image, as an address or as a ``data:`` URL. Headrace never fetches it; the provider does, or refuses."""

    type: Literal["image_url"]
    image_url: ImageUrl


def _type_of(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return f"({kind})"


def _form_of(content: object) -> str:
    return "(parts)" if isinstance(content, list) else "(text)"


# Tags in parentheses are left out of the field names in errors, see chat.py.
_Part = Annotated[
    Annotated[TextPart, Tag("(text)")] | Annotated[ImagePart, Tag("(image_url)")],
    Discriminator(_type_of, custom_error_type="part", custom_error_message="type must be text or image_url"),
]
_Content = Annotated[
    Annotated[str, Tag("(text)")]
    # Only the first invalid part is reported: a body full of them would take a second to describe.
    | Annotated[list[_Part], Tag("(parts)"), Field(min_length=1, max_length=256, fail_fast=True)],
    Discriminator(_form_of),
]


_JSON_OBJECT: Final[dict[str, Any]] = {"contentMediaType": "application/json", "contentSchema": {"type": "object"}}


class FunctionCall(Model):
    """A function and its arguments. ``arguments`` is the text of a JSON object."""

    name: Name
    arguments: Annotated[str, Field(json_schema_extra=_JSON_OBJECT)]

    @field_validator("arguments", mode="before")
    @classmethod
    def _empty_text_is_an_empty_object(cls, arguments: object) -> object:
        return "{}" if arguments == "" else arguments

    @property
    def parsed(self) -> dict[str, Any]:
        """The arguments as a dictionary."""
        arguments: dict[str, Any] = from_json(self.arguments, allow_inf_nan=False)
        return arguments

    @field_validator("arguments")
    @classmethod
    def _are_an_object(cls, arguments: str) -> str:
        try:
            is_object = isinstance(from_json(arguments, allow_inf_nan=False), dict)  # limits the depth too
        except ValueError:
            is_object = False
        if not is_object:
            raise ValueError("not the text of a JSON object; encode the arguments as one")
        return arguments


class ToolCall(Model):
    """A call by a model, in the form of ``tool_calls`` of an answer."""

    id: CallId
    type: Function = "function"
    function: FunctionCall


_PRESENT: Final = {"not": {"type": "null"}}
#: The rules of :meth:`Message._fits_its_role`, for the OpenAPI description.
_BY_ROLE: Final[dict[str, Any]] = {
    "allOf": [
        {
            "if": {"properties": {"role": {"const": "tool"}}},
            "then": {"required": ["tool_call_id"], "properties": {"tool_call_id": _PRESENT}},
            "else": {"properties": {"tool_call_id": {"type": "null"}}},
        },
        {
            "if": {
                "properties": {"role": {"const": "assistant"}, "tool_calls": _PRESENT},
                "required": ["tool_calls"],
            },
            "else": {
                "required": ["content"],
                "properties": {"content": _PRESENT, "tool_calls": {"type": "null"}},
            },
        },
        {
            "if": {"properties": {"role": {"const": "user"}}},
            "else": {"properties": {"content": {"items": {"properties": {"type": {"const": "text"}}}}}},
        },
    ]
}


class Message(Model):
    """One message of a conversation.

    ``content`` is optional with ``tool_calls``, which only an assistant has. ``tool_call_id`` is the id of a tool
    result's call. Only a user's message has images.
    """

    model_config = ConfigDict(json_schema_extra=_BY_ROLE)

    role: Role
    content: _Content | None = None
    tool_calls: Annotated[list[ToolCall], Field(min_length=1, max_length=128)] | None = None
    tool_call_id: CallId | None = None

    @model_validator(mode="after")
    def _fits_the_budget(self, info: ValidationInfo) -> Self:
        budget = RequestBudget.of(info)
        parts = self.content if isinstance(self.content, list) else ()
        budget.add_parts(len(parts) + len(self.tool_calls or ()))
        for part in parts:
            if isinstance(part, ImagePart):
                budget.add_image(len(part.image_url.url))
        return self

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.tool_calls is not None and self.role != "assistant":
            raise ValueError("only the role assistant has tool_calls; remove them or change the role")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("the role tool needs a tool_call_id, and no other role has one; add or remove it")
        if self.content is None and self.tool_calls is None:
            raise ValueError("content is missing; add it")
        if self.role != "user" and any(isinstance(part, ImagePart) for part in self.parts):
            raise ValueError("images: only the role user may have them; remove them or change the role")
        return self

    @property
    def parts(self) -> list[TextPart | ImagePart]:
        """The content as a list of parts."""
        if isinstance(self.content, str):
            return [TextPart(type="text", text=self.content)] if self.content else []
        return list(self.content or ())

    @property
    def characters(self) -> int:
        """Characters of the text and the calls, and the worth of the images."""
        images = sum(isinstance(part, ImagePart) for part in self.parts)
        calls = sum(len(call.function.arguments) for call in self.tool_calls or ())
        return len(self.text) + calls + images * IMAGE_CHARACTERS

    @property
    def text(self) -> str:
        """The content without its images. Parts of a system message are instructions of their own, with a blank line
        between them."""
        if isinstance(self.content, str):
            return self.content
        between = "\n\n" if self.role == "system" else ""
        return between.join(part.text for part in self.parts if isinstance(part, TextPart))


def check_results(messages: list[Message]) -> None:
    """Raise ValueError for a tool result without an earlier call, and for two calls of one message with the same id.

    Later messages may reuse an id, because some servers number the calls of each message from 0; a result then
    belongs to the latest call.
    """
    calls: set[str] = set()
    for at, message in enumerate(messages):
        if message.tool_call_id is not None and message.tool_call_id not in calls:
            raise ValueError(
                f"messages.{at}.tool_call_id: no tool call before it has this id; use the id of an earlier call"
            )
        own = set[str]()
        for n, call in enumerate(message.tool_calls or ()):
            if call.id in own:
                raise ValueError(
                    f"messages.{at}.tool_calls.{n}.id: an earlier call of this message has this id; use unique ids"
                )
            own.add(call.id)
        calls |= own
