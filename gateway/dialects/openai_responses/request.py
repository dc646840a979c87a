"""Parser of OpenAI's Responses requests.

Fields and items without a canonical counterpart are left out and named. A field whose loss would change the meaning
of the request, such as a server-side conversation, is noted: only an upstream of the same API gets the request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from gateway.dialects.openai_responses.echo import large_of, small_of
from gateway.dialects.openai_responses.input_items import Conversation
from gateway.dialects.openai_responses.notes import Notes
from gateway.dialects.openai_responses.offered_tools import ClientTool, OfferedTools
from gateway.dialects.openai_responses.original import OWN, original_of
from gateway.dialects.options import flag
from shared.errors import InvalidRequest
from shared.schemas.chat import StoredRequest, parse_json_object, validate
from shared.schemas.refusals import missing_field

_UNCHANGED: Final = OWN | {"model", "temperature", "top_p", "parallel_tool_calls", "metadata"}
_TRANSLATED: Final = frozenset(
    {
        *("input", "instructions", "max_output_tokens", "tools", "tool_choice", "text", "reasoning"),
        *("stream", "background", "store", "previous_response_id", "include", "user", "safety_identifier"),
    }
)
#: Fields that only a server of Responses can read, and that are never left out.
_FORCED: Final = ("conversation", "prompt")
#: Values that apply anyway.
_DEFAULTS: Final[dict[str, Any]] = {
    "truncation": "disabled",
    "top_logprobs": 0,
    "service_tier": "auto",
    "stream_options": {},
}
#: Canonical message of a request that has none, such as one of a stored prompt. No provider gets it.
_NOTHING: Final = {"role": "user", "content": ""}
_ENCRYPTED: Final = "reasoning.encrypted_content"
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResponsesOptions:
    """``instructions``: number of messages at the beginning that apply to this request only; a follow-up request does
    not inherit them. ``encrypts_reasoning``: reasoning items get ``encrypted_content``. ``echoed`` and ``large``:
    attributes that the response repeats, see :mod:`gateway.dialects.openai_responses.echo`. ``forms``: the client's
    form of tools, by the name of the offered function."""

    stream: bool
    background: bool
    store: bool
    instructions: int
    encrypts_reasoning: bool
    ignored: tuple[str, ...]
    echoed: Body
    large: dict[str, msgspec.Raw] = field(default_factory=dict)
    forms: dict[str, ClientTool] = field(default_factory=dict)


def previous_of(body: bytes) -> str | None:
    """Return the id of the response that the request continues. Raises like :func:`parse`."""
    whole = parse_json_object(body)
    previous = whole.get("previous_response_id")
    if previous is not None and not isinstance(previous, str):
        raise InvalidRequest("previous_response_id: must be a string")
    if previous is not None and whole.get("conversation") is not None:
        raise InvalidRequest("previous_response_id: cannot be combined with conversation; remove one of them")
    return previous


def references_of(body: bytes) -> list[str]:
    """Return the ids of earlier responses' items that the input refers to. Raises like :func:`parse`."""
    raw_input = parse_json_object(body).get("input")
    items = [item for item in raw_input if isinstance(item, dict)] if isinstance(raw_input, list) else []
    return [str(item.get("id")) for item in items if item.get("type") == "item_reference"]


