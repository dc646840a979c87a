"""The whole answer as one object, made of the chunks that a stream would have."""

from typing import Any, Final

Body = dict[str, Any]
#: Texts that arrive in fragments; other texts are repeated.
_FRAGMENTS: Final = frozenset(
    {"content", "refusal", "text", "summary", "data", "signature", "input", "transcript", "reasoning", "thinking"}
)
_OF_CHUNKS: Final = frozenset({"choices", "object", "usage"})
_OF_CHOICES: Final = frozenset({"index", "delta", "finish_reason"})


class Accumulator:
    """Joins the chunks of one response."""

    def __init__(self) -> None:
        self._top: Body = {}
        self._choice: Body = {"logprobs": None}
        self._texts: dict[str, list[str]] = {"content": [], "refusal": [], "reasoning_content": []}
        self._message: Body = {}
        self._calls: dict[int, Body] = {}
        self._arguments: dict[int, list[str]] = {}
        self._finish_reason: str | None = None

    def add(self, chunk: Body) -> None:
        self._top |= {name: value for name, value in chunk.items() if name not in _OF_CHUNKS}
        for choice in chunk["choices"]:
            self._finish_reason = choice["finish_reason"]
            _merge(self._choice, {name: value for name, value in choice.items() if name not in _OF_CHOICES})
            self._add_delta(choice["delta"])

    def whole(self, usage: Body | None) -> Body:
        """Return the response."""
        text, refusal, reasoning = ("".join(parts) for parts in self._texts.values())
        for index, fragments in self._arguments.items():
            self._calls[index]["function"]["arguments"] = "".join(fragments)
        message: Body = {
            "role": "assistant",
            "content": text or (None if self._calls or refusal else ""),
            "refusal": refusal or None,
            **({"reasoning_content": reasoning} if reasoning else {}),
            **self._message,
            **({"tool_calls": list(self._calls.values())} if self._calls else {}),
        }
        choice = {"index": 0, "message": message, **self._choice, "finish_reason": self._finish_reason}
        return {**self._top, "object": "chat.completion", "choices": [choice], "usage": usage}

    def _add_delta(self, delta: Body) -> None:
        for name, value in delta.items():
            if name in self._texts and isinstance(value, str):
                self._texts[name].append(value)
            elif name == "tool_calls":
                for call in value:
                    self._add_call(call)
            elif name != "role":
                _merge(self._message, {name: value})

    def _add_call(self, call: Body) -> None:
        index = call["index"]
        whole = self._calls.setdefault(index, {})
        members = {name: value for name, value in call.items() if name not in {"index", "function"}}
        _merge(whole, members)
        if (function := call.get("function")) is not None:
            _merge(whole.setdefault("function", {}), {n: v for n, v in function.items() if n != "arguments"})
            self._arguments.setdefault(index, []).append(function["arguments"])


def _merge(into: Body, members: Body) -> None:
    """Add members. Lists are joined; entries with the same `index` and type are fragments of one."""
    for name, value in members.items():
        before = into.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            _merge(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            for entry in value:
                _merge_entry(before, entry)
        elif isinstance(before, str) and isinstance(value, str) and name in _FRAGMENTS:
            into[name] = before + value
        elif value is not None or name not in into:
            into[name] = _copied(value)


def _merge_entry(entries: list[Any], entry: Any) -> None:
    latest = entries[-1] if entries else None
    if isinstance(entry, dict) and isinstance(latest, dict) and "index" in entry and _key(entry) == _key(latest):
        _merge(latest, entry)
    else:
        entries.append(_copied(entry))


def _key(entry: Body) -> tuple[Any, Any]:
    return entry.get("index"), entry.get("type")


def _copied(value: Any) -> Any:
    """Return a copy that further fragments can change."""
    if isinstance(value, dict):
        return {name: _copied(member) for name, member in value.items()}
    return list(map(_copied, value)) if isinstance(value, list) else value
