"""Resolves a model name to a provider and a model that the workers offer."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from gateway.cache import ExpiringCache
from gateway.intake.model_names import ModelNames
from gateway.intake.provider_models import check_provider_models
from gateway.intake.routing_fields import routing_fields
from gateway.intake.targets import Targets, usable_targets
from shared.broker.catalog import Catalog, read_catalog
from shared.broker.client import Client
from shared.configuration.configuration import Configuration
from shared.configuration.current import CurrentConfiguration
from shared.configuration.entries import AliasEntry
from shared.errors import ModelNotAllowed, NoModels, UnknownModel
from shared.model_patterns import ModelPatterns
from shared.schemas import ChatRequest

_FRESH_S = 2.0
_RENEWED_S = 60.0


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model on offer. ``provider``: None for an alias. ``created``: Unix seconds."""

    provider: str | None
    model: str
    created: int

    @property
    def id(self) -> str:
        return self.model if self.provider is None else f"{self.provider}/{self.model}"


class Models:
    """The model catalog, at most two seconds old, with the aliases of the configuration. ``is_accepting``: whether a
    worker runs. Only then a model is called unknown, by a list read after the request came: a worker that starts may
    bring it, and a client does not repeat a request that is refused for good."""

    def __init__(
        self, client: Client, current: CurrentConfiguration, is_accepting: Callable[[], Awaitable[bool]]
    ) -> None:
        self._client = client
        self._is_accepting = is_accepting
        self._current = current
        self._tries_unknown = current.value.settings.unknown_models == "try"
        self._last: Catalog = {}
        self._catalogs: ExpiringCache[None, Catalog] = ExpiringCache(
            self._read, fresh_s=_FRESH_S, renewed_s=_RENEWED_S
        )
        current.follow(lambda _: self._catalogs.forget(None))  # new aliases need the models of their targets

    @property
    def _configuration(self) -> Configuration:
        return self._current.value

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
        listed = [
            ListedModel(provider, model, offer.created_at(model))
            for provider, offer in names.catalog.items()
            for model in names.listed_of(provider)
        ]
        return [*self._aliases(names), *listed]

    def _aliases(self, names: ModelNames) -> Iterator[ListedModel]:
        """Yield the aliases with at least one target on offer."""
        for name, alias in self._configuration.aliases.items():
            if targets := [target.target.partition("/") for target in usable_targets(alias, names)]:
                created = max(names.catalog[provider].created_at(model) for provider, _, model in targets)
                yield ListedModel(None, name, created)

    async def resolve(
        self, request: ChatRequest, allowed: ModelPatterns | None, chat_id: str | None = None
    ) -> ChatRequest:
        """Return the request with ``provider`` set, ``model`` as that provider's own name, and ``fallbacks`` as
        ``provider/model``: the request's, else those of the settings for this model. An alias becomes its first
        target; its other ones come before its fallbacks. ``provider/model`` and a bare model that only one provider
        offers are accepted. ``allowed``: models that the credentials allow; None means all. ``chat_id``: of the chat
        that the request belongs to. Raises :class:`UnknownModel`, :class:`ModelNotAllowed`, :class:`NoModels` and,
        for a fallback, :class:`InvalidRequest`."""
        try:
            return await self._resolve(request, allowed, chat_id)
        except UnknownModel as error:
            await self._read_again(error)
            return await self._resolve(request, allowed, chat_id)

    async def _resolve(self, request: ChatRequest, allowed: ModelPatterns | None, chat_id: str | None) -> ChatRequest:
        names = await self._names(allowed)
        targets = Targets(names, self._configuration.aliases, request, chat_id)
        found = targets.of(request.model, request.provider)
        if request.fallbacks is not None:
            fallbacks = targets.of_request(request.fallbacks)
        else:
            fallbacks = targets.of_settings(self._fallbacks_of(request, found[0]))
        first, *others = dict.fromkeys([*found, *fallbacks])
        if allowed is not None:
            pairs = {(_provider_of(target), _family_of(target, names.catalog)) for target in (first, *others)}
            check_provider_models(request, allowed, pairs)
        provider, _, model = first.partition("/")
        return request.model_copy(update={"provider": provider, "model": model, "fallbacks": others or None})

    def routing_of(self, request: ChatRequest, resolved: ChatRequest, chat_id: str | None) -> dict[str, str]:
        """Return the fields of the state from which a resolved request is routed."""
        return routing_fields(resolved, self._alias_of(request), chat_id, self._configuration)

    def _alias_of(self, request: ChatRequest) -> AliasEntry | None:
        return self._configuration.aliases.get(request.model) if request.provider is None else None

    def _fallbacks_of(self, request: ChatRequest, target: str) -> Sequence[str]:
        """Return the configured fallbacks: of the alias, else of HEADRACE_FALLBACKS for the model or its provider."""
        if (alias := self._alias_of(request)) is not None:
            return alias.fallbacks
        settings = self._configuration.settings.fallbacks
        return settings.get(target) or settings.get(target.partition("/")[0]) or ()

    async def find(self, name: str, allowed: ModelPatterns | None) -> ListedModel:
        """Return the listed model of one name. Raises :class:`UnknownModel`, also for a model that is not allowed,
        and :class:`NoModels`."""
        names = await self._names(allowed, tries_unknown=False)
        if alias := next((each for each in self._aliases(names) if each.model == name), None):
            return alias
        try:
            provider, model = names.find(name)
        except ModelNotAllowed as error:
            raise UnknownModel(error.message) from None
        return ListedModel(provider, model, names.catalog[provider].created_at(model))

    @property
    def denied_at(self) -> dict[str, tuple[str, ...]]:
        """Fields that providers of the configuration deny, by provider."""
        return {name: entry.deny for name, entry in self._configuration.providers.items() if entry.deny}

    async def families(self) -> Callable[[str], str]:
        """Return a function from a target, ``provider/model``, to the family of its wire format."""
        return partial(_family_of, catalog=await self.catalog())

    async def counts_tokens(self, provider: str) -> bool:
        """Return True if the provider counts the tokens of a request without answering it."""
        offer = (await self.catalog()).get(provider)
        return offer is not None and offer.counts_tokens

    async def _read_again(self, error: UnknownModel) -> None:
        """Let the next look at the catalog read it. Raises :class:`NoModels` if no worker runs."""
        if not await self._is_accepting():
            raise NoModels(f"no worker runs at the moment, try again shortly; {error.message}") from None
        self._catalogs.forget(None)

    async def _names(self, allowed: ModelPatterns | None, *, tries_unknown: bool = True) -> ModelNames:
        if catalog := await self.catalog():
            return ModelNames(catalog, allowed, tries_unknown and self._tries_unknown)
        raise NoModels


def _provider_of(target: str) -> str:
    return target.partition("/")[0]


def _family_of(target: str, catalog: Catalog) -> str:
    provider, _, model = target.partition("/")
    offer = catalog.get(provider)
    return (offer.family_of(model) if offer is not None else "") or provider
