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

from shared.schemas.model import CacheControl, Extra, Function, Model, ToolName
from shared.schemas.request_budget import RequestBudget
from shared.schemas.text_count import IMAGE_CHARACTERS, characters_of

Role = Literal["system", "user", "assistant", "tool"]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class TextPart(Model):
    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None


class ImageUrl(Model):
    url: Annotated[str, StringConstraints(pattern=r"^(https?://|data:image/[a-z0-9.+-]+;base64,)")]
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Model):
    """An image, as an address or as a ``data:`` URL. Headrace never fetches it; the provider does, or refuses."""

    type: Literal["image_url"]
    image_url: ImageUrl
    cache_control: CacheControl | None = None


class FileContent(Model):
    """A file: ``file_data`` is a ``data:`` URL, ``file_url`` an address that the provider fetches. Exactly one of
    them is set."""

    filename: Annotated[str, StringConstraints(max_length=1024)] | None = None
    file_data: Annotated[str, StringConstraints(pattern=r"^data:[\w.+-]+/[\w.+-]+;base64,")] | None = None
    file_url: Annotated[str, StringConstraints(pattern=r"^https?://")] | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.file_data is None) == (self.file_url is None):
            raise ValueError("needs either file_data or file_url; set one of them")
        return self


class FilePart(Model):
    """A document, such as a PDF."""

    type: Literal["file"]
    file: FileContent
    cache_control: CacheControl | None = None


def _type_of(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return f"({kind})"


def _form_of(content: object) -> str:
    return "(parts)" if isinstance(content, list) else "(text)"


# Tags in parentheses are left out of the field names in errors, see chat.py.
_Part = Annotated[
    Annotated[TextPart, Tag("(text)")]
    | Annotated[ImagePart, Tag("(image_url)")]
    | Annotated[FilePart, Tag("(file)")],
    Discriminator(_type_of, custom_error_type="part", custom_error_message="type must be text, image_url or file"),
]
_Content = Annotated[
    Annotated[str, Tag("(text)")]
    # Only the first invalid part is reported: a body full of them would take a second to describe.
    | Annotated[list[_Part], Tag("(parts)"), Field(min_length=1, max_length=256, fail_fast=True)],
    Discriminator(_form_of),
]


_JSON_OBJECT: Final[dict[str, Any]] = {"contentMediaType": "application/json", "contentSchema": {"type": "object"}}


class FunctionCall(Model):
    """A function and its arguments. ``arguments`` is the text of a JSON object, as far as the model wrote one: what
    it wrote wrongly may come back."""

    name: ToolName
    arguments: Annotated[str, Field(json_schema_extra=_JSON_OBJECT)]

    @field_validator("arguments", mode="before")
    @classmethod
    def _empty_text_is_an_empty_object(cls, arguments: object) -> object:
        return "{}" if arguments == "" else arguments

    @property
    def parsed(self) -> dict[str, Any]:
        """The arguments as a dictionary. Arguments that are no JSON object become the member ``arguments``."""
        try:
            arguments = from_json(self.arguments, allow_inf_nan=False)  # limits the depth too
        except ValueError:
            arguments = None
        return arguments if isinstance(arguments, dict) else {"arguments": self.arguments}


class ToolCall(Model):
    """A call by a model, in the form of ``tool_calls`` of an answer. ``extra``: members of the call that only this
    provider family reads (``extra_content`` of OpenAI's, ``caller`` of Anthropic's)."""

    id: CallId
    type: Function = "function"
    function: FunctionCall
    extra: Extra | None = None


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
            "if": {"properties": {"role": {"enum": ["user", "tool"]}}},
            "else": {"properties": {"content": {"items": {"properties": {"type": {"const": "text"}}}}}},
        },
    ]
}


class Message(Model):
    """One message of a conversation.

    ``content`` is optional with ``tool_calls``, which only an assistant has. ``tool_call_id`` is the id of a tool
    result's call; ``is_error`` marks a result that reports a failure. Only a user's message and a tool result have
    images and files. ``name`` distinguishes participants.

    ``extra``: an assistant's reasoning for the provider family that made it. ``anthropic``: ``{"blocks": […]}``, the
    thinking blocks before the content. ``openai``: members of the message, such as ``reasoning_content``.
    ``responses``: ``{"items": […]}``, the items of reasoning before the content.
    """

    model_config = ConfigDict(json_schema_extra=_BY_ROLE)

    role: Role
    content: _Content | None = None
    name: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(min_length=1, max_length=4096)] | None = None
    tool_call_id: CallId | None = None
    is_error: bool | None = None
    extra: Extra | None = None

    @model_validator(mode="after")
    def _fits_the_budget(self, info: ValidationInfo) -> Self:
        budget = RequestBudget.of(info)
        parts = self.content if isinstance(self.content, list) else ()
        budget.add_parts(len(parts) + len(self.tool_calls or ()))
        for part in parts:
            if isinstance(part, ImagePart):
                budget.add_image(len(part.image_url.url))
            elif isinstance(part, FilePart):
                budget.add_image(len(part.file.file_data or ""))
        return self

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.tool_calls is not None and self.role != "assistant":
            raise ValueError("only the role assistant has tool_calls; remove them or change the role")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("the role tool needs a tool_call_id, and no other role has one; add or remove it")
        if self.content is None and self.tool_calls is None:
            raise ValueError("content is missing; add it")
        if self.role not in {"user", "tool"} and any(not isinstance(part, TextPart) for part in self.parts):
            raise ValueError("images and files: only the roles user and tool may have them; remove them")
        return self

    @property
    def parts(self) -> list[TextPart | ImagePart | FilePart]:
        """The content as a list of parts."""
        if isinstance(self.content, str):
            return [TextPart(type="text", text=self.content)] if self.content else []
        return list(self.content or ())

    @property
    def characters(self) -> int:
        """Characters of the text, the calls and the reasoning, and the worth of the images and files."""
        images = sum(not isinstance(part, TextPart) for part in self.parts)
        calls = sum(len(call.function.arguments) for call in self.tool_calls or ())
        calls += sum(characters_of(call.extra) for call in self.tool_calls or ())
        reasoning = max(map(characters_of, (self.extra or {}).values()), default=0)  # the same in several forms
        return len(self.text) + calls + reasoning + images * IMAGE_CHARACTERS

    @property
    def text(self) -> str:
        """The content without its images and files. The parts of a system message are paragraphs."""
        if isinstance(self.content, str):
            return self.content
        separator = "\n\n" if self.role == "system" else ""
        return separator.join(part.text for part in self.parts if isinstance(part, TextPart))


def check_results(messages: list[Message]) -> None:
    """Raise ValueError for two calls of one message with the same id.

    Later messages may reuse an id, because some servers number the calls of each message from 0; a result then
    belongs to the latest call. A result without a call is accepted: clients cut long histories at their beginning.
    """
    for at, message in enumerate(messages):
        own = set[str]()
        for n, call in enumerate(message.tool_calls or ()):
            if call.id in own:
                raise ValueError(
                    f"messages.{at}.tool_calls.{n}.id: an earlier call of this message has this id; use unique ids"
                )
            own.add(call.id)
