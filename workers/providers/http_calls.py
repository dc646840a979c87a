"""Code shared by the network providers: client options, the mapping of failures, and the list of models."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

import httpx2
import msgspec

from shared.errors import ProviderError
from shared.setting_types import Timeouts
from workers.providers.base import Finished, IgnoredFields, ModelList
from workers.providers.endpoint import Endpoint
from workers.providers.entra import EntraTokens
from workers.providers.error_codes import CONTEXT_LENGTH_EXCEEDED
from workers.providers.errors import Upstream, provider_error, provider_failure
from workers.providers.framing import MAX_PIECE_BYTES
from workers.providers.model_dates import seconds_of
from workers.providers.redirects import check_response
from workers.providers.refused_fields import AdaptedRequest
from workers.providers.tracebacks import forget_frames

#: Timeout for a free connection of our own pool, which is large enough that nothing waits.
_POOL_TIMEOUT_S: Final = 5.0
LIST_TIMEOUT_S: Final = 3.0
_PROBE_TIMEOUT_S: Final = 10.0
_MOST_MODELS: Final = 10_000
#: Longest name of a model that a request may have.
_LONGEST_MODEL: Final = 180
#: Connections beyond one per stream, for lists of models and for sockets that are still closing.
SPARE_CONNECTIONS: Final = 16

Catch = tuple[type[Exception], ...]
#: SDKs leak raw socket errors, and they build their models without validation, so that an answer of the wrong shape
#: shows as any of the other errors; endlessly nested JSON shows as the last.
NETWORK_ERRORS: Final[Catch] = (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


class ProviderCall:
    """Context manager around one request and its answer.

    It turns exceptions in ``catch`` into ProviderError, without their cause: that may echo prompt and key. Once
    ``finished`` is set the answer is complete, and errors in the rest of the response are ignored. After
    ``has_output`` is set, no refusal of a field is repeated in another form.
    """

    def __init__(self, upstream: Upstream, model: str, catch: Catch, adapted: AdaptedRequest | None = None) -> None:
        self.started = False
        self.has_output = False
        self.finished: Finished | None = None
        self.is_repeated = False
        self._upstream = upstream
        self._model = model
        self._catch = catch
        self._adapted = adapted

    @property
    def provider(self) -> str:
        return self._upstream.name

    def incomplete(self, *, is_protocol: bool) -> ProviderError:
        """Return the error of an answer that ended without a finish reason. ``is_protocol``: the response is in the
        provider's format."""
        code = "upstream_truncated" if is_protocol else "provider_protocol"
        detail = f"{self.provider} at {self._upstream.host} ended its answer without a finish reason"
        return provider_failure(code, self.provider, model=self._model, detail=detail)

    def cannot_continue(self, cause: str) -> ProviderError:
        """Return the error of a stored answer whose rest the provider does not send."""
        detail = f"{self.provider} at {self._upstream.host} does not continue its stored answer ({cause})"
        return provider_failure("upstream_truncated", self.provider, model=self._model, detail=detail)

    def start(self) -> IgnoredFields | None:
        """Note that the server answers the request. Returns the client's fields that have no effect, if any."""
        self.started = True
        if self._adapted is None:
            return None
        self._adapted.accepted()
        return IgnoredFields(self._adapted.ignored) if self._adapted.ignored else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, self._catch):
            return False
        if self.finished is None:
            failure = provider_error(error, self._upstream, model=self._model, started=self.started)
            self.is_repeated = self._can_repeat(error, failure)
            if self._adapted is not None and self._adapted.error is not None:
                failure = self._adapted.error
            if not self.is_repeated:
                forget_frames(error)
                try:
                    raise failure from None
                finally:
                    del failure, error, traceback  # or this frame would hold them, and they hold the frame
        return True

    def _can_repeat(self, error: Exception, failure: ProviderError) -> bool:
        """Return True if the provider rejected a field and the request has another form now."""
        if self._adapted is None or self.has_output or failure.code != "provider_rejected":
            return False
        is_too_long = failure.provider_code == CONTEXT_LENGTH_EXCEEDED
        return getattr(error, "status_code", 400) in {400, 422} and not is_too_long and self._adapted.refuse(error)


