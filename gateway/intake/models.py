"""Resolves a model name to a provider and a model that the workers offer."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.cache import ExpiringCache
from gateway.intake.model_names import ModelNames
from gateway.intake.provider_models import check_provider_models
from shared.broker.catalog import Catalog, read_catalog
from shared.broker.client import Client
from shared.errors import InvalidRequest, ModelNotAllowed, NoModels, UnknownModel
from shared.model_patterns import ModelPatterns
from shared.schemas import ChatRequest

logger = logging.getLogger(__name__)

_FRESH_S = 2.0


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model on offer. ``created``: Unix seconds."""

    provider: str
    model: str
    created: int


class Models:
    """The model catalog, read at most every two seconds. ``fallbacks``: from the settings, of ``provider/model``.
    ``tries_unknown``: see :class:`ModelNames`."""

    def __init__(self, client: Client, fallbacks: Mapping[str, Sequence[str]], *, tries_unknown: bool) -> None:
        self._client = client
        self._fallbacks = fallbacks
        self._tries_unknown = tries_unknown
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

    async def listed(self, allowed: ModelPatterns | None) -> list[ListedModel]:
        """List the allowed models. A name may be a pattern, for a provider that has no list. Raises
        :class:`NoModels`."""
        names = await self._names(allowed)
        return [
            ListedModel(provider, model, offer.created_at(model))
            for provider, offer in names.catalog.items()
            for model in names.listed_of(provider)
        ]

    async def resolve(self, request: ChatRequest, allowed: ModelPatterns | None) -> ChatRequest:
        """Return the request with ``provider`` set, ``model`` as that provider's own name, and ``fallbacks`` as
        ``provider/model``: the request's, else those of the settings for this model. ``provider/model`` and a bare
        model that only one provider offers are accepted. ``allowed``: models that the credentials allow; None means
        all. Raises :class:`UnknownModel`, :class:`ModelNotAllowed`, :class:`NoModels` and, for a fallback,
        :class:`InvalidRequest`."""
        names = await self._names(allowed)
        provider, model = names.find(request.model, request.provider)
        check_provider_models(request, allowed)
        resolved = {"provider": provider, "model": model}
        if request.fallbacks is not None:
            fallbacks = [_fallback(names, at, name) for at, name in enumerate(request.fallbacks)]
        else:
            fallbacks = self._configured_fallbacks(names, provider, f"{provider}/{model}")
        return request.model_copy(update={**resolved, "fallbacks": fallbacks or None})

    async def find(self, name: str, allowed: ModelPatterns | None) -> ListedModel:
        """Return the listed model of one name. Raises :class:`UnknownModel`, also for a model that is not allowed,
        and :class:`NoModels`."""
        names = await self._names(allowed, tries_unknown=False)
        try:
            provider, model = names.find(name)
        except ModelNotAllowed as error:
            raise UnknownModel(error.message) from None
        return ListedModel(provider, model, names.catalog[provider].created_at(model))

    async def counts_tokens(self, provider: str) -> bool:
        """Return True if the provider counts the tokens of a request without answering it."""
        offer = (await self.catalog()).get(provider)
        return offer is not None and offer.counts_tokens

    async def _names(self, allowed: ModelPatterns | None, *, tries_unknown: bool = True) -> ModelNames:
        if catalog := await self.catalog():
            return ModelNames(catalog, allowed, tries_unknown and self._tries_unknown)
        raise NoModels

    def _configured_fallbacks(self, names: ModelNames, provider: str, model: str) -> list[str]:
        """Return the fallbacks that are on offer now and allowed: the others must not refuse a request."""
        found = []
        for name in self._fallbacks.get(model) or self._fallbacks.get(provider, ()):
            try:
                found.append("/".join(names.find(name)))
            except ModelNotAllowed:
                continue
            except UnknownModel as error:
                fields = {"setting": "HEADRACE_FALLBACKS", "model": model, "detail": error.message}
                logger.warning("fallback unavailable", extra=fields)
        return found


def _fallback(names: ModelNames, at: int, name: str) -> str:
    try:
        return "/".join(names.find(name))
    except ModelNotAllowed as error:
        raise ModelNotAllowed(f"fallbacks.{at}: {error.message}") from None
    except UnknownModel as error:
        raise InvalidRequest(f"fallbacks.{at}: {error.message}") from None
