"""Fields that the providers of a family lack: one table for the routing and for the providers.

A field that a provider lacks is dropped and named, or the request is refused, by ``unsupported_fields``. A field
whose loss would change the meaning, such as a forced tool, is not here: the provider emulates or refuses it.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from shared.counterparts import counterparts
from shared.schemas.chat import ChatRequest, StoredRequest, lost_for, original_for
from shared.schemas.messages import FilePart
from shared.schemas.original import MOST_PATHS

#: Problem of a ``previous_response_id``.
NO_RESPONSE: Final = "no such response; it was not stored, or its retention has ended"
#: Fields of the canonical request, by family. A provider's name is the name of its family.
_LACKING: Final[Mapping[str, frozenset[str]]] = {
    "openai": frozenset({"top_k"}),
    "responses": frozenset({"stop", "top_k", "seed", "frequency_penalty", "presence_penalty"}),
    "anthropic": frozenset({"frequency_penalty", "presence_penalty", "seed"}),
    "ollama": frozenset({"user"}),
    "demo": frozenset(
        {
            *("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed", "user"),
            *("reasoning_effort", "reasoning_tokens"),
        }
    ),
}
#: Members of messages, by family.
_LACKING_IN_MESSAGES: Final[Mapping[str, frozenset[str]]] = {
    "openai": frozenset({"is_error"}),
    "responses": frozenset({"name", "is_error"}),
    "anthropic": frozenset({"name"}),
    "ollama": frozenset({"name", "is_error", "content.file", "content.cache_control"}),
    "demo": frozenset({"name", "is_error", "content.file", "content.cache_control"}),
}
#: Values with the same effect as none.
_NEUTRAL: Final[Mapping[str, object]] = {"frequency_penalty": 0, "presence_penalty": 0, "reasoning_effort": "none"}
#: Names of canonical fields in the wire format of a family, where they differ.
_CLIENT_PATHS: Final[Mapping[str, Mapping[str, str]]] = {
    "anthropic": {
        "stop": "stop_sequences",
        "user": "metadata.user_id",
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
        "reasoning_effort": "output_config.effort",
        "reasoning_tokens": "thinking.budget_tokens",
        "response_format": "output_config.format",
    },
    "openai": {"text.verbosity": "verbosity"},
    "responses": {
        "max_tokens": "max_output_tokens",
        "messages": "input",
        "reasoning_effort": "reasoning.effort",
        "response_format": "text.format",
        "verbosity": "text.verbosity",
    },
}
_FORCED_TOOL: Final = "provider {provider} does not have the required tool; choose another model or remove the field"
#: Problems of fields without which the answer would be another one, by field, or by the last step below ``input``.
_FORCED_PROBLEMS: Final[Mapping[str, str]] = {
    "conversation": "not supported by provider {provider}; send the messages, or set previous_response_id",
    "prompt": "not supported by provider {provider}; send the text of the prompt as instructions",
    "previous_response_id": NO_RESPONSE,
    "type": "compaction is not supported by provider {provider}; summarize the conversation instead",
    "id": "no such item, or its retention has ended; send the item itself",
}
_LONGEST_PATH: Final = 128
#: Names of public fields that may be logged. Another name comes from the client, so it may be content.
_PUBLIC_NAMES: Final = (
    "annotations audio background betas budget_tokens cache_control caller citations client_metadata "
    "code_interpreter container content context_management conversation detail disable_parallel_tool_use "
    "display documents effort encrypted_content file filename format function functions include "
    "include_reasoning inference_geo input instructions is_error json_schema logit_bias logprobs "
    "max_completion_tokens max_output_tokens max_tool_calls mcp_servers metadata min_p modalities models "
    "n name num_ctx output_config output_format plugins prediction prompt prompt_cache_key "
    "prompt_cache_retention reasoning repetition_penalty safety_identifier schema service_tier source "
    "speed stop_sequences store stream_options strict summary system text thinking title tool_choice "
    "top_logprobs transforms truncation type usage user_id verbosity web_search_options "
)
_PUBLIC: Final = frozenset(_PUBLIC_NAMES.split()) | frozenset(ChatRequest.model_fields)


def lacking_fields(request: ChatRequest, family: str) -> tuple[str, ...]:
    """Return the canonical fields of the request that a provider of ``family`` lacks. They can be left out."""
    if original_for(request, family) is not None:
        return ()
    return tuple(name for name in sorted(_LACKING.get(family, ())) if _is_set(request, name))


def ignored_paths(
    request: ChatRequest, family: str, further: Iterable[str] = (), unsent: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the client's paths of all fields that have no effect at a provider of ``family``. ``further``: canonical
    paths that only the provider knows. ``unsent``: counterparts that the provider does not get either."""
    canonical = [*lacking_fields(request, family), *_lacking_in_messages(request, family), *further]
    sent = counterparts(request, family).keys() - set(unsent)
    lost = [path for path in lost_for(request, family) if path not in sent]
    paths = [*(client_path(request, name) for name in canonical), *lost]
    return tuple(dict.fromkeys(map(_shown, paths)))[:MOST_PATHS]


def forced_problem(path: str, provider: str) -> str:
    """Return the error text of a field that ``provider`` lacks and that is never left out. ``path``: its own."""
    last = path.rpartition(".")[2] if path.startswith("input.") else path
    return f"{path}: {_FORCED_PROBLEMS.get(last, _FORCED_TOOL).format(provider=provider)}"


def client_path(request: ChatRequest, canonical: str) -> str:
    """Return the name that the client's wire format has for a canonical field."""
    original = request.original if isinstance(request, StoredRequest) else None
    first, dot, rest = canonical.partition(".")
    if original and original.family == "anthropic" and first == "reasoning_effort" and "thinking" in original.body:
        return "thinking"
    names = _CLIENT_PATHS.get(original.family if original else "", {})
    return names.get(canonical) or names.get(first, first) + dot + rest


def loggable(paths: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a log line about ``paths``: public names, and the number of the others."""
    known = [path for path in paths if all(part.isdecimal() or part in _PUBLIC for part in path.split("."))]
    unknown = len(list(paths)) - len(known)
    return {"ignored": known} | ({"unknown": unknown} if unknown else {})


def _is_set(request: ChatRequest, name: str) -> bool:
    value = getattr(request, name)
    return value is not None and value != _NEUTRAL.get(name)


def _lacking_in_messages(request: ChatRequest, family: str) -> list[str]:
    lacking = () if original_for(request, family) is not None else _LACKING_IN_MESSAGES.get(family, ())
    used = set[str]()
    for message in request.messages:
        used |= {name for name in ("name", "is_error") if getattr(message, name)}
        if isinstance(message.content, list):
            used |= {"content.file" for part in message.content if _is_file(part)}
            used |= {"content.cache_control" for part in message.content if part.cache_control}
    return [f"messages.{name}" for name in sorted(used.intersection(lacking))]


def _is_file(part: object) -> bool:
    """Return True for a file that is no text: text is inserted where a provider has no place for files."""
    return isinstance(part, FilePart) and not (part.file.file_data or "").startswith("data:text/")


def _shown(path: str) -> str:
    """Return the path in printable ASCII, since names of fields come from the client."""
    return "".join(c if "!" <= c <= "~" and c != "," else "?" for c in path[:_LONGEST_PATH])
