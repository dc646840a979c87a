"""Requests in the form that a server accepts.

Servers differ in the fields that they accept. A field of the tables below is left out, or sent under its other name,
once its server has refused it; no other field ever is. A worker remembers that for the server and the model, for some
hours. Then it sends the field again, because the server may have been upgraded.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from shared.counterparts import without_counterpart
from shared.errors import ProviderError
from shared.provider_fields import forced_problem, ignored_paths, lacking_fields
from shared.schemas import ChatRequest
from shared.schemas.chat import forced_for, original_for
from workers.providers.anthropic_thinking import change_form
from workers.providers.call_id_forms import AT_MOST_40, NINE_CHARACTERS
from workers.providers.errors import Upstream, raw_report
from workers.providers.refusals import RefusableField, named_fields

logger = logging.getLogger(__name__)

#: Fields that OpenAI, vLLM, OpenRouter and others have, but not all of them.
OPENAI_OPTIONS: Final = (
    *("seed", "user", "safety_identifier", "top_k", "min_p", "repetition_penalty", "logprobs", "top_logprobs"),
    *("logit_bias", "verbosity", "service_tier", "store", "metadata", "prediction", "web_search_options"),
    *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "chat_template_kwargs", "reasoning"),
    *("include_reasoning", "thinking", "enable_thinking", "usage", "plugins", "transforms"),
)
#: Fields of Responses that its servers do not all have.
RESPONSES_OPTIONS: Final = (
    *("parallel_tool_calls", "user", "safety_identifier", "top_logprobs", "service_tier", "metadata"),
    *("truncation", "max_tool_calls", "stream_options", "prompt_cache_key", "prompt_cache_retention"),
    *("prompt_cache_options", "client_metadata", "context_management"),
)
OPENAI_FIELDS: Final = (
    RefusableField("stream_options", aliases=("include_usage",)),
    RefusableField("max_tokens", instead="max_completion_tokens"),
    RefusableField("max_completion_tokens", instead="max_tokens"),
    RefusableField("parallel_tool_calls", path="parallel_tool_calls"),
    RefusableField("reasoning_effort", path="reasoning_effort"),
    RefusableField("system", instead="developer", is_role=True),
    RefusableField("developer", instead="system", is_role=True),
    RefusableField("nine_character_call_ids", id_form=NINE_CHARACTERS),
    RefusableField("short_call_ids", id_form=AT_MOST_40),
    *(RefusableField(name, path=name) for name in OPENAI_OPTIONS),
)
#: Fields of Anthropic's that its followers may not have. Without them the answer has the same meaning.
ANTHROPIC_OPTIONS: Final = ("context_management", "service_tier", "speed", "cache_control", "top_k")
RESPONSES_FIELDS: Final = (
    RefusableField("include", aliases=("encrypted_content",), path="include", is_ours=True),
    RefusableField("store", path="store", is_ours=True),
    RefusableField("background"),
    RefusableField("summary", path="reasoning.summary", within="reasoning", is_ours=True),
    RefusableField("effort", aliases=("reasoning",), path="reasoning_effort", within="reasoning"),
    RefusableField("verbosity", path="text.verbosity", within="text"),
    *(RefusableField(name, path=name) for name in RESPONSES_OPTIONS),
)
ANTHROPIC_FIELDS: Final = (
    RefusableField("adaptive", instead="enabled", is_form=True),
    RefusableField("enabled", instead="adaptive", is_form=True),
    RefusableField("disable_parallel_tool_use", path="parallel_tool_calls"),
    RefusableField("thinking", path="reasoning_effort"),
    RefusableField("effort", path="reasoning_effort"),
    RefusableField("output_config", path="reasoning_effort", only="effort"),
    RefusableField("metadata", path="user"),
    *(RefusableField(name, path=name) for name in ANTHROPIC_OPTIONS),
)
OLLAMA_FIELDS: Final = (RefusableField("think", aliases=("thinking",), path="reasoning_effort"),)

#: Fields of which one value may be refused and remembered. Other values may be the client's own data.
_WITH_FEW_VALUES: Final = frozenset({"parallel_tool_calls", "reasoning_effort", "tool_choice"})

#: Repeats of one request after refusals.
MOST_REPEATS: Final = 4
_MOST_MODELS: Final = 1000
REMEMBERED_S: Final = 6 * 3600.0

Body = dict[str, Any]


class RefusedFields:
    """Memory of the fields that one server has refused, for each model. ``fields``: those that may be refused.

    An entry is a field's name, or ``name=value`` if only that value was refused.
    """

    def __init__(self, upstream: Upstream, fields: Collection[RefusableField]) -> None:
        self.upstream = upstream
        self.fields = fields
        self._expiry_by_entry: OrderedDict[str, dict[str, float]] = OrderedDict()

    def of(self, model: str) -> frozenset[str]:
        """Return the entries of a model."""
        if model not in self._expiry_by_entry:
            return frozenset()
        self._expiry_by_entry.move_to_end(model)
        now = time.monotonic()
        return frozenset(entry for entry, expiry in self._expiry_by_entry[model].items() if expiry > now)

    def add(self, model: str, entries: Iterable[str]) -> None:
        expiry = time.monotonic() + REMEMBERED_S
        known = self._expiry_by_entry.setdefault(model, {})
        known |= {entry: expiry for entry in entries if known.get(entry, 0.0) <= time.monotonic()}
        if len(self._expiry_by_entry) > _MOST_MODELS:
            self._expiry_by_entry.popitem(last=False)

    def forget(self, model: str, entries: Iterable[str]) -> None:
        for entry in entries:
            self._expiry_by_entry.get(model, {}).pop(entry, None)


class AdaptedRequest:
    """One request, in the form that its server accepts as far as is known.

    ``body`` is sent. ``ignored``: paths of the client's fields that have no effect: those that the family lacks,
    those of ``built_in``, and those left out after a refusal. If the request refuses to lose any, ``error`` is set
    instead; the constructor raises it.
    """

    def __init__(
        self,
        request: ChatRequest,
        server: RefusedFields,
        build: Callable[[ChatRequest], Body],
        built_in: tuple[str, ...] = (),
    ) -> None:
        self.model = request.model
        self._request = request
        self._server = server
        self._build = build
        self._built_in = built_in
        self._entries = set(server.of(request.model))
        self._learned: set[str] = set()
        self._latest: set[str] = set()
        self._repeats = 0
        check_forced_tool(request, server.upstream.name, server.upstream.family)
        self._lacking = lacking_fields(request, server.upstream.family)
        self.error: ProviderError | None = None
        self._adapt()
        if self.error is not None:
            raise self.error

    def accepted(self) -> None:
        """Remember the fields that were refused before: without them the server accepts the request."""
        if self._learned:
            self._server.add(self.model, self._learned)

    def refuse(self, error: Exception) -> bool:
        """Leave out or rename the fields that a refusal names. Returns False if it names none, or after too many."""
        sent = [field for field in self._server.fields if field.is_in(self.body)]
        named = named_fields(raw_report(error), sent)
        named = {field: one_value for field, one_value in named.items() if not (one_value and _may_have_any(field))}
        latest = {self._entry(field, one_value=named[field]) for field in named if field.instead not in self._entries}
        latest -= self._entries
        if forms := latest & {field.name for field in named if field.is_form}:
            latest = forms  # the other form is tried before thinking is left out
        if not latest:  # the last change did not help
            self._server.forget(self.model, self._latest)
            return False
        self._server.add(self.model, self._learned)
        self._learned |= latest
        self._latest = latest
        self._entries |= latest
        if self._repeats == MOST_REPEATS:
            self._server.add(self.model, latest)
            return False
        self._repeats += 1
        self._adapt()
        if self.error is not None:
            return False
        upstream = self._server.upstream
        line = {"provider": upstream.name, "host": upstream.host, "model": self.model, "fields": sorted(latest)}
        logger.warning("field refused by provider", extra=line)
        return True

    def _adapt(self) -> None:
        body = self._build(self._without(self._lacking))
        fields = self._server.fields if self._entries else ()
        refused = [field for field in fields if self._is_refused(field) and field.is_in(body)]
        original = original_for(self._request, self._server.upstream.family)
        sent = {} if original is None else original.body
        named = [field for field in refused if not field.is_ours or field.is_in(sent)]
        paths = {field.path for field in named if field.path is not None}
        if paths:
            body = self._build(self._without({*self._lacking, *paths}))
        changes_form = any(field.is_form for field in refused)
        for field in refused:
            if field.is_in(body):  # an original has it still
                _change(body, field)
        if changes_form and "thinking" not in body:  # the other form does not fit into the limit of the output
            paths.add("reasoning_effort")
        self.body = body
        family = self._server.upstream.family
        unsent = without_counterpart(self._request, family, body)
        self.ignored = ignored_paths(self._request, family, sorted({*self._built_in, *paths}), unsent)
        if self.ignored and self._request.unsupported_fields == "refuse":
            self.error = unsupported(self._server.upstream.name, self.ignored[0])

    def _without(self, fields: Collection[str]) -> ChatRequest:
        """Return the request without some fields. A budget of reasoning would bring its effort back."""
        removed = {*fields, *(("reasoning_tokens",) if "reasoning_effort" in fields else ())}
        return self._request.model_copy(update=dict.fromkeys(removed)) if removed else self._request

    def _is_refused(self, field: RefusableField) -> bool:
        return field.name in self._entries or self._entry(field, one_value=True) in self._entries

    def _entry(self, field: RefusableField, *, one_value: bool) -> str:
        if field.path not in _WITH_FEW_VALUES or not one_value:
            return field.name
        return f"{field.name}={getattr(self._request, field.path)}"


def check_forced_tool(request: ChatRequest, provider: str, family: str) -> None:
    """Raise :class:`ProviderError` for a forced tool that a provider of ``family`` cannot have."""
    if (path := forced_for(request, family)) is not None:
        problem = forced_problem(path, provider)
        raise ProviderError("unsupported_field", problem, summary=problem.partition(": ")[2], param=path)


def unsupported(provider: str, path: str) -> ProviderError:
    """Return the error of a request that refuses to lose the field ``path``."""
    rule = f"not supported by provider {provider}; remove it, or set unsupported_fields to drop"
    return ProviderError("unsupported_field", f"{path}: {rule}", summary=f"a field is {rule}", param=path)


def _may_have_any(field: RefusableField) -> bool:
    """Return True for a field of the client's own values: a wrong one is the client's mistake. To leave the field out
    would take it from all other clients of the server too."""
    return field.path is not None and field.path not in _WITH_FEW_VALUES


def _change(body: Body, field: RefusableField) -> None:
    """Leave out or rename a field."""
    if field.id_form is not None:
        field.id_form.apply(body)
    elif field.is_role:
        for message in body["messages"]:
            if message["role"] == field.name:
                message["role"] = field.instead
    elif field.is_form:
        change_form(body, str(field.instead))
    elif field.instead is None:
        _leave_out(body, field)
    else:
        body[field.instead] = body.pop(field.name)


def _leave_out(body: Body, field: RefusableField) -> None:
    """Leave out a field. Its object stays as the client sent it, for the next attempt."""
    if field.name in body:
        del body[field.name]
    elif (container := field.container(body)) is not None:
        rest = {name: value for name, value in body[container].items() if name != field.name}
        if rest:
            body[container] = rest
        else:
            del body[container]
