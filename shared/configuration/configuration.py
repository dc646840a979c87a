"""All providers, aliases and prices of one process: the file, and the environment's short forms."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from shared.configuration.document import Document, Problems, read_document
from shared.configuration.entries import AliasEntry, PriceEntry, ProviderEntry, is_provider_name
from shared.configuration.short_forms import SHORT_FORMS, short_forms
from shared.setting_types import Timeouts
from shared.settings import Settings


@dataclass(frozen=True)
class Configuration:
    """``document``: the content of the file, empty if there is none. ``providers``: also those of the environment.
    ``replaced``: names of short forms without effect, because the file has a provider of that name."""

    settings: Settings
    document: Document
    providers: Mapping[str, ProviderEntry]
    replaced: tuple[str, ...] = ()

    @property
    def aliases(self) -> Mapping[str, AliasEntry]:
        return self.document.models

    @property
    def prices(self) -> Mapping[str, PriceEntry]:
        return self.document.prices

    def timeouts(self, provider: str, model: str = "") -> Timeouts:
        """Return the timeouts of one model: those of HEADRACE_MODEL_TIMEOUTS, else of its provider, else the general
        ones."""
        base = self._provider_timeouts.get(provider) or self.settings.general_timeouts
        return self.settings.changed_timeouts(base, provider, model)

    @cached_property
    def _provider_timeouts(self) -> dict[str, Timeouts]:
        """Timeouts of each provider, without those of HEADRACE_MODEL_TIMEOUTS."""
        general = self.settings.general_timeouts
        own = {
            name: {
                "connect_s": entry.connect_timeout_s,
                "first_token_s": entry.first_token_timeout_s,
                "between_tokens_s": entry.idle_timeout_s,
            }
            for name, entry in self.providers.items()
        }
        return {
            name: replace(general, **{field: value for field, value in changes.items() if value is not None})
            for name, changes in own.items()
        }

    @property
    def secret_variables(self) -> frozenset[str]:
        """Names of environment variables with keys of the file's providers."""
        sources = [source for entry in self.document.providers.values() for source in entry.api_keys]
        return frozenset(source.place for source in sources if source.kind == "env")

    @cached_property
    def hash(self) -> str:
        """Hash of the file's content and of HEADRACE_PROVIDER_STREAMS, on which all processes must agree. It depends
        on no secret."""
        tables = self.document.model_dump(mode="json") | {"streams": self.settings.provider_streams}
        return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:16]


def load_configuration(settings: Settings) -> Configuration:
    """Read the file of HEADRACE_CONFIG, if it is set. Raises :class:`ConfigurationError` with all problems."""
    short = short_forms(settings)
    if settings.config is None:
        return Configuration(settings, Document(), short)
    document = checked_document(settings.config, short)
    replaced = tuple(name for name in short if name in document.providers)
    return Configuration(settings, document, short | document.providers, replaced)


def checked_document(path: Path, short: Mapping[str, ProviderEntry]) -> Document:
    """Read a file and check its names. ``short``: providers of the environment. Raises
    :class:`ConfigurationError`."""
    document, problems = read_document(path)
    # Gateways do not have the variables of short forms, but their aliases may name them.
    known: dict[str, ProviderEntry] = {name: ProviderEntry(kind=name) for name in SHORT_FORMS}
    known |= {**short, **document.providers}
    _check(document, known, problems)
    problems.raise_if_any()
    return document


def _check(document: Document, providers: Mapping[str, ProviderEntry], problems: Problems) -> None:
    for name in document.providers:
        if not is_provider_name(name):
            problems.add(("providers", name), "not a name of a provider; use up to 64 letters, digits, . _ and -")
    listed = {model: name for name, entry in providers.items() for model in entry.models}
    for alias, entry in document.models.items():
        meaning = _other_meaning(alias, providers, listed)
        if meaning:
            problems.add(("models", alias), f"already the name of {meaning}; choose another")
        for at, target in enumerate(entry.targets):
            _check_target(("models", alias, "targets", at), target.target, providers, problems)
        for at, fallback in enumerate(entry.fallbacks):
            if fallback not in document.models:
                _check_target(("models", alias, "fallbacks", at), fallback, providers, problems)
    for name in document.prices:
        _check_target(("prices", name), name, providers, problems)


def _other_meaning(alias: str, providers: Mapping[str, ProviderEntry], listed: Mapping[str, str]) -> str:
    prefix, slash, _ = alias.partition("/")
    if prefix in providers:
        return f"a model of provider {prefix}" if slash else "a provider"
    return f"a model of provider {listed[alias]}" if alias in listed else ""


def _check_target(
    key: tuple[str | int, ...], target: str, providers: Mapping[str, ProviderEntry], problems: Problems
) -> None:
    provider, _, model = target.partition("/")
    entry = providers.get(provider)
    if entry is None:
        problems.add(key, f"no provider {provider!r}; use one of {', '.join(providers)}")
    elif not model:
        problems.add(key, "no model; write it as provider/model")
    elif entry.models and model not in entry.models:
        problems.add(key, f"provider {provider} does not list {model!r} in its models; add it there")
