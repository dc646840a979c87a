"""Tables of ``headrace.toml``: one provider, one alias, one price. docs/configuration.md explains every key."""

import re
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shared.configuration.secret_sources import SecretPlace
from shared.model_patterns import matches_any
from shared.openai_address import is_openai
from shared.setting_types import BaseUrl, FieldPaths, Seconds

Kind = Literal["openai", "openai-responses", "anthropic", "anthropic-bedrock", "anthropic-vertex", "ollama", "demo"]
Auth = Literal["bearer", "api-key", "x-api-key", "entra"]
#: Families of wire formats, see shared/schemas/original.py.
FAMILIES: Final[dict[str, str]] = {
    "openai": "openai",
    "openai-responses": "responses",
    "anthropic": "anthropic",
    "anthropic-bedrock": "anthropic",
    "anthropic-vertex": "anthropic",
    "ollama": "ollama",
    "demo": "demo",
}
#: The first is the default.
_AUTH: Final[dict[str, tuple[Auth, ...]]] = {
    "openai": ("bearer", "api-key", "entra"),
    "openai-responses": ("bearer", "api-key", "entra"),
    "anthropic": ("x-api-key", "bearer"),
    "ollama": ("bearer",),
}
DEFAULT_AUTH: Final = {kind: accepted[0] for kind, accepted in _AUTH.items()}
#: Forms in which a server gets the beginning of an answer, so that it goes on with it.
Continues = Literal["assistant_prefill", "prefix", "continue_final_message"]
_CONTINUES: Final[dict[str, tuple[Continues, ...]]] = {
    "openai": ("assistant_prefill", "prefix", "continue_final_message"),
    "anthropic": ("assistant_prefill",),
    "anthropic-bedrock": ("assistant_prefill",),
    "anthropic-vertex": ("assistant_prefill",),
    "ollama": ("assistant_prefill",),
}
#: They take credentials from the environment, as the cloud's own tools do.
_CLOUDS: Final = frozenset({"anthropic-bedrock", "anthropic-vertex"})
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_FORBIDDEN_HEADERS: Final = frozenset(
    {
        *("authorization", "api-key", "x-api-key", "cookie", "proxy-authorization"),
        *("host", "content-length", "content-type", "transfer-encoding", "connection"),
    }
)
LONGEST_NAME: Final = 180

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Tokens = Annotated[int, Field(ge=1, le=10**12)]
Patterns = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=100)]
ModelName = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Misfits(ValueError):
    """Keys of a provider's table that do not fit its kind. ``problems``: ``key: problem; remedy`` for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Quirks(_Table):
    """Deviations of a server from its API. Left out: learned from the server's refusals."""

    #: The server accepts ``stream_options``; without them, it sends no usage.
    stream_options: bool = True
    #: Name of the limit of output tokens.
    token_limit: Literal["max_tokens", "max_completion_tokens"] | None = None
    #: ``nine`` letters or digits, as Mistral requires.
    tool_call_ids: Literal["any", "nine"] | None = None
    #: A continuation begins with the given text once more, as Mistral's does.
    repeats_prefix: bool | None = None


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header; use letters, digits and hyphens")
        if name.lower() in _FORBIDDEN_HEADERS:
            raise ValueError(f"{name!r} is set by Headrace; use api_keys and auth for credentials")
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"{name!r} is not printable ASCII; remove other characters")
    return headers


