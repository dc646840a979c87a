"""Resolves a model name to a provider and a model that the workers offer."""

import logging
from collections.abc import Mapping, Sequence

from gateway.cache import ExpiringCache
from shared.broker.catalog import Catalog, read_catalog
from shared.broker.client import Client
from shared.errors import InvalidRequest, NoModels, UnknownModel
from shared.schemas import ChatRequest

logger = logging.getLogger(__name__)

_FRESH_S = 2.0
_MOST_NAMES = 20
_LONGEST_NAME = 180  # with the provider as prefix, it is still a valid name


class Models:
    """The model catalog, read at most every two seconds. ``fallbacks``: from the settings, of ``provider/model``."""

    def __init__(self, client: Client, fallbacks: Mapping[str, Sequence[str]]) -> None:
        self._client = client
        self._fallbacks = fallbacks
        self._last: Catalog = {}
        self._catalogs: ExpiringCache[None, Catalog] = ExpiringCache(self._read, fresh_s=_FRESH_S)

    @property
    def were_seen(self) -> bool:
        """True once this process has seen a model."""
        return bool(self._last)

    async def catalog(self) -> Catalog:
        """Return the catalog. Raises :class:`BrokerUnavailable`."""
        catalog = await self._catalogs.get(None)
        if not catalog:
            self._catalogs.forget(None)  # a worker that is starting publishes its models at any moment
        return catalog

    async def _read(self, _: None) -> Catalog:
        """Read the catalog. A flushed Redis gets it again within seconds; until then, the last one stays valid."""
        self._last = await read_catalog(self._client) or self._last
        return self._last

    async def resolve(self, request: ChatRequest) -> ChatRequest:
        """Return the request with ``provider`` set, ``model`` as that provider's own name, and ``fallbacks`` as
        ``provider/model``: the request's, else those of the settings for this model. ``provider/model`` and a bare
        model that only one provider offers are accepted. Raises :class:`UnknownModel`, :class:`NoModels` and, for a
        fallback, :class:`InvalidRequest`."""
        catalog = await self._required_catalog()
        provider, model = _find(catalog, request.model, request.provider)
        resolved = {"provider": provider, "model": model}
        if request.fallbacks is not None:
            fallbacks = [_fallback(catalog, at, name) for at, name in enumerate(request.fallbacks)]
        else:
            fallbacks = self._configured_fallbacks(catalog, provider, f"{provider}/{model}")
        return request.model_copy(update={**resolved, "fallbacks": fallbacks or None})

    async def find(self, name: str) -> tuple[str, str]:
        """Return provider and model of one name. Raises :class:`UnknownModel` and :class:`NoModels`."""
        return _find(await self._required_catalog(), name)

    async def _required_catalog(self) -> Catalog:
        if catalog := await self.catalog():
            return catalog
        raise NoModels

    def _configured_fallbacks(self, catalog: Catalog, provider: str, model: str) -> list[str]:
        """Return the fallbacks on offer now: a fallback that no worker offers at the moment must not refuse a
        request."""
        found = []
        for name in self._fallbacks.get(model) or self._fallbacks.get(provider, ()):
            try:
                found.append("/".join(_find(catalog, name)))
            except UnknownModel as error:
                fields = {"setting": "HEADRACE_FALLBACKS", "model": model, "detail": error.message}
                logger.warning("fallback unavailable", extra=fields)
        return found


def _fallback(catalog: Catalog, at: int, name: str) -> str:
    try:
        return "/".join(_find(catalog, name))
    except UnknownModel as error:
        raise InvalidRequest(f"fallbacks.{at}: {error.message}") from None


def _find(catalog: Catalog, name: str, named: str | None = None) -> tuple[str, str]:
    """Return (provider, model). ``named``: the provider, if the request named it separately. Raises
    :class:`UnknownModel`."""
    provider, model = (named, name.removeprefix(f"{named}/")) if named is not None else _split(catalog, name)
    if not model or len(model) > _LONGEST_NAME:
        raise UnknownModel(f"model: must have 1 to {_LONGEST_NAME} characters")
    offer = catalog.get(provider)
    if offer is None:
        raise UnknownModel(f"provider: unknown provider {provider!r}; available: {', '.join(catalog)}")
    if not offer.has(model):
        available = ", ".join(offer.models[:_MOST_NAMES])
        raise UnknownModel(f"model: unknown model {model!r} of provider {provider}; available: {available}")
    return provider, model


def _split(catalog: Catalog, name: str) -> tuple[str, str]:
    prefix, slash, rest = name.partition("/")
    if slash and prefix in catalog:
        return prefix, rest
    offering = [provider for provider, offer in catalog.items() if name in offer.models]
    offering = offering or [provider for provider, offer in catalog.items() if offer.open]
    if len(offering) == 1:
        return offering[0], name
    if offering:
        raise UnknownModel(f"model: {name!r} is offered by {', '.join(offering)}; set provider to choose one")
    available = [f"{provider}/{model}" for provider, offer in catalog.items() for model in offer.models]
    raise UnknownModel(f"model: unknown model {name!r}; available: {', '.join(available[:_MOST_NAMES])}")
