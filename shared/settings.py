"""All settings, read once from the environment at start and frozen.

Headrace's own have the prefix ``HEADRACE_``; provider keys have the names that the providers' SDKs use. An invalid
value or an unknown ``HEADRACE_`` name stops the start with a message that lists every problem. Durations end in
``_s``.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from shared.archive_settings import ArchiveSettings
from shared.broker.connection_pool import check_url
from shared.budget_settings import BudgetSettings
from shared.budgets import check_currency
from shared.hook_settings import HookSettings
from shared.rate_limits import LIMIT_NAMES, Limits
from shared.response_settings import ResponseSettings
from shared.setting_types import (
    LONGEST_S,
    BaseUrl,
    Conflict,
    ConflictsFound,
    ContentKeys,
    FieldPaths,
    Json,
    JwksUrl,
    Names,
    Networks,
    Origins,
    PublicKey,
    Seconds,
    ServerAddress,
    TimeoutChanges,
    Timeouts,
    split_list,
)
from shared.usage_settings import UsageSettings
from shared.webhook_settings import WebhookSettings
from shared.websocket_settings import WebSocketSettings

PREFIX: Final = "HEADRACE_"
DEFAULT_CONNECTIONS: Final = 1000
UnsupportedFields = Literal["drop", "refuse"]


class SettingsError(Exception):
    """The environment cannot be used; the message lists every problem, one per line."""


class Settings(
    UsageSettings, WebhookSettings, ArchiveSettings, BudgetSettings, HookSettings, ResponseSettings, WebSocketSettings
):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, allow_inf_nan=False
    )

    #: File with providers, aliases and prices, such as headrace.toml. docs/configuration.md
    config: Path | None = None
    # --- addresses, secrets, logs and traces
    redis_url: Annotated[str, AfterValidator(check_url)] = "redis://127.0.0.1:6379/0"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    #: Signs tickets; the same for all gateways. ``headrace up`` keeps one in its data directory.
    secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    #: Keys of conversations in Redis, 64 hexadecimal digits each, the same everywhere: the first encrypts.
    content_keys: ContentKeys = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    #: ``json`` for machines, ``text`` for people; by default text on a terminal, else JSON. docs/observability.md
    log_format: Literal["json", "text"] | None = None
    #: Traces are off if neither is set. OpenTelemetry reads these and its other variables itself.
    otlp_endpoint: str | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    otlp_traces_endpoint: str | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    otel_sdk_disabled: bool = Field(default=False, validation_alias="OTEL_SDK_DISABLED")

    # --- authentication (docs/security.md)
    #: ``keys``, ``jwt``, both, or ``none``. By default no authentication, for direct requests of this machine only.
    auth: Annotated[tuple[Literal["none", "keys", "jwt"], ...], NoDecode] = ()
    #: ``jwt`` needs exactly one of these three: a secret (HS256), a public key in PEM (RS256, ES256), or a JWKS.
    jwt_secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    jwt_public_key: PublicKey | None = None
    jwt_jwks_url: JwksUrl | None = None
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    jwt_leeway_s: Annotated[float, Field(ge=0, le=300)] = 10
    #: Lifetime of the ticket in a ``stream_url``; by default as long as the stream can live.
    ticket_life_s: Annotated[float, Field(ge=1, le=LONGEST_S)] | None = None

    # --- limits of each principal, unless its API key has its own (docs/limits.md); 0 = unlimited
    requests_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    tokens_per_minute: Annotated[int, Field(ge=0, le=10**12)] = 0
    tokens_per_day: Annotated[int, Field(ge=0, le=10**12)] = 0
    concurrent_streams: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    #: Bytes of requests and answers kept in Redis; by default 512 MiB, or a quarter of maxmemory if that is less.
    stored_bytes: Annotated[int, Field(ge=0, le=2**50)] | None = None
    #: Live connections of each principal to one gateway; by default 1000, or unlimited without authentication.
    connections: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    #: Reserved for the answer to a request without ``max_tokens``, until its real usage is known.
    tokens_assumed: Annotated[int, Field(ge=0, le=10_000_000)] = 1024
    #: Streams that may wait for a worker; further requests are refused with 503.
    queue_depth: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    #: Concurrent streams per provider, over all workers, as JSON: {"openai": 200, "ollama": 4}.
    provider_streams: Json[dict[str, Annotated[int, Field(ge=1, le=1_000_000)]]] = Field(default_factory=dict)

    #: Model of ``POST /api/chat`` if its body has none: ``provider/model``.
    default_model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    #: Fields of a request that its provider lacks: ``drop`` leaves them out and names them, ``refuse`` fails.
    unsupported_fields: UnsupportedFields = "drop"
    #: Fields, tools and betas that requests may not have, such as mcp_servers,tools.web_search. docs/security.md
    denied_fields: FieldPaths = ()

    # --- the stream (docs/glossary.md: cap, window, lease)
    cap: Annotated[int, Field(ge=16, le=65_536)] = 1024
    window: Annotated[int, Field(ge=4, le=65_536)] = 256
    max_stream_bytes: Annotated[int, Field(ge=4096)] = 4 * 1024 * 1024
    #: Largest coalesced event, so that window and cap bound bytes too.
    max_event_bytes: Annotated[int, Field(ge=256, le=1024 * 1024)] = 8192
    lease_s: Annotated[float, Field(ge=1, le=300)] = 10
    reader_lease_s: Annotated[float, Field(ge=1, le=300)] = 10
    grace_s: Annotated[float, Field(ge=0, le=86_400)] = 60
    retention_s: Annotated[float, Field(ge=1, le=LONGEST_S)] = 24 * 3600
    tombstone_s: Annotated[float, Field(ge=0, le=LONGEST_S)] = 7 * 24 * 3600
    #: An answer that ended less than this ago is never dropped to free storage.
    retention_min_s: Annotated[float, Field(ge=0, le=LONGEST_S)] = 600
    #: Port of a worker's metrics, on ``host``; 0 = none.
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    #: Time for a process that stops to finish its streams.
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 25
    #: A stream that no worker claims for this long is ended.
    queue_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 300
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    # --- the gateway
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    #: Request bodies of each process that are read or wait to be stored; further ones wait unread.
    body_memory_bytes: Annotated[int, Field(ge=2048)] = 256 * 1024 * 1024
    #: Size of a request together with the earlier turns that it refers to by id.
    max_conversation_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024

    #: Origins of pages that may call the gateway from a browser, such as https://chat.example.com. ``*`` allows all,
    #: without credentials. Origins of extensions and applications are possible too: chrome-extension://abcdef.
    cors_origins: Origins = ()
    #: Addresses or networks of reverse proxies. X-Forwarded-For, -Proto and -Host of other peers are ignored.
    trusted_proxies: Networks = ()
    #: Time for a request's head, and then for its body, to arrive completely; also the longest wait of a body for
    #: memory.
    request_deadline_s: Annotated[float, Field(ge=0.1, le=3600)] = 30

    # --- the worker
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 1000
    #: Time that a worker collects events of many streams into one write: per stream it holds, and at most.
    #: docs/performance.md has the curve.
    tick_per_stream_s: Annotated[float, Field(ge=0, le=0.1)] = 30e-6
    max_tick_s: Annotated[float, Field(ge=0, le=1)] = 0.01
    demo_tokens_per_s: Annotated[float, Field(gt=0)] = 30
    #: Depth to which values of a JSON answer are sent as they complete; 1 = only the members of the whole.
    json_depth: Annotated[int, Field(ge=1, le=16)] = 2

    # --- timeouts, retries and fallbacks of providers
    provider_connect_timeout_s: Seconds = 5
    first_token_timeout_s: Seconds = 60
    between_tokens_timeout_s: Seconds = 60
    #: Silence after a finish reason that ends an answer whose end marker does not come.
    end_grace_s: Seconds = 2
    total_deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 1800
    #: Timeouts of a provider or model, as JSON: {"openai/gpt-5": {"first_token_s": 300}, "ollama": {"connect_s": 1}}.
    model_timeouts: Json[dict[str, TimeoutChanges]] = Field(default_factory=dict)
    #: Retries of the same model before the first token, after a retryable failure.
    provider_retries: Annotated[int, Field(ge=0, le=10)] = 2
    #: Longest Retry-After of a provider that is still retried.
    retry_longest_wait_s: Annotated[float, Field(ge=0, le=600)] = 20
    #: Fallback models, as JSON: {"openai/gpt-5": ["anthropic/claude"], "ollama": ["openai/gpt-5"]}. A request that
    #: has ``fallbacks``, even an empty list, does not get these.
    fallbacks: Json[dict[str, Annotated[list[str], Field(max_length=8)]]] = Field(default_factory=dict)
    #: Consecutive failures that open a target's circuit breaker, for all workers, and how long it stays open.
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    breaker_open_s: Annotated[float, Field(gt=0, le=3600)] = 30
    #: Handling of ``provider/model`` that is not in the provider's own list: sent to the provider, or refused.
    unknown_models: Literal["try", "refuse"] = "try"
    #: Models to offer instead of the provider's own list, for example because it has none. No others are tried.
    openai_models: Names
    anthropic_models: Names
    ollama_models: Names

    # --- providers, under the names their SDKs use
    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    openai_base_url: BaseUrl | None = Field(default=None, validation_alias="OPENAI_BASE_URL")
    anthropic_api_key: SecretStr | None = Field(default=None, validation_alias="ANTHROPIC_API_KEY")
    anthropic_base_url: BaseUrl | None = Field(default=None, validation_alias="ANTHROPIC_BASE_URL")
    ollama_api_key: SecretStr | None = Field(default=None, validation_alias="OLLAMA_API_KEY")
    ollama_host: ServerAddress | None = Field(default=None, validation_alias="OLLAMA_HOST")

    @property
    def general_timeouts(self) -> Timeouts:
        return Timeouts(
            connect_s=self.provider_connect_timeout_s,
            first_token_s=self.first_token_timeout_s,
            between_tokens_s=self.between_tokens_timeout_s,
            total_s=self.total_deadline_s,
            end_grace_s=self.end_grace_s,
        )

    def changed_timeouts(self, base: Timeouts, provider: str, model: str) -> Timeouts:
        """Return the timeouts of one model: ``base`` with the changes for its provider, and then its own."""
        for name in (provider, f"{provider}/{model}"):
            if changes := self.model_timeouts.get(name):
                base = replace(base, **changes.model_dump(exclude_none=True))
        return base

    def tick_s(self, streams: int) -> float:
        """Return the collecting time of a worker that holds so many streams."""
        return min(self.max_tick_s, streams * self.tick_per_stream_s)

    @property
    def unended_s(self) -> float:
        """Lifetime of a waiting or running stream after its last write.

        It is the retention, but at least the time in which the sweep ends a stream that no worker claims.
        """
        return max(self.retention_s, self.queue_timeout_s + 2 * max(30, self.lease_s))

    @property
    def has_traces(self) -> bool:
        return not self.otel_sdk_disabled and bool(self.otlp_endpoint or self.otlp_traces_endpoint)

    @property
    def limits(self) -> Limits:
        """Limits of a principal without limits of its own."""
        return Limits(**{name: getattr(self, name) for name in LIMIT_NAMES})

    @property
    def most_connections(self) -> int:
        """Limit of live connections of each principal; 0 = unlimited. Without authentication, all callers are one
        principal."""
        return self.connections if self.connections is not None else DEFAULT_CONNECTIONS * bool(self.authentication)

    @property
    def authentication(self) -> frozenset[str]:
        """Accepted kinds of credentials; empty if authentication is disabled."""
        return frozenset(self.auth) - {"none"}

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, object]) -> dict[str, object]:
        return {name: split_list(value) if _is_list(name) else value for name, value in values.items()}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if conflicts := [*self._size_conflicts(), *self._authentication_conflicts(), *self._budget_conflicts()]:
            raise ConflictsFound(conflicts)
        return self

    def _size_conflicts(self) -> list[Conflict]:
        conflicts = []
        for small, large in (("WINDOW", "CAP"), ("MAX_EVENT_BYTES", "MAX_STREAM_BYTES")):
            value, limit = getattr(self, small.lower()), getattr(self, large.lower())
            if value > limit:
                problem = f"{value} exceeds {PREFIX}{large} ({limit})"
                message = f"{PREFIX}{small}: {problem}; lower it or raise {PREFIX}{large}"
                conflicts.append(Conflict(frozenset({small.lower(), large.lower()}), message))
        if 2 * self.max_body_bytes > self.body_memory_bytes:
            problem = f"{self.max_body_bytes} exceeds half of {PREFIX}BODY_MEMORY_BYTES ({self.body_memory_bytes})"
            message = f"{PREFIX}MAX_BODY_BYTES: {problem}; lower it or raise {PREFIX}BODY_MEMORY_BYTES"
            conflicts.append(Conflict(frozenset({"max_body_bytes", "body_memory_bytes"}), message))
        return conflicts

    def _authentication_conflicts(self) -> list[Conflict]:
        conflicts = []
        if "none" in self.auth and len(self.auth) > 1:
            message = "HEADRACE_AUTH: none excludes other methods; remove it or the others"
            conflicts.append(Conflict(frozenset({"auth"}), message))
        if "jwt" not in self.auth:
            return conflicts
        sources = ("jwt_secret", "jwt_public_key", "jwt_jwks_url")
        names = ", ".join(PREFIX + source.upper() for source in sources)
        if (count := sum(getattr(self, source) is not None for source in sources)) != 1:
            message = f"HEADRACE_AUTH: jwt needs one source of keys, not {count}; set one of {names}"
            conflicts.append(Conflict(frozenset({"auth", *sources}), message))
        if not self.jwt_audience:
            message = "HEADRACE_JWT_AUDIENCE: not set, so tokens for other services would be accepted; set it for jwt"
            conflicts.append(Conflict(frozenset({"auth", "jwt_audience"}), message))
        return conflicts

    def _budget_conflicts(self) -> list[Conflict]:
        try:
            check_currency(self.budgets)
        except ValueError as error:
            message = f"{PREFIX}BUDGET_MONTH: {error}"
            return [Conflict(frozenset({"budget_day", "budget_month"}), message)]
        return []


def _is_list(field: str) -> bool:
    others = {"auth", "cors_origins", "content_keys", "denied_fields", "trusted_proxies"}
    others |= {"webhook_hosts", "webhook_secret"}
    return (field.endswith("_models") and field != "unknown_models") or field in others
