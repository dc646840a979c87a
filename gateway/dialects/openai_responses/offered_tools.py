"""Tools of a Responses request, offered as functions, and the translation of their names back.

Functions of a ``namespace``, ``custom`` tools and the client's own ``tool_search`` become functions. A call of one is
rendered in the form that the client expects, so the renderer needs the kind of each such tool.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from gateway.dialects.openai_responses.notes import Notes
from shared.errors import InvalidRequest
from shared.response_items import INPUT, TOOL_SEARCH, function_name

Body = dict[str, Any]
Kind = Literal["function", "custom", "tool_search"]
#: Types of tools that the client runs.
_CALLABLE: Final = frozenset({"function", "custom", TOOL_SEARCH})
_FUNCTION_MEMBERS: Final = ("name", "description", "parameters", "strict")


class ClientTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """Form of a tool that is not a plain function. ``name`` and ``namespace`` are the client's."""

    name: str
    kind: Kind = "function"
    namespace: str | None = None


class OfferedTools:
    """Functions offered to the provider. ``forms``: the client's form of those that are not plain functions, by the
    function's name. ``functions``: canonical tools, in order."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._names: dict[tuple[str | None, str], str] = {}
        self._paths: dict[str, str] = {}
        self.forms: dict[str, ClientTool] = {}
        self.functions: dict[str, Body] = {}
        self._has_others = False  # tools that only OpenAI can run

    def add(self, path: str, tools: Any, namespace: str | None = None) -> list[str]:
        """Offer a list of tools; return the names of the functions. Tools that only OpenAI can run are left out.
        Raises :class:`InvalidRequest`."""
        if not isinstance(tools, list):
            raise InvalidRequest(f"{path}: must be a list")
        return [name for at, tool in enumerate(tools) for name in self._add_one(f"{path}.{at}", tool, namespace)]

    def name_of(self, name: Any, namespace: Any = None) -> Any:
        """Return the name of the function that a client's tool is offered as."""
        if not isinstance(name, str):
            return name
        namespace = namespace if isinstance(namespace, str) else None
        return self._names.get((namespace, name)) or function_name(namespace, name)

    def listed(self) -> list[Body] | None:
        """Return the canonical tools, or None if there are none."""
        for at, name in enumerate(self.functions):
            self._notes.place(f"tools.{at}.function", self._paths[name])
        return list(self.functions.values()) or None

    def choose(self, choice: Any) -> Any:
        """Return the canonical ``tool_choice``, and restrict the offered tools to ``allowed_tools``. A forced tool
        that only OpenAI can run is noted. Raises :class:`InvalidRequest`."""
        if not isinstance(choice, dict):
            return self._choose_by_word(choice)
        if choice.get("type") == "allowed_tools":
            return self._restrict(choice)
        if (name := self._chosen(choice)) is not None:
            return {"type": "function", "function": {"name": name}}
        if not isinstance(kind := choice.get("type"), str) or kind in _CALLABLE:
            raise InvalidRequest("tool_choice: names no tool of the request; choose one of tools")
        self._notes.force("tool_choice")
        return None

    def _choose_by_word(self, choice: Any) -> Any:
        if choice == "required" and not self.functions:
            if not self._has_others:
                raise InvalidRequest("tool_choice: there are no tools; add tools or remove tool_choice")
            self._notes.force("tool_choice")
        return choice if self.functions else None

    def _add_one(self, path: str, tool: Any, namespace: str | None) -> list[str]:
        match tool:
            case {"type": "function" | "custom" as kind}:
                return [self._offer(path, tool, namespace, kind)]
            case {"type": "namespace", "name": str(name), "tools": inner} if namespace is None:
                return self.add(f"{path}.tools", inner, name)
            case {"type": "tool_search", "execution": "client"}:
                return [self._offer(path, {"name": TOOL_SEARCH, **tool}, None, TOOL_SEARCH)]
            case {"type": str()}:
                self._has_others = True
                self._notes.drop(path)
                return []
            case _:
                raise InvalidRequest(f"{path}.type: must be a string; define a function tool")

    def _offer(self, path: str, tool: Body, namespace: str | None, kind: Kind) -> str:
        name = tool.get("name")
        if not isinstance(name, str) or not name:
            raise InvalidRequest(f"{path}.name: must be a string; name the tool")
        if (namespace, name) in self._names:
            if path.startswith("tools."):
                raise InvalidRequest(f"{path}.name: an earlier tool has this name; use unique names")
            return self._names[namespace, name]  # found again by a search
        unique = offered = function_name(namespace, name)
        number = 1
        while unique in self.functions:
            number += 1
            unique = f"{offered}_{number}"
        self._names[namespace, name] = unique
        if unique != name or kind != "function":
            self.forms[unique] = ClientTool(name, kind, namespace)
        self._paths[unique] = path
        function = {**_custom(tool), "name": unique} if kind == "custom" else {**_function(tool), "name": unique}
        self.functions[unique] = {"type": "function", "function": function}
        return unique

    def _restrict(self, choice: Body) -> Any:
        allowed, mode = choice.get("tools"), choice.get("mode", "auto")
        if not isinstance(allowed, list) or mode not in ("auto", "required"):
            raise InvalidRequest("tool_choice: allowed_tools needs tools and a mode, auto or required; add them")
        names = {self._chosen(tool) for tool in allowed if isinstance(tool, dict)}
        self.functions = {name: tool for name, tool in self.functions.items() if name in names}
        return self.choose(mode)

    def _chosen(self, choice: Body) -> str | None:
        name = self.name_of(choice.get("name"), choice.get("namespace"))
        kind = str(choice.get("type"))
        if kind == TOOL_SEARCH:
            name = self.name_of(TOOL_SEARCH)
        is_callable = kind in _CALLABLE and isinstance(name, str)
        return name if is_callable and name in self.functions else None


def decode_forms(raw: Mapping[str, Any]) -> dict[str, ClientTool]:
    return msgspec.convert(raw, dict[str, ClientTool])


def _function(tool: Body) -> Body:
    return {name: value for name in _FUNCTION_MEMBERS if (value := tool.get(name)) is not None}


def _custom(tool: Body) -> Body:
    described = "\n\n".join(_paragraphs(tool))
    text = {"type": "string", "description": "The whole input of the tool, as plain text."}
    parameters = {"type": "object", "properties": {INPUT: text}, "required": [INPUT], "additionalProperties": False}
    return {"description": described, "parameters": parameters} if described else {"parameters": parameters}


def _paragraphs(tool: Body) -> Iterator[str]:
    if isinstance(description := tool.get("description"), str) and description:
        yield description
    match tool.get("format"):
        case {"type": "grammar", "definition": str(definition), "syntax": syntax}:
            yield f"The input must match this grammar ({syntax}):\n{definition}"
