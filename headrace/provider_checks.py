"""Calls each provider with each of its keys, with the adapters of the workers."""

import asyncio
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from headrace.check_rows import NOTE, OK, WRONG, Row
from headrace.table import counted
from shared.configuration.configuration import Configuration
from shared.configuration.secret_sources import SecretUnreadable
from shared.errors import ProviderError
from shared.schemas import ChatRequest
from workers.providers.base import Provider
from workers.providers.endpoint import ApiKey, Endpoint, key_sources
from workers.providers.extras import ExtraMissing, require_extras
from workers.providers.registry import provider_of

_ASK_TIMEOUT_S: Final = 60.0
#: Some models refuse a limit of one token, because they think first; the Responses API accepts 16 at least.
_LIMITS: Final = (1, 16)
#: Parts of the names of models that do not chat.
_OTHER_PURPOSES: Final = ("embed", "whisper", "tts", "audio", "image", "dall-e", "moderation", "realtime", "transcri")
_MOST_SHOWN: Final = 5
_WITHOUT_LIST: Final = frozenset({"provider_model_not_found", "provider_rejected"})


@dataclass(frozen=True, slots=True)
class _Key:
    """``label``: the place of the key, and its end. ``key``: None for a server that needs none."""

    label: str
    key: ApiKey | None


async def check_providers(configuration: Configuration, *, asks: bool) -> list[Row]:
    """Return a row for each key of each provider. ``asks``: send a request too."""
    checks = [_ProviderCheck(configuration, name, asks=asks) for name in configuration.providers]
    try:
        return [row for rows in await asyncio.gather(*(check.rows() for check in checks)) for row in rows]
    finally:
        for check in checks:
            await check.aclose()


def _keys_of(configuration: Configuration, name: str) -> tuple[list[_Key], list[Row]]:
    """Return the readable keys, and rows for the others."""
    keys, rows = dict[str, _Key](), list[Row]()
    for place, source in key_sources(name, configuration):
        try:
            key = ApiKey(source.read())
        except SecretUnreadable as error:
            rows.append(Row(WRONG, name, place, f"providers.{name}.api_keys: {error}"))
            continue
        label = f"{place} {key.masked}"
        if key.id in keys:
            rows.append(Row(NOTE, name, label, f"the same key as {keys[key.id].label}; it is used once"))
        else:
            keys[key.id] = _Key(label, key)
    return list(keys.values()), rows


class _ProviderCheck:
    """Check of one provider. It is made before any call begins: to import an SDK takes longer than some timeouts."""

    def __init__(self, configuration: Configuration, name: str, *, asks: bool) -> None:
        self._entry = configuration.providers[name]
        self._asks = asks
        self._keys, self._problems = _keys_of(configuration, name)
        keys = tuple(each.key for each in self._keys if each.key)
        self._endpoint = Endpoint(name, self._entry, keys, configuration)
        self._provider: Provider | None = None
        if self._problems and not keys:
            return
        try:
            require_extras(self._entry)
        except ExtraMissing as error:
            self._problems.append(Row(WRONG, name, "", f"providers.{name}: {error}"))
        else:
            self._provider = provider_of(self._endpoint)

    async def rows(self) -> list[Row]:
        if self._entry.kind == "demo":
            return [Row(OK, self._endpoint.name, "", "built in")]
        if self._provider is None:
            return self._problems
        keys = self._keys or [_Key("", None)]
        return [*await asyncio.gather(*(self._row_of(self._provider, each) for each in keys)), *self._problems]

    async def aclose(self) -> None:
        if self._provider is not None:
            await self._provider.aclose()

    async def _row_of(self, provider: Provider, key: _Key) -> Row:
        try:
            listed, detail = await self._listed(provider, key.key)
            if self._asks:
                detail = await self._ask(provider, key.key, listed)
        except ProviderError as error:
            return self._row(WRONG, key, error.detail or error.message)
        if detail is None:
            return self._row(WRONG, key, self._without_list)
        missing = [model for model in self._named if listed and model not in listed]
        if missing:
            shown = ", ".join(missing[:_MOST_SHOWN])
            return self._row(NOTE, key, f"{detail}; its list lacks {shown}: check the configured models")
        return self._row(OK, key, detail)

    def _row(self, state: str, key: _Key, detail: str) -> Row:
        return Row(state, self._endpoint.name, key.label, detail)

    async def _listed(self, provider: Provider, key: ApiKey | None) -> tuple[tuple[str, ...], str | None]:
        """Return the provider's list and the words for it; None if it must have one and has none. Raises
        :class:`ProviderError`."""
        try:
            listed = await provider.probe(key)
        except ProviderError as error:
            if error.code not in _WITHOUT_LIST:
                raise
            is_enough = self._entry.models or self._asks
            return (), "it has no list of models; --ask tests key and model" if is_enough else None
        return listed, counted(len(listed), "model")

    @property
    def _without_list(self) -> str:
        address = self._endpoint.upstream(self._entry.base_url or "").url_variable
        return f"no list of models at this address; check the path in {address}, or set models"

    async def _ask(self, provider: Provider, key: ApiKey | None, listed: Collection[str]) -> str:
        """Ask one model with one key. Raises :class:`ProviderError`."""
        model = next(iter([*self._named, *filter(_chats, listed)]), None)
        if model is None:
            raise ProviderError("provider_rejected", "no model is known; set models to test one")
        for limit in _LIMITS:
            try:
                await _answer(provider, ChatRequest.model_validate(_request(model, limit)), key)
            except ProviderError as error:
                if error.code != "provider_rejected" or limit == _LIMITS[-1]:
                    raise
            else:
                break
        return f"{model} answered"

    @property
    def _named(self) -> list[str]:
        """Models of this provider that the configuration names."""
        return named_models(self._endpoint.name, self._endpoint.configuration)


def named_models(provider: str, configuration: Configuration) -> list[str]:
    """Return the models of one provider that the configuration names: its own, and those of aliases and prices."""
    aliases = configuration.aliases.values()
    names = [target.target for alias in aliases for target in alias.targets]
    names += [name for alias in aliases for name in alias.fallbacks]
    names += configuration.prices
    prefix = f"{provider}/"
    targets = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return list(dict.fromkeys([*configuration.providers[provider].models, *targets]))


async def _answer(provider: Provider, request: ChatRequest, key: ApiKey | None) -> None:
    try:
        async with asyncio.timeout(_ASK_TIMEOUT_S), aclosing(provider.stream(request, key)) as answer:
            async for _ in answer:
                pass
    except TimeoutError:
        message = f"{request.model} did not answer within {_ASK_TIMEOUT_S:g} s"
        raise ProviderError("provider_idle_timeout", message) from None


def _chats(model: str) -> bool:
    return not any(part in model.lower() for part in _OTHER_PURPOSES)


def _request(model: str, limit: int) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": limit}
