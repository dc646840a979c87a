"""Tools of a Chat Completions request, and the choice among them, in the canonical form."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.dialects.openai_chat.specific import Specific

_FUNCTION: Final = ("name", "description", "parameters", "strict")
#: Words for the choice of any tool: OpenAI's and Mistral's.
_WORDS: Final[Mapping[str, str]] = {"any": "required"}


def tools_of(raw: Mapping[str, Any], specific: Specific) -> dict[str, Any]:
    """Return `tools` and `tool_choice`, as far as the canonical request has them. The functions of the older form are
    tools too."""
    tools = _tools(raw.get("tools"), specific)
    if tools is None and isinstance(functions := raw.get("functions"), list):
        made = [_function(function, specific, "functions", at) for at, function in enumerate(functions)]
        tools = [{"type": "function", "function": function} for function in made]
    choice = raw.get("tool_choice")
    if choice is None and isinstance(older := raw.get("function_call"), dict):
        choice = {"type": "function", "function": {"name": older.get("name")}}
    elif choice is None:
        choice = raw.get("function_call")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools" and isinstance(tools, list):
        tools, choice = _allowed(tools, choice)
    chosen = _choice(choice, specific)
    if not tools and (raw.get("tools") or chosen in ("auto", "none")):
        # Nothing is left to choose from: all tools are the provider's own, or there are none.
        if chosen not in (None, "auto", "none"):
            specific.forced = "tool_choice"
        chosen = None
    return {name: value for name, value in (("tools", tools or None), ("tool_choice", chosen)) if value is not None}


def _tools(tools: Any, specific: Specific) -> Any:
    """Return the function tools; tools of other types have no canonical form."""
    if not isinstance(tools, list):
        return tools
    made = []
    for at, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            made.append(tool)  # to be refused
        elif tool["type"] != "function":
            specific.add("tools", at)
        else:
            made.append(_tool(tool, at, specific))
    return made


def _tool(tool: Mapping[str, Any], at: int, specific: Specific) -> dict[str, Any]:
    function = tool.get("function")
    specific.add_others(tool, {"type", "function", "cache_control"}, "tools", at)
    made = {"type": "function", "function": _function(function, specific, "tools", at, "function")}
    cache = tool.get("cache_control") or (function.get("cache_control") if isinstance(function, dict) else None)
    return made | ({"cache_control": cache} if isinstance(cache, dict) else {})


def _function(function: Any, specific: Specific, *path: str | int) -> Any:
    if not isinstance(function, dict):
        return function
    specific.add_others(function, {*_FUNCTION, "cache_control"}, *path)
    return {name: function[name] for name in _FUNCTION if function.get(name) is not None}


def _choice(choice: Any, specific: Specific) -> Any:
    if isinstance(choice, str):
        return _WORDS.get(choice, choice)
    if not isinstance(choice, dict):
        return choice
    kind = choice.get("type")
    if isinstance(kind, str) and kind != "function":
        specific.forced = "tool_choice"
        return None
    specific.add_others(choice, {"type", "function"}, "tool_choice")
    function = choice.get("function")
    name = {"name": function.get("name")} if isinstance(function, dict) else function
    return {"type": kind, "function": name}


def _allowed(tools: list[Any], choice: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """Return the tools that the choice allows, and its mode."""
    allowed = choice.get("allowed_tools")
    allowed = allowed if isinstance(allowed, dict) else choice
    listed = allowed.get("tools")
    names = {_name(tool) for tool in listed} if isinstance(listed, list) else set()
    return [tool for tool in tools if _name(tool) in names], allowed.get("mode", "auto")


def _name(tool: Any) -> Any:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None