def parse(
    body: bytes,
    earlier: list[Body],
    referred: Mapping[str, Body] | None = None,
    earlier_items: Sequence[Any] = (),
    base: str | None = None,
) -> tuple[StoredRequest, ResponsesOptions]:
    """Return the canonical request and the response options. ``earlier``: messages before the input, and
    ``earlier_items``: the same as items. ``referred``: items of earlier responses, by id. ``base``: id of a response
    of the upstream's own, before all of these. Raises :class:`InvalidJson` and :class:`InvalidRequest`, which names
    the field."""
    whole = parse_json_object(body)
    raw = {name: value for name, value in whole.items() if value is not None}
    notes = Notes()
    for name in (*_FORCED, *(("previous_response_id",) if base is not None else ())):
        if name in raw:
            notes.force(name)
    for name, value in raw.items():
        if name not in _UNCHANGED | _TRANSLATED | set(_FORCED) and value != _DEFAULTS.get(name):
            notes.drop(name)
    if "safety_identifier" in raw and "user" in raw:
        notes.drop("user")  # the canonical request has one of them
    tools = OfferedTools(notes)
    tools.add("tools", raw.get("tools", []))
    instructions = _instructions(notes, raw)
    conversation = Conversation(notes, tools, [*instructions, *earlier])
    if "input" not in raw and notes.forced is None:
        raise missing_field("input", raw.keys() - _UNCHANGED - _TRANSLATED)
    if "input" in raw:
        conversation.add_all(raw["input"], referred or {})
    has_messages = bool(conversation.messages)
    # The provider's template may have the tools, so its choice cannot be checked here.
    tool_choice = None if "prompt" in raw else tools.choose(raw.get("tool_choice"))
    encrypts_reasoning = _encrypts_reasoning(notes, raw.get("include", []))
    translated = {
        "messages": conversation.messages if has_messages or notes.forced is None else [_NOTHING],
        "max_tokens": raw.get("max_output_tokens"),
        "tools": tools.listed(),
        "tool_choice": tool_choice,
        "user": raw.get("safety_identifier") or raw.get("user"),
        "reasoning_effort": _members(notes, raw, "reasoning").get("effort"),
        "response_format": _format(_members(notes, raw, "text").get("format")),
    }
    stream, background = flag(raw, "stream"), flag(raw, "background")
    fields: Body = {name: value for name, value in raw.items() if name in _UNCHANGED}
    fields |= {name: value for name, value in translated.items() if value is not None}
    # Clients of this API cannot take back text that they show, so a streamed answer is resumed or ends. The same
    # holds in the background: the number from which a client reads on does not identify the attempt.
    fields["fails_unless_resumed"] = stream or background
    fields["original"] = {
        "family": "responses",
        "body": original_of(whole, earlier_items, referred or {}, base),
        "specific": notes.dropped,
        "forced": notes.forced,
    }
    options = ResponsesOptions(
        stream=stream,
        background=background,
        store=flag({"store": True, **raw}, "store"),
        instructions=len(instructions) + (0 if has_messages else 1),
        encrypts_reasoning=encrypts_reasoning,
        ignored=tuple(notes.dropped),
        echoed=small_of(raw),
        large=large_of(raw),
        forms=tools.forms,
    )
    try:
        return validate(StoredRequest, fields), options
    except InvalidRequest as error:
        raise notes.in_clients_terms(error) from None


def _instructions(notes: Notes, raw: Body) -> list[Body]:
    if "instructions" not in raw:
        return []
    if not isinstance(raw["instructions"], str):
        raise InvalidRequest("instructions: must be a string")
    notes.place("messages.0", "instructions")
    return [{"role": "system", "content": raw["instructions"]}]


def _encrypts_reasoning(notes: Notes, include: Any) -> bool:
    if not isinstance(include, list):
        raise InvalidRequest("include: must be a list")
    for at, name in enumerate(include):
        if name != _ENCRYPTED:
            notes.drop(f"include.{at}")
    return _ENCRYPTED in include


def _members(notes: Notes, raw: Body, name: str) -> Body:
    """Return the members of ``reasoning`` or ``text``. The summary of reasoning is the provider's own in any case."""
    value = raw.get(name, {})
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name}: must be an object")
    for member, setting in value.items():
        is_known = member in {"effort", "format"} or (member, setting) == ("summary", "auto")
        if setting is not None and not is_known:
            notes.drop(f"{name}.{member}")
    return value


def _format(form: Any) -> Any:
    if isinstance(form, dict) and form.get("type") == "json_schema":
        named = {
            name: form[name] for name in ("name", "description", "schema", "strict") if form.get(name) is not None
        }
        return {"type": "json_schema", "json_schema": named}
    return form
