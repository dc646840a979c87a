"""Finds the provider and the model that a name means."""

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from shared.broker.catalog import Catalog, ProviderModels
from shared.errors import ModelNotAllowed, UnknownModel
from shared.model_patterns import ModelPatterns

_MOST_NAMES: Final = 20
#: Settings that add a provider, for the operator.
_CREDENTIALS: Final = {
    "openai": "OPENAI_API_KEY",
    "responses": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "ollama": "OLLAMA_HOST",
}
_LONGEST_NAME: Final = 180  # with the provider as prefix, it is still a valid name
#: Date at the end of a name. Providers accept some names without it, and list them with it only.
_DATE: Final = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")


@dataclass(frozen=True, slots=True)
class ModelNames:
    """Names of a catalog's models, as far as ``allowed`` (None: all) permits. ``tries_unknown``: a name with its
    provider is passed on although the provider does not list it, unless its list is closed. A bare name is only tried
    if one provider lists it with a date."""

    catalog: Catalog
    allowed: ModelPatterns | None
    tries_unknown: bool

    def listed_of(self, provider: str) -> list[str]:
        """Return the provider's allowed models, and the patterns of those that it has no list of."""
        offer = self.catalog[provider]
        if self.allowed is None:
            return [*offer.models, *(["*"] if offer.open else [])]
        named = [model for model in offer.models if self.allowed.allow(provider, model)]
        return list(dict.fromkeys([*named, *(self.allowed.of_provider(provider) if offer.open else [])]))

    def find(self, name: str, named: str | None = None, aliases: Collection[str] = ()) -> tuple[str, str]:
        """Return (provider, model). ``named``: the provider, if the request named it separately. ``aliases``: further
        names that an error may propose. A bare model that several providers offer is found if only one of them is
        allowed. Raises :class:`ModelNotAllowed`, and
        :class:`UnknownModel`, which lists allowed models only."""
        if self.allowed is None:
            return self._find(self.catalog, name, named, aliases)
        try:
            provider, model = self._find(self.catalog, name, named, ())
        except UnknownModel:
            provider, model = self._find(self._allowed_part(self.allowed), name, named, ())
        if not self.allowed.allow(provider, model):
            raise ModelNotAllowed(f"model: {name!r} is not allowed for these credentials; see GET /v1/models")
        return provider, model

    def _allowed_part(self, allowed: ModelPatterns) -> Catalog:
        part = {}
        for provider, offer in self.catalog.items():
            models = tuple(model for model in offer.models if allowed.allow(provider, model))
            is_open = offer.open and bool(allowed.of_provider(provider))
            if models or is_open:
                part[provider] = ProviderModels(models, is_open, offer.closed)
        return part

    def _find(self, catalog: Catalog, name: str, named: str | None, aliases: Collection[str]) -> tuple[str, str]:
        if named is not None:
            provider, model = named, name.removeprefix(f"{named}/")
        else:
            provider, model = self._split(catalog, name, aliases)
        if not model or len(model) > _LONGEST_NAME:
            raise UnknownModel(f"model: must have 1 to {_LONGEST_NAME} characters")
        offer = catalog.get(provider)
        if offer is None:
            known = _CREDENTIALS.get(provider)
            raise UnknownModel(
                f"provider: unknown provider {provider!r}; available: {', '.join(catalog)}",
                detail=f"no worker has the provider {provider}; set {known} for the workers" if known else None,
            )
        if not offer.has(model) and (offer.closed or not self.tries_unknown):
            available = ", ".join(offer.models[:_MOST_NAMES])
            raise UnknownModel(f"model: unknown model {model!r} of provider {provider}; available: {available}")
        return provider, model

    def _split(self, catalog: Catalog, name: str, aliases: Collection[str]) -> tuple[str, str]:
        prefix, slash, rest = name.partition("/")
        if slash and prefix in catalog:
            return prefix, rest
        offering = [provider for provider, offer in catalog.items() if name in offer.models]
        offering = offering or self._listing_dated(catalog, name)
        offering = offering or [provider for provider, offer in catalog.items() if offer.open]
        if len(offering) == 1:
            return offering[0], name
        if near := difflib.get_close_matches(name, aliases):
            raise UnknownModel(f"model: unknown model {name!r}; did you mean {' or '.join(near)}?")
        if offering:
            raise UnknownModel(f"model: {name!r} is offered by {', '.join(offering)}; set provider to choose one")
        available = [f"{provider}/{model}" for provider, offer in catalog.items() for model in offer.models]
        if near := difflib.get_close_matches(name, [*aliases, *available]):
            raise UnknownModel(f"model: unknown model {name!r}; did you mean {' or '.join(near)}?")
        shown = ", ".join([*aliases, *available][:_MOST_NAMES])
        if slash and (known := _CREDENTIALS.get(prefix)):
            raise UnknownModel(
                f"model: unknown model {name!r}, since {prefix} is not available here; available: {shown}",
                detail=f"no worker has the provider {prefix}; set {known} for the workers",
            )
        raise UnknownModel(f"model: unknown model {name!r}; available: {shown}")

    def _listing_dated(self, catalog: Catalog, name: str) -> list[str]:
        """Return the providers that list the name with a date: ``claude-sonnet-4-5-20250929``."""
        if not self.tries_unknown:
            return []
        return [
            provider
            for provider, offer in catalog.items()
            if not offer.closed and any(_DATE.sub("", model) == name for model in offer.models if model != name)
        ]
