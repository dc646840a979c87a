"""Texts in the parts of a request, for hooks (``shared/hooks.py``).

Most members have a meaning of ours: some of them are names or encoded data, not words. Others have JSON of the
client's own, such as a schema of a tool: there every text may be words for the model, under any name.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

#: Members whose texts are names or encoded data.
_NO_WORDS: Final = frozenset({"role", "type", "id", "tool_call_id", "name", "url", "file_data", "file_url", "detail"})
#: Members with JSON of the client's own.
_FREE: Final = frozenset({"parameters", "schema", "schema_", "input_schema", "extra"})
#: Data for a provider, which changes as a whole or not at all: it may be signed.
_WHOLE: Final = "extra"
_OPAQUE: Final = "cache_control"
#: Words of JSON Schema, which say nothing to the model.
_OF_SCHEMAS: Final = frozenset(
    {
        *("type", "properties", "required", "description", "items", "enum", "const", "default", "title"),
        *("additionalProperties", "anyOf", "oneOf", "allOf"),
        *("object", "string", "number", "integer", "boolean", "array", "null"),
    }
)


def texts_in(value: object, key: str = "", *, is_free: bool = False) -> Iterator[str]:
    """Yield the texts of a JSON value. ``is_free``: it is JSON of the client's own, whose names count too."""
    match value:
        case str():
            if value not in _OF_SCHEMAS if is_free else key not in _NO_WORDS:
                yield value
        case dict():
            for name, member in value.items():
                if is_free and name not in _OF_SCHEMAS:
                    yield name
                if is_free or name != _OPAQUE:
                    yield from texts_in(member, name, is_free=is_free or name in _FREE)
        case list():
            for item in value:
                yield from texts_in(item, key, is_free=is_free)


def mapped(value: Any, change: Callable[[str], str], key: str = "", *, is_free: bool = False) -> Any:
    """Return a JSON value with ``change`` applied to its texts. Names stay. A message's data for its provider is left
    out if one of its texts would change."""
    match value:
        case str():
            return change(value) if (value not in _OF_SCHEMAS if is_free else key not in _NO_WORDS) else value
        case dict():
            made = {}
            for name, member in value.items():
                if not is_free and name == _OPAQUE:
                    made[name] = member
                elif is_free or name != _WHOLE:
                    made[name] = mapped(member, change, name, is_free=is_free or name in _FREE)
                elif all(change(text) == text for text in texts_in(member, is_free=True)):
                    made[name] = member
            return made
        case list():
            return [mapped(item, change, key, is_free=is_free) for item in value]
    return value
