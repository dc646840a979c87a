"""Which provider and model a request means, out of what the workers offer."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from shared.broker.catalog import Catalog, read_catalog
from shared.broker.client import Client
from shared.errors import InvalidRequest, NoModels, UnknownModel
from shared.schemas import ChatRequest

logger = logging.getLogger(__name__)

_FRESH_S = 2.0
_MOST_NAMES = 20
_LONGEST_NAME = 180  # with its provider before it, it still is a name


class Models:
    """The catalog, asked for at most every two seconds. ``fallbacks``: by setting, of ``provider/model``."""

    def __init__(self, client: Client, fallbacks: Mapping[str, Sequence[str]]) -> None:
        self._client = client
        self._fallbacks = fallbacks
        self._catalog: Catalog = {}
        self._read_at = float("-inf")

    async def catalog(self) -> Catalog:
        """Raises :class:`BrokerUnavailable`."""
        now = asyncio.get_running_loop().time()
        if now - self._read_at > _FRESH_S or not self._catalog:
            # A Redis that was emptied is told again within seconds; what was on offer still is.
            self._catalog = await read_catalog(self._client) or self._catalog
            self._read_at = now
        return self._catalog

    async def resolve(self, request: ChatRequest) -> ChatRequest:
        """The request with ``provider`` set, ``model`` by that provider's own name, and ``fallbacks`` as
        ``provider/model``: the request's, else those that the settings have for this model. ``provider/model`` and a
        bare model that only one provider has are understood. Raises :class:`UnknownModel`, :class:`NoModels` and, for
        a fallback, :class:`InvalidRequest`."""
        catalog = await self._offered()
        provider, model = _find(catalog, request.model, request.provider)
        asked = {"provider": provider, "model": model}
        if request.fallbacks is not None:
            fallbacks = [_fallback(catalog, at, name) for at, name in enumerate(request.fallbacks)]
        else:
            fallbacks = self._by_setting(catalog, provider, f"{provider}/{model}")
        return request.model_copy(update={**asked, "fallbacks": fallbacks or None})

    async def find(self, name: str) -> tuple[str, str]:
        """Provider and model of one name. Raises :class:`UnknownModel` and :class:`NoModels`."""
        return _find(await self._offered(), name)

    async def _offered(self) -> Catalog:
        if catalog := await self.catalog():
            return catalog
        raise NoModels

    def _by_setting(self, catalog: Catalog, provider: str, model: str) -> list[str]:
        """Those that are on offer now: what no worker has at the moment is no reason to refuse a request."""
        found = []
        for name in self._fallbacks.get(model) or self._fallbacks.get(provider, ()):
            try:
                found.append("/".join(_find(catalog, name)))
            except UnknownModel as error:
                logger.warning("HEADRACE_FALLBACKS of %s: %s", model, error.message)
        return found


def _fallback(catalog: Catalog, at: int, name: str) -> str:
    try:
        return "/".join(_find(catalog, name))
    except UnknownModel as error:
        raise InvalidRequest(f"fallbacks.{at}: {error.message}") from None


def _find(catalog: Catalog, name: str, said: str | None = None) -> tuple[str, str]:
    """(provider, model). ``said``: the provider, where it was named apart. Raises :class:`UnknownModel`."""
    provider, model = (said, name.removeprefix(f"{said}/")) if said is not None else _split(catalog, name)
    if not model or len(model) > _LONGEST_NAME:
        raise UnknownModel(f"model: the name of a model has 1 to {_LONGEST_NAME} characters")
    shelf = catalog.get(provider)
    if shelf is None:
        raise UnknownModel(f"provider: no provider {provider!r}; there is {', '.join(catalog)}")
    if not shelf.has(model):
        known = ", ".join(shelf.models[:_MOST_NAMES])
        raise UnknownModel(f"model: {provider} has no model {model!r}; it has {known}")
    return provider, model


def _split(catalog: Catalog, name: str) -> tuple[str, str]:
    prefix, slash, rest = name.partition("/")
    if slash and prefix in catalog:
        return prefix, rest
    having = [provider for provider, shelf in catalog.items() if name in shelf.models]
    having = having or [provider for provider, shelf in catalog.items() if shelf.open]
    if len(having) == 1:
        return having[0], name
    if having:
        raise UnknownModel(f"model: {name!r} is offered by {', '.join(having)}: say which as provider")
    known = [f"{provider}/{model}" for provider, shelf in catalog.items() for model in shelf.models]
    raise UnknownModel(f"model: no model {name!r}; there is {', '.join(known[:_MOST_NAMES])}")
