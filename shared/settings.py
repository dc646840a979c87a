"""All settings, read once from the environment at boot and frozen.

Ours carry the prefix ``HEADRACE_``; provider keys have the names their SDKs use. A wrong value, or a ``HEADRACE_``
name that nobody knows, stops the start with a message that says which and why. Durations end in ``_s``.
"""

import difflib
import json
import os
import re
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Annotated, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.broker.connection_pool import check_url
from shared.rate_limits import LIMIT_NAMES, Limits

PREFIX = "HEADRACE_"
#: Set by the supervisor for its children, or for `headrace chat`; not settings of a process.
SUPERVISOR_NAMES = frozenset({"HEADRACE_DATA_DIR", "HEADRACE_API_KEY"})


class SettingsError(Exception):
    """The environment cannot be used; the message lists every problem, one per line."""


def _names(value: object) -> object:
    return tuple(n for n in (part.strip() for part in value.split(",")) if n) if isinstance(value, str) else value


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


def _public_key(text: str) -> str:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415  # slow to load

    pem = text.replace("\\n", "\n")  # as an environment variable has it
    try:
        load_pem_public_key(pem.encode())
    except ValueError:
        raise ValueError("not a public key in PEM") from None
    return pem


def _content_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for key in keys:
        if not re.fullmatch("[0-9a-fA-F]{64}", key.get_secret_value()):
            raise ValueError("a key is 64 hexadecimal digits: make one with openssl rand -hex 32")
    return keys


def _jwks_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        raise ValueError("must begin with https://, or keys could be forged on the way")
    return url


