"""Fields of one wire format that another one has too, though the canonical request does not.

A provider of the other family gets them in its own form, so they are not lost there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.schemas.chat import ChatRequest, StoredRequest

#: Entry of Responses' ``include`` that asks for the probabilities of the text's tokens.
LOGPROBS: Final = "message.output_text.logprobs"
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Counterpart:
    """The other format's field. ``path``: its place in the request. ``convert``: returns its value for the client's,
    or None if it has none; by default the same. ``is_entry``: the value is an entry of the list at that place."""

    path: str
    convert: Callable[[Any], Any] | None = None
    is_entry: bool = False


@dataclass(frozen=True, slots=True)
class Translated:
    """A client's field in the other format."""

    path: str
    value: Any
    is_entry: bool = False

    def add_to(self, body: Body) -> None:
        """Add the field to a request that has been built here. Objects and lists in it are replaced, not changed."""
        *parents, name = self.path.split(".")
        for parent in parents:
            body[parent] = dict(body.get(parent) or {})
            body = body[parent]
        body[name] = [*body.get(name, ()), self.value] if self.is_entry else self.value

    def is_in(self, body: Body) -> bool:
        """Return True if a request has the field."""
        found = _member(body, self.path)
        return self.value in found if self.is_entry and isinstance(found, list) else found is not None


_OPTIONS_OF_SEARCH: Final = frozenset({"search_context_size", "user_location"})


def _words(values: Mapping[str, str]) -> Callable[[Any], Any]:
    return lambda value: values.get(value) if isinstance(value, str) else None


def _included(value: Any) -> Any:
    return LOGPROBS if value is True else None


def _unless_zero(value: Any) -> Any:
    return value or None


def _web_search(options: Any) -> Any:
    """Return the tool for Chat Completions' options of a web search. Options of another name are not passed on: they
    would be members of a tool, such as its type or a model that it asks."""
    if not isinstance(options, dict) or not options.keys() <= _OPTIONS_OF_SEARCH:
        return None
    tool = {"type": "web_search", **options}
    match options.get("user_location"):
        case {"approximate": dict(place), **others}:
            tool["user_location"] = others | place
    return tool


_ANTHROPIC_TIERS: Final = {"auto": "auto", "default": "standard_only"}
_OPENAI_TIERS: Final = {word: name for name, word in _ANTHROPIC_TIERS.items()}
_TO_ANTHROPIC: Final = {"service_tier": Counterpart("service_tier", _words(_ANTHROPIC_TIERS))}
_FROM_ANTHROPIC: Final = {"service_tier": Counterpart("service_tier", _words(_OPENAI_TIERS))}
#: Fields of OpenAI's two formats with the same name and values.
_OF_OPENAI: Final = {
    name: Counterpart(name)
    for name in (
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "service_tier"),
        *("safety_identifier", "user"),
    )
}
#: By the client's family and the provider's, then by the client's path. ``include=NAME``: an entry of a list.
_COUNTERPARTS: Final[Mapping[tuple[str, str], Mapping[str, Counterpart]]] = {
    ("responses", "openai"): {
        "text.verbosity": Counterpart("verbosity"),
        f"include={LOGPROBS}": Counterpart("logprobs"),
        "top_logprobs": Counterpart("top_logprobs", _unless_zero),
        **_OF_OPENAI,
    },
    ("openai", "responses"): {
        "verbosity": Counterpart("text.verbosity"),
        "logprobs": Counterpart("include", _included, is_entry=True),
        "top_logprobs": Counterpart("top_logprobs", _unless_zero),
        "web_search_options": Counterpart("tools", _web_search, is_entry=True),
        "store": Counterpart("store"),
        "metadata": Counterpart("metadata"),
        **_OF_OPENAI,
    },
    ("responses", "anthropic"): _TO_ANTHROPIC,
    ("openai", "anthropic"): _TO_ANTHROPIC,
    ("anthropic", "openai"): _FROM_ANTHROPIC,
    ("anthropic", "responses"): _FROM_ANTHROPIC,
}


def counterparts(request: ChatRequest, family: str) -> dict[str, Translated]:
    """Return the fields that a provider of ``family`` gets beside the canonical ones, by the client's path."""
    original = request.original if isinstance(request, StoredRequest) else None
    if original is None:
        return {}
    found: dict[str, Translated] = {}
    for place, counterpart in _COUNTERPARTS.get((original.family, family), {}).items():
        path, value = _found(original.body, place)
        if counterpart.convert is not None:
            value = counterpart.convert(value)
        if value is not None:
            found[path] = Translated(counterpart.path, value, counterpart.is_entry)
    return found


def add_counterparts(body: Body, request: ChatRequest, family: str) -> Body:
    """Add the same fields to a request for a provider of ``family``, and return it."""
    for field in counterparts(request, family).values():
        field.add_to(body)
    return body


def without_counterpart(request: ChatRequest, family: str, body: Body) -> tuple[str, ...]:
    """Return the client's paths of the same fields that ``body`` does not have any more."""
    return tuple(path for path, field in counterparts(request, family).items() if not field.is_in(body))


def counterpart_bodies(request: ChatRequest) -> Iterator[Body]:
    """Yield the same fields in the form of each other family."""
    original = request.original if isinstance(request, StoredRequest) else None
    for family in (to for client, to in _COUNTERPARTS if original is not None and client == original.family):
        yield add_counterparts({}, request, family)


def _found(body: Body, place: str) -> tuple[str, Any]:
    """Return the client's path of a place in the table, and the value there."""
    path, _, entry = place.partition("=")
    value = _member(body, path)
    if not entry:
        return path, value
    has_entry = isinstance(value, list) and entry in value
    return (f"{path}.{value.index(entry)}", True) if has_entry else (path, None)


def _member(body: Any, path: str) -> Any:
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body
