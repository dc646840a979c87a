"""Tools of a Messages request as canonical tools, and the choice among them."""

from collections.abc import Iterator
from typing import Any, Final

from gateway.dialects.anthropic.blocks import with_cache_control
from gateway.dialects.anthropic.specific_paths import SpecificPaths
from shared.errors import InvalidRequest

_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_FUNCTION: Final = ("name", "description", "strict")
Body = dict[str, Any]


def tools_of(tools: Any, specific: SpecificPaths) -> Iterator[tuple[str, Body]]:
    """Yield the client's own tools, each with its path. The provider's tools have no canonical counterpart. Raises
    :class:`InvalidRequest`."""
    if tools is None:
        return
    if not isinstance(tools, list):
        raise InvalidRequest("tools: must be a list")
    names = set[str]()
    for at, tool in enumerate(tools):
        path = f"tools.{at}"
        if not isinstance(tool, dict):
            raise InvalidRequest(f"{path}: must be an object")
        if tool.get("type") not in (None, "custom"):
            specific.note(path)
            continue
        if not isinstance(name := tool.get("name"), str):
            raise InvalidRequest(f"{path}.name: must be a text")
        if name in names:
            specific.note(path)
            continue
        names.add(name)
        yield path, _tool(path, tool, specific)


def choice_of(choice: Any, names: frozenset[str], specific: SpecificPaths) -> Body:
    """Return the canonical fields of a choice. ``names``: those of the canonical tools. A forced tool that is none of
    them has no canonical counterpart. Raises :class:`InvalidRequest`."""
    if choice is None:
        return {}
    if not isinstance(choice, dict) or not isinstance(kind := choice.get("type"), str):
        raise InvalidRequest("tool_choice.type: must be a text")
    fields: Body = {"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") is True else {}
    if kind == "tool":
        if isinstance(name := choice.get("name"), str) and name in names:
            return fields | {"tool_choice": {"type": "function", "function": {"name": name}}}
    elif kind in _CHOICES and names:
        return fields | {"tool_choice": _CHOICES[kind]}
    elif kind in {"auto", "none"}:
        return fields
    specific.forced = "tool_choice"
    return fields


def _tool(path: str, tool: Body, specific: SpecificPaths) -> Body:
    known = {"type", "input_schema", "cache_control", *_FUNCTION}
    specific.note_others(f"{path}.", tool, known)
    function: Body = {name: tool[name] for name in _FUNCTION if tool.get(name) is not None}
    if tool.get("input_schema") is not None:
        function["parameters"] = tool["input_schema"]
    return with_cache_control(path, {"type": "function", "function": function}, tool, specific)