def _server(url: str) -> str:
    """As Ollama has it, also without a scheme."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        usable = bool(parts.hostname) and parts.scheme in {"", "http", "https"} and parts.port != 0
    except ValueError:  # its words may have a piece of a password
        usable = False
    if not usable:
        raise ValueError("is no address: write it as http://127.0.0.1:11434")
    return url


def _base_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return _server(url)


def _origin(text: str) -> str:
    parts = urlsplit(text)
    port = parts.port  # raises ValueError where it is none
    if parts.scheme not in {"http", "https"} or not parts.hostname or text != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(f"{text!r} is no origin: write it as https://chat.example.com, without a path")
    if (
        text != text.lower()
        or not text.isascii()
        or set(text) & set("@*\\ ")
        or text.endswith(":")
        or port == _USUAL_PORTS[parts.scheme]
    ):
        raise ValueError(f"{text!r} is not as browsers send it: lower case, no user, no wildcard, no usual port")
    return text


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    if "*" in origins:
        if len(origins) > 1:
            raise ValueError("* goes with nothing else")
        return origins
    return tuple(_origin(text) for text in origins)


def _networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        try:
            ip_network(text)
        except ValueError:
            raise ValueError(f"{text!r} is no address and no network: write it as 10.0.0.5 or 10.0.0.0/24") from None
    return texts


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_USUAL_PORTS: Final = {"http": 80, "https": 443}
#: Ten years; beyond some thousand there is no date to be told.
_LONGEST_S: Final = 10 * 365 * 86_400
Names = Annotated[tuple[str, ...], NoDecode, Field(default=())]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
T = TypeVar("T")
Json = Annotated[T, NoDecode, BeforeValidator(_json)]


Seconds = Annotated[float, Field(gt=0, le=86_400)]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """For how long a provider may keep us waiting: for a connection, for the first token, for the next, in all."""

    connect_s: float
    first_token_s: float
    between_tokens_s: float
    total_s: float


class TimeoutChanges(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    connect_s: Seconds | None = None
    first_token_s: Seconds | None = None
    between_tokens_s: Seconds | None = None
    total_s: Seconds | None = None


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, allow_inf_nan=False
    )

    # --- where things are
    redis_url: Annotated[str, AfterValidator(check_url)] = "redis://127.0.0.1:6379/0"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    #: Signs tickets; every gateway needs the same. ``headrace up`` keeps one in its data dir.
    secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    #: Seal what Redis keeps of conversations: 64 hexadecimal digits each, the first for what is new, the others for
    #: what is older. Gateways and workers need the same.
    content_keys: Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(_content_keys)] = ()
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    #: ``json`` for machines, ``text`` for people; where nothing is said, text on a terminal. docs/observability.md
    log_format: Literal["json", "text"] | None = None
    #: Where traces go; nowhere if neither is set. OpenTelemetry reads these and its other variables by itself.
    otlp_endpoint: str | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    otlp_traces_endpoint: str | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    otel_sdk_disabled: bool = Field(default=False, validation_alias="OTEL_SDK_DISABLED")

    # --- who may come in (docs/security.md)
    #: ``keys``, ``jwt``, both, or ``none``. Nothing said is none, and then only on loopback.
    auth: Annotated[tuple[Literal["none", "keys", "jwt"], ...], NoDecode] = ()
    #: One of these three for ``jwt``: HS256 by a secret, RS256 and ES256 by a public key in PEM, or by a JWKS.
    jwt_secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    jwt_public_key: Annotated[str, AfterValidator(_public_key)] | None = None
    jwt_jwks_url: Annotated[str, AfterValidator(_jwks_url)] | None = None
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    jwt_leeway_s: Annotated[float, Field(ge=0, le=300)] = 10
    #: Of the ticket in a ``stream_url``; as long as the stream can live where nothing is said.
    ticket_life_s: Annotated[float, Field(ge=1, le=_LONGEST_S)] | None = None

    # --- how much (docs/limits.md); 0 for no limit. Of each principal, unless its API key says otherwise.
    requests_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    tokens_per_minute: Annotated[int, Field(ge=0, le=10**12)] = 0
    tokens_per_day: Annotated[int, Field(ge=0, le=10**12)] = 0
    concurrent_streams: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    #: Of an answer to a request without ``max_tokens``, until it is known how many there were.
    tokens_assumed: Annotated[int, Field(ge=0, le=10_000_000)] = 1024
    #: So many streams may wait for a worker; further requests are refused with 503.
    queue_depth: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    #: How many streams a provider may have at once, over all workers, as JSON: {"openai": 200, "ollama": 4}.
    provider_streams: Json[dict[str, Annotated[int, Field(ge=1, le=1_000_000)]]] = Field(default_factory=dict)

    #: What ``POST /api/chat`` asks where its body has no ``model``: ``provider/model``.
    default_model: Annotated[str, Field(min_length=1, max_length=256)] | None = None

    # --- the stream (design: cap, window, lease)
    cap: Annotated[int, Field(ge=16, le=65_536)] = 1024
    window: Annotated[int, Field(ge=4, le=65_536)] = 256
    max_stream_bytes: Annotated[int, Field(ge=4096)] = 4 * 1024 * 1024
    #: A coalesced event is not made larger than this, so that window and cap bound bytes too.
    max_event_bytes: Annotated[int, Field(ge=256, le=1024 * 1024)] = 8192
    lease_s: Annotated[float, Field(ge=1, le=300)] = 10
    reader_lease_s: Annotated[float, Field(ge=1, le=300)] = 10
    grace_s: Annotated[float, Field(ge=0, le=86_400)] = 60
    retention_s: Annotated[float, Field(ge=1, le=_LONGEST_S)] = 24 * 3600
    tombstone_s: Annotated[float, Field(ge=0, le=_LONGEST_S)] = 7 * 24 * 3600
    #: Where a worker tells its metrics over HTTP, on the same host as a gateway's; 0 for nowhere.
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    #: How long a process that was told to leave may finish what it has.
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 25
    #: A stream that no worker takes for this long is ended.
    queue_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 300
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    # --- the gateway
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    heartbeat_s: Annotated[float, Field(gt=0, le=86_400)] = 15
    retry_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 1000
    #: A client that takes nothing for this long is cut; it can resume.
    write_deadline_s: Annotated[float, Field(ge=1, le=86_400)] = 30
    #: Per connection; small, so that a slow client is felt instead of buffered.
    send_buffer_bytes: Annotated[int, Field(ge=4096, le=2**30)] = 32 * 1024

    #: Pages of these origins may ask us from a browser: https://chat.example.com, exactly. ``*``: of any, without
    #: credentials.
    cors_origins: Annotated[tuple[str, ...], NoDecode, AfterValidator(_origins)] = ()
    #: Addresses or networks of reverse proxies, whose X-Forwarded-For and X-Forwarded-Proto are believed; of nobody
    #: else are they.
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, AfterValidator(_networks)] = ()
    #: A request's head, and then its body, is whole within this time, or is refused.
    request_deadline_s: Annotated[float, Field(ge=0.1, le=3600)] = 30

    # --- the worker
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 100
    #: How long a worker gathers events before it writes them, so that those of many streams go together: for each
    #: stream it holds, and at most. docs/performance.md has the curve.
    tick_per_stream_s: Annotated[float, Field(ge=0, le=0.1)] = 30e-6
    max_tick_s: Annotated[float, Field(ge=0, le=1)] = 0.01
    demo_tokens_per_s: Annotated[float, Field(gt=0)] = 30
    #: How deep within a JSON answer values are told as they become whole; 1 for the members of the whole.
    json_depth: Annotated[int, Field(ge=1, le=16)] = 2

    # --- patience with providers
    provider_connect_timeout_s: Seconds = 5
    first_token_timeout_s: Seconds = 60
    between_tokens_timeout_s: Seconds = 60
    total_deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 1800
    #: Others for some models, as JSON: {"openai/gpt-5": {"first_token_s": 300}, "ollama": {"connect_s": 1}}.
    model_timeouts: Json[dict[str, TimeoutChanges]] = Field(default_factory=dict)
    #: Further tries of the same model before the first token, if a failure may pass.
    provider_retries: Annotated[int, Field(ge=0, le=10)] = 2
    #: A provider that asks to be left for longer than this is not asked again.
    retry_longest_wait_s: Annotated[float, Field(ge=0, le=600)] = 20
    #: Models to ask instead, as JSON: {"openai/gpt-5": ["anthropic/claude"], "ollama": ["openai/gpt-5"]}; a request
    #: that names its own, or none, is not given these.
    fallbacks: Json[dict[str, Annotated[list[str], Field(max_length=8)]]] = Field(default_factory=dict)
    #: After so many failures in a row a provider is left alone for so long, by all workers.
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    breaker_open_s: Annotated[float, Field(gt=0, le=3600)] = 30
    #: What ``openai`` and ``anthropic`` offer where their servers have no list to ask for.
    openai_models: Names
    anthropic_models: Names
    ollama_models: Names

    # --- providers, under the names their SDKs use
    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    openai_base_url: BaseUrl | None = Field(default=None, validation_alias="OPENAI_BASE_URL")
    anthropic_api_key: SecretStr | None = Field(default=None, validation_alias="ANTHROPIC_API_KEY")
    anthropic_base_url: BaseUrl | None = Field(default=None, validation_alias="ANTHROPIC_BASE_URL")
    ollama_api_key: SecretStr | None = Field(default=None, validation_alias="OLLAMA_API_KEY")
    ollama_host: Annotated[str, AfterValidator(_server)] | None = Field(default=None, validation_alias="OLLAMA_HOST")

    def timeouts(self, provider: str, model: str = "") -> Timeouts:
        """Those of one model: what is said of it, else of its provider, else of all."""
        base = Timeouts(
            connect_s=self.provider_connect_timeout_s,
            first_token_s=self.first_token_timeout_s,
            between_tokens_s=self.between_tokens_timeout_s,
            total_s=self.total_deadline_s,
        )
        for name in (provider, f"{provider}/{model}"):
            if changes := self.model_timeouts.get(name):
                base = replace(base, **changes.model_dump(exclude_none=True))
        return base

    def tick_s(self, streams: int) -> float:
        return min(self.max_tick_s, streams * self.tick_per_stream_s)

    @property
    def unended_s(self) -> float:
        """For how long a stream that waits or runs is kept from the last word on it: for retention, and however short
        that is, until the sweep has ended what nobody took."""
        return max(self.retention_s, self.queue_timeout_s + 2 * max(30, self.lease_s))

    @property
    def has_traces(self) -> bool:
        return not self.otel_sdk_disabled and bool(self.otlp_endpoint or self.otlp_traces_endpoint)

    @property
    def limits(self) -> Limits:
        """Of a principal of whom nothing else is said."""
        return Limits(**{name: getattr(self, name) for name in LIMIT_NAMES})

    @property
    def authentication(self) -> frozenset[str]:
        """The ways to show who one is; empty where nobody is asked."""
        return frozenset(self.auth) - {"none"}

    @model_validator(mode="before")
    @classmethod
    def _comma_lists(cls, values: dict[str, object]) -> dict[str, object]:
        return {
            k: _names(v)
            if k.endswith("_models") or k in {"auth", "cors_origins", "content_keys", "trusted_proxies"}
            else v
            for k, v in values.items()
        }

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.window > self.cap:
            raise ValueError(f"WINDOW ({self.window}) must not exceed CAP ({self.cap})")
        if self.max_event_bytes > self.max_stream_bytes:
            raise ValueError("MAX_EVENT_BYTES must not exceed MAX_STREAM_BYTES")
        if "none" in self.auth and len(self.auth) > 1:
            raise ValueError("AUTH: none goes with nothing else")
        if "jwt" in self.auth:
            self._check_jwt()
        return self

    def _check_jwt(self) -> None:
        given = [key for key in (self.jwt_secret, self.jwt_public_key, self.jwt_jwks_url) if key is not None]
        if len(given) != 1:
            raise ValueError("AUTH has jwt: it needs one of JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS_URL")
        if not self.jwt_audience:
            raise ValueError("AUTH has jwt: it needs JWT_AUDIENCE, or tokens for others would be good here")


def check_exposure(settings: Settings) -> None:
    """Raises :class:`SettingsError` where everybody would be let in without anyone having said so."""
    if not settings.auth and not _is_loopback(settings.host):
        raise SettingsError(
            f"HEADRACE_HOST is {settings.host}, which others can reach, and HEADRACE_AUTH is not set: set it to keys,"
            " to jwt or to both, or to none if everybody may come in"
        )


def load_settings() -> Settings:
    """From the environment. Raises :class:`SettingsError`."""
    problems = [_unknown(name) for name in os.environ if _is_unknown(name)]
    try:
        settings = Settings()
    except ValidationError as error:
        problems += [f"{_variable(e['loc'])}: {e['msg']}" for e in error.errors(include_input=False)]
        raise SettingsError("\n".join(problems)) from None
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _variable(location: tuple[int | str, ...]) -> str:
    if not location:
        return "settings"
    name = str(location[0])
    return name if name.isupper() else PREFIX + name.upper()


def _known() -> set[str]:
    return {PREFIX + name.upper() for name in Settings.model_fields} | SUPERVISOR_NAMES


def _is_unknown(name: str) -> bool:
    return name.startswith(PREFIX) and name not in _known()


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, _known(), n=1)
    return f"{name}: no such setting" + (f"; did you mean {close[0]}?" if close else "")