class ProviderEntry(_Table):
    """Table ``[providers.NAME]``."""

    kind: Kind
    base_url: BaseUrl | None = None
    #: The first is preferred only if a request has no prefix in common with others; see docs/configuration.md.
    api_keys: Annotated[tuple[SecretPlace, ...], Field(max_length=64)] = ()
    auth: Auth | None = None
    #: Of ``anthropic-bedrock`` and ``anthropic-vertex``.
    region: str | None = None
    project: str | None = None
    #: Models on offer; left out: the provider's own list.
    models: Annotated[tuple[ModelName, ...], Field(max_length=10_000)] = ()
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default_factory=dict)
    connect_timeout_s: Seconds | None = None
    first_token_timeout_s: Seconds | None = None
    idle_timeout_s: Seconds | None = None
    concurrent_streams: Count | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Tokens | None = None
    deny: FieldPaths = ()
    quirks: Quirks = Quirks()
    #: Patterns of the models of kind ``openai`` that are asked by Responses instead of Chat Completions. Left out:
    #: those of OpenAI that have no other API.
    responses_models: Patterns | None = None
    #: How the provider goes on with a given beginning of an answer. Left out: it does not.
    continues: Continues | None = None
    #: Patterns of the models that do. Left out: all.
    continues_models: Patterns | None = None
    #: Answers asked for by Responses are stored at the provider, so that another worker resumes them.
    background: bool = False

    @property
    def family(self) -> str:
        return FAMILIES[self.kind]

    def continues_for(self, model: str) -> Continues | None:
        """Return the form in which a model gets the beginning of an answer. None: it does not go on with one."""
        if self.continues is None or matches_any(model, self.responses_models or ()):
            return None
        is_named = self.continues_models is None or matches_any(model, self.continues_models)
        return self.continues if is_named else None

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if problems := [*self._misfits_of_access(), *self._misfits_of_kind()]:
            raise Misfits(problems)
        return self

    def _misfits_of_access(self) -> Iterator[str]:
        accepted = _AUTH.get(self.kind, ())
        if self.auth is not None and self.auth not in accepted:
            remedy = f"use {' or '.join(accepted)}" if accepted else "remove it"
            yield f"auth: {self.auth} does not exist for kind {self.kind}; {remedy}"
        if self.api_keys and not accepted:
            yield f"api_keys: kind {self.kind} has none; remove them"
        if self.auth == "entra" and self.api_keys:
            yield "api_keys: auth entra has tokens instead; remove the keys or use auth api-key"
        if self.base_url is not None and self.kind in {"demo", *_CLOUDS}:
            yield f"base_url: kind {self.kind} has none; remove it"
        if self.region is not None and self.kind not in _CLOUDS:
            yield f"region: kind {self.kind} has none; remove it"
        if self.region is None and self.kind == "anthropic-bedrock":
            yield "region: kind anthropic-bedrock needs it; set it, such as eu-central-1"
        if self.project is not None and self.kind != "anthropic-vertex":
            yield f"project: kind {self.kind} has none; remove it"

    def _misfits_of_kind(self) -> Iterator[str]:
        if self.kind in _CLOUDS and not self.models:
            yield f"models: kind {self.kind} has no list of models; name them"
        if self.responses_models is not None and self.kind != "openai":
            yield "responses_models: only kind openai has both APIs; remove it"
        if self.background and self.kind not in {"openai", "openai-responses"}:
            yield f"background: kind {self.kind} cannot store answers; remove it, or use kind openai-responses"
        elif self.background and not self._has_responses:
            yield "background: no model is asked by Responses; set responses_models, or remove background"
        yield from self._misfits_of_continuing()

    @property
    def _has_responses(self) -> bool:
        """True if some models may be asked by Responses."""
        if self.kind == "openai-responses" or self.responses_models:
            return True
        return self.responses_models is None and (self.base_url is None or is_openai(self.base_url))

    def _misfits_of_continuing(self) -> Iterator[str]:
        accepted = _CONTINUES.get(self.kind, ())
        if self.continues is not None and self.continues not in accepted:
            remedy = f"use {' or '.join(accepted)}" if accepted else "remove it"
            yield f"continues: {self.continues} does not exist for kind {self.kind}; {remedy}"
        if self.continues_models is not None and self.continues is None:
            yield "continues_models: continues is not set; set it or remove this"
        if self.quirks.repeats_prefix is not None and self.continues is None:
            yield "quirks.repeats_prefix: continues is not set; set it or remove this"


_TargetName = Annotated[str, Field(pattern=r"^[^/]+/.+$", max_length=256)]


class Target(_Table):
    """``provider/model``, with its share of the requests."""

    target: _TargetName
    weight: Annotated[float, Field(gt=0, le=1_000_000)] = 1


def _target(value: Any) -> Any:
    return {"target": value} if isinstance(value, str) else value


class AliasEntry(_Table):
    """Table ``[models.NAME]``."""

    targets: Annotated[
        tuple[Annotated[Target, BeforeValidator(_target, json_schema_input_type=_TargetName | Target)], ...],
        Field(min_length=1, max_length=16),
    ]
    fallbacks: Annotated[tuple[ModelName, ...], Field(max_length=8)] = ()
    routing: Literal["weighted", "least_busy"] = "weighted"


class PriceEntry(_Table):
    """Table ``[prices."provider/model"]``: amounts per million tokens. A kind that is left out costs what its whole
    costs."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    as_of: date
    input: Annotated[float, Field(ge=0)]
    cached_input: Annotated[float, Field(ge=0)] | None = None
    cache_write: Annotated[float, Field(ge=0)] | None = None
    output: Annotated[float, Field(ge=0)]
    reasoning: Annotated[float, Field(ge=0)] | None = None


def is_provider_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None
