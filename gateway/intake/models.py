"""Resolves a model name to a provider and a model that the workers offer."""

import logging
from collections.abc import Mapping, Sequence

from gateway.cache import ExpiringCache
from shared.broker.catalog import Catalog, ProviderModels, read_catalog
from shared.broker.client import Client
from shared.errors import InvalidRequest, ModelNotAllowed, NoModels, UnknownModel
from shared.model_patterns import ModelPatterns
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

    async def listed(self, allowed: ModelPatterns | None) -> list[tuple[str, str]]:
        """List the allowed (provider, model). A model may be a pattern, for a provider that has no list. Raises
        :class:`NoModels`."""
        return [
            (provider, model)
            for provider, offer in (await self._required_catalog()).items()
            for model in _names(provider, offer, allowed)
        ]

    async def resolve(self, request: ChatRequest, allowed: ModelPatterns | None) -> ChatRequest:
        """Return the request with ``provider`` set, ``model`` as that provider's own name, and ``fallbacks`` as
        ``provider/model``: the request's, else those of the settings for this model. ``provider/model`` and a bare
        model that only one provider offers are accepted. ``allowed``: models that the credentials allow; None means
        all. Raises :class:`UnknownModel`, :class:`ModelNotAllowed`, :class:`NoModels` and, for a fallback,
        :class:`InvalidRequest`."""
        catalog = await self._required_catalog()
        provider, model = _find_allowed(catalog, allowed, request.model, request.provider)
        resolved = {"provider": provider, "model": model}
        if request.fallbacks is not None:
            fallbacks = [_fallback(catalog, allowed, at, name) for at, name in enumerate(request.fallbacks)]
        else:
            fallbacks = self._configured_fallbacks(catalog, allowed, provider, f"{provider}/{model}")
        return request.model_copy(update={**resolved, "fallbacks": fallbacks or None})

    async def find(self, name: str, allowed: ModelPatterns | None) -> tuple[str, str]:
        """Return provider and model of one name. Raises :class:`UnknownModel`, also for a model that is not allowed,
        and :class:`NoModels`."""
        try:
            return _find_allowed(await self._required_catalog(), allowed, name)
        except ModelNotAllowed as error:
            raise UnknownModel(error.message) from None

    async def _required_catalog(self) -> Catalog:
        if catalog := await self.catalog():
            return catalog
        raise NoModels

    def _configured_fallbacks(
        self, catalog: Catalog, allowed: ModelPatterns | None, provider: str, model: str
    ) -> list[str]:
        """Return the fallbacks that are on offer now and allowed: the others must not refuse a request."""
        found = []
        for name in self._fallbacks.get(model) or self._fallbacks.get(provider, ()):
            try:
                found.append("/".join(_find_allowed(catalog, allowed, name)))
            except ModelNotAllowed:
                continue
            except UnknownModel as error:
                fields = {"setting": "HEADRACE_FALLBACKS", "model": model, "detail": error.message}
                logger.warning("fallback unavailable", extra=fields)
        return found


def _fallback(catalog: Catalog, allowed: ModelPatterns | None, at: int, name: str) -> str:
    try:
        return "/".join(_find_allowed(catalog, allowed, name))
    except ModelNotAllowed as error:
        raise ModelNotAllowed(f"fallbacks.{at}: {error.message}") from None
    except UnknownModel as error:
        raise InvalidRequest(f"fallbacks.{at}: {error.message}") from None


def _names(provider: str, offer: ProviderModels, allowed: ModelPatterns | None) -> list[str]:
    """Return the provider's allowed models, and the patterns of those that it has no list of."""
    if allowed is None:
        return [*offer.models, *(["*"] if offer.open else [])]
    named = [model for model in offer.models if allowed.allow(provider, model)]
    return list(dict.fromkeys([*named, *(allowed.of_provider(provider) if offer.open else [])]))


def _find_allowed(
    catalog: Catalog, allowed: ModelPatterns | None, name: str, named: str | None = None
) -> tuple[str, str]:
    """Return (provider, model), as :func:`_find`. A bare model that several providers offer is found if only one of
    them is allowed. Raises :class:`ModelNotAllowed`, and :class:`UnknownModel`, which lists allowed models only."""
    if allowed is None:
        return _find(catalog, name, named)
    try:
        provider, model = _find(catalog, name, named)
    except UnknownModel:
        provider, model = _find(_allowed_part(catalog, allowed), name, named)
    if not allowed.allow(provider, model):
        raise ModelNotAllowed(f"model: {name!r} is not allowed for these credentials; see GET /v1/models")
    return provider, model


def _allowed_part(catalog: Catalog, allowed: ModelPatterns) -> Catalog:
    part = {}
    for provider, offer in catalog.items():
        models = tuple(model for model in offer.models if allowed.allow(provider, model))
        is_open = offer.open and bool(allowed.of_provider(provider))
        if models or is_open:
            part[provider] = ProviderModels(models, is_open)
    return part


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
