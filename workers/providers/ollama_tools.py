"""Forced tools for Ollama, which has no such choice: the answer's JSON is turned into a call.

One tool is forced by its schema as ``format``, so the answer is the call's arguments. Among several, the answer names
the tool beside the arguments.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from shared.schemas import ChatRequest, NamedToolChoice
from shared.schemas.tools import ToolFunction
from workers.providers.base import Delta
from workers.providers.tool_calls import ToolCalls

_ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}
_KEY: Final = 0


def forced_functions(request: ChatRequest) -> list[ToolFunction]:
    """Return the functions one of which the model must call; none if it may answer with text."""
    functions = [tool.function for tool in request.tools or ()]
    if isinstance(request.tool_choice, NamedToolChoice):
        return [function for function in functions if function.name == request.tool_choice.function.name]
    return functions if request.tool_choice == "required" else []


def format_of(functions: Sequence[ToolFunction]) -> dict[str, Any]:
    """Return the schema of an answer that calls one of the functions."""
    if len(functions) == 1:
        return functions[0].parameters or _ANY_OBJECT
    return {"anyOf": [_choice(function) for function in functions]}


def instruction_of(functions: Sequence[ToolFunction]) -> str:
    """Return the system message that describes the functions and the form of the answer."""
    if len(functions) == 1:
        form = "Call the following tool: answer only with the JSON object of its arguments."
    else:
        form = 'Call one of the following tools: answer only with {"tool": its name, "arguments": its arguments}.'
    described = [function.model_dump(mode="json", exclude_none=True, exclude={"strict"}) for function in functions]
    return "\n".join([form, *(json.dumps(function, ensure_ascii=False) for function in described)])


class ForcedCall:
    """The call that an answer's text stands for. ``functions``: the forced ones."""

    def __init__(self, functions: Sequence[ToolFunction], calls: ToolCalls) -> None:
        self._functions = functions
        self._calls = calls
        self._text: list[str] = []

    def take(self, text: str) -> Iterator[Delta]:
        """Take a fragment of the answer."""
        if len(self._functions) > 1:
            self._text.append(text)
        else:
            yield from self._fragment(self._functions[0].name, text)

    def end(self) -> Iterator[Delta]:
        """Send the call of a whole answer, if its tool was unknown until now."""
        if not self._text:
            return
        try:
            chosen = msgspec.json.decode("".join(self._text), type=_Chosen)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        if chosen.tool in {function.name for function in self._functions}:
            yield from self._fragment(chosen.tool, json.dumps(chosen.arguments, ensure_ascii=False))

    def _fragment(self, name: str, arguments: str) -> Iterator[Delta]:
        yield from self._calls.fragment(_KEY, id=None, name=name, arguments=arguments)
        yield from self._calls.end_block(_KEY)


def _choice(function: ToolFunction) -> dict[str, Any]:
    schema = function.parameters or _ANY_OBJECT
    if "$ref" in json.dumps(schema):
        schema = _ANY_OBJECT  # its references start at the root, which is another one here
    return {
        "type": "object",
        "properties": {"tool": {"const": function.name}, "arguments": schema},
        "required": ["tool", "arguments"],
    }


class _Chosen(msgspec.Struct):
    tool: str
    arguments: dict[str, Any] = {}
