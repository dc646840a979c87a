"""Which provider and model a request means, out of what the workers offer."""

import asyncio

from shared.broker.catalog import Catalog, read_catalog
from shared.broker.client import Client
from shared.errors import NoModels, UnknownModel
from shared.schemas import ChatRequest

_FRESH_S = 2.0
_MOST_NAMES = 20


class Models:
    """The catalog, asked for at most every two seconds."""

    def __init__(self, client: Client) -> None:
        self._client = client
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
        """The request with ``provider`` set and ``model`` by that provider's own name. ``provider/model`` and a
        bare model that only one provider has are understood. Raises :class:`UnknownModel`, :class:`NoModels`."""
        catalog = await self.catalog()
        if not catalog:
            raise NoModels
        provider, model = self._split(catalog, request)
        shelf = catalog.get(provider)
        if shelf is None:
            raise UnknownModel(f"provider: no provider {provider!r}; there is {', '.join(catalog)}")
        if not shelf.has(model):
            known = ", ".join(shelf.models[:_MOST_NAMES])
            raise UnknownModel(f"model: {provider} has no model {model!r}; it has {known}")
        return request.model_copy(update={"provider": provider, "model": model})

    def _split(self, catalog: Catalog, request: ChatRequest) -> tuple[str, str]:
        if request.provider is not None:
            return request.provider, request.model.removeprefix(f"{request.provider}/")
        prefix, slash, rest = request.model.partition("/")
        if slash and prefix in catalog:
            return prefix, rest
        having = [name for name, shelf in catalog.items() if request.model in shelf.models]
        having = having or [name for name, shelf in catalog.items() if shelf.open]
        if len(having) == 1:
            return having[0], request.model
        if having:
            raise UnknownModel(f"model: {request.model!r} is offered by {', '.join(having)}: say which as provider")
        known = [f"{name}/{model}" for name, shelf in catalog.items() for model in shelf.models]
        raise UnknownModel(f"model: no model {request.model!r}; there is {', '.join(known[:_MOST_NAMES])}")