def calls_of(upstream: Upstream, adapted: AdaptedRequest, catch: Catch) -> Iterator[ProviderCall]:
    """Yield a call, and another one whenever the server refuses a field and the request has another form now."""
    call: ProviderCall | None = None
    while call is None or call.is_repeated:
        call = ProviderCall(upstream, adapted.model, catch, adapted)
        yield call


def timeout_of(timeouts: Timeouts) -> httpx2.Timeout:
    """Return the timeouts before the answer. ``workers/providers/idle_timeout.py`` applies those within it."""
    return httpx2.Timeout(None, connect=timeouts.connect_s, pool=_POOL_TIMEOUT_S)


def sdk_options(endpoint: Endpoint, http_client: Callable[..., object]) -> dict[str, Any]:
    """Return the arguments that the SDKs' clients share, except the key. ``http_client``: the SDK's own class."""
    timeout = timeout_of(endpoint.timeouts())
    limits = httpx2.Limits(
        max_connections=endpoint.connections + SPARE_CONNECTIONS, max_keepalive_connections=endpoint.connections
    )
    hooks: dict[str, list[Callable[..., Awaitable[None]]]] = {"response": [check_response]}
    if endpoint.entry.auth == "entra":
        hooks["request"] = [EntraTokens().authorize]
    return {
        "max_retries": 0,
        "default_headers": dict(endpoint.entry.headers),
        # Set twice: if the HTTP client's timeout equals its default, the SDK uses its own 600 s.
        "timeout": timeout,
        "http_client": http_client(timeout=timeout, limits=limits, event_hooks=hooks),
    }


def check_type(headers: Mapping[str, str]) -> None:
    """Raise ValueError for a web page, which a proxy sends: it would look like a truncated answer."""
    if headers.get("content-type", "").startswith("text/html"):
        raise ValueError("not a stream")


async def list_models(
    configured: tuple[str, ...], upstream: Upstream, fetch: Callable[[], Awaitable[Mapping[str, int]]], catch: Catch
) -> ModelList:
    """Return the ``configured`` models, else the provider's own list, else an open list."""
    if configured:
        return ModelList(configured, closed=True)
    dates, problem = dict[str, int](), ""
    try:
        with ProviderCall(upstream, "", catch):
            async with asyncio.timeout(LIST_TIMEOUT_S):
                dates.update(await fetch())
    except ProviderError as error:
        problem = error.code
    # Gateways read the list every few seconds.
    usable = (name for name in dates if name.isprintable() and 0 < len(name) <= _LONGEST_MODEL)
    models = tuple(islice(usable, _MOST_MODELS))
    created = {name: dates[name] for name in models if dates[name]}
    return ModelList(models, open=not models, created=created, problem=problem)


async def probe_models(
    upstream: Upstream, fetch: Callable[[], Awaitable[Mapping[str, int]]], catch: Catch
) -> tuple[str, ...]:
    """Return the provider's own list. Raises :class:`ProviderError`."""
    with ProviderCall(upstream, "", catch):
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            return tuple(await fetch())
    raise AssertionError("unreachable: a failed call raises")


async def read_json(body: AsyncIterable[bytes]) -> object:
    """Return the JSON value of a whole response. Raises ValueError if it is invalid or too large."""
    whole = bytearray()
    async for piece in body:
        whole += piece
        if len(whole) > MAX_PIECE_BYTES:
            raise ValueError("the response is too large")
    value: object = msgspec.json.decode(whole)
    return value


def dated_models(listed: object) -> dict[str, int]:
    """Return id and date (Unix seconds, 0 if unknown) of each model in a list, as OpenAI and Anthropic send it.
    Raises ValueError for anything else."""
    models = msgspec.convert(listed, _Models).data
    return {model.id: seconds_of(model.created) or seconds_of(model.created_at) for model in models}


class _Model(msgspec.Struct):
    id: str
    created: Any = None
    created_at: Any = None


class _Models(msgspec.Struct):
    data: list[_Model]
