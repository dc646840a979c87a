"""One configured provider with its secrets, as the adapters need it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from pydantic import SecretStr

from shared.configuration.configuration import Configuration
from shared.configuration.entries import DEFAULT_AUTH, ProviderEntry
from shared.configuration.secret_sources import SecretSource, SecretUnreadable
from shared.setting_types import Timeouts
from workers.providers.errors import Upstream, host_of
from workers.providers.extras import ExtraMissing, require_extras

#: Key for servers that need none: without one, an SDK refuses to run or takes another from the environment.
NO_KEY: Final = "none"
_SHOWN: Final = 4


@dataclass(frozen=True)
class ApiKey:
    """``id``: the same for every process that has this key; it does not reveal the key."""

    secret: SecretStr

    @cached_property
    def id(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @property
    def text(self) -> str:
        return self.secret.get_secret_value()

    @property
    def masked(self) -> str:
        return f"…{self.text[-_SHOWN:]}" if len(self.text) > 4 * _SHOWN else "…"


@dataclass(frozen=True)
class Endpoint:
    """``keys`` is empty for a server that needs none."""

    name: str
    entry: ProviderEntry
    keys: tuple[ApiKey, ...]
    configuration: Configuration

    def timeouts(self, model: str = "") -> Timeouts:
        return self.configuration.timeouts(self.name, model)

    def upstream(self, address: str) -> Upstream:
        """Return what errors name. ``address``: the base URL in use."""
        if self.is_short_form:
            prefix = self.entry.kind.upper()
            key_setting, url_setting = f"{prefix}_API_KEY", f"{prefix}_{'HOST' if prefix == 'OLLAMA' else 'BASE_URL'}"
        else:
            key_setting, url_setting = (f"{key} of [providers.{self.name}]" for key in ("api_keys", "base_url"))
            if self.entry.auth == "entra":
                key_setting = "the Azure identity and its role, such as AZURE_CLIENT_ID,"
        return Upstream(self.name, host_of(address), key_setting, url_setting, self.entry.family)

    def credentials(self, key: ApiKey | None = None) -> dict[str, str]:
        """Return the header with a key, or with the first one; nothing for a server that needs none."""
        key = key or next(iter(self.keys), None)
        if key is None:
            return {}
        match self.entry.auth or DEFAULT_AUTH.get(self.entry.kind):
            case "api-key":
                return {"api-key": key.text}
            case "x-api-key":
                return {"X-Api-Key": key.text}
        return {"Authorization": f"Bearer {key.text}"}

    @cached_property
    def is_short_form(self) -> bool:
        """True if environment variables configure this provider."""
        return self.name not in self.configuration.document.providers

    @property
    def connections(self) -> int:
        """Largest number of streams of this worker."""
        return self.configuration.settings.concurrency


def endpoints_of(configuration: Configuration) -> tuple[dict[str, Endpoint], list[str]]:
    """Return the endpoints by name, and the problems of those whose keys cannot be read: those are left out."""
    endpoints, problems = dict[str, Endpoint](), list[str]()
    for name, entry in configuration.providers.items():
        try:
            require_extras(entry)
            keys = _keys_of(name, configuration)
        except ExtraMissing as error:
            problems.append(f"providers.{name}: {error}")
        except SecretUnreadable as error:
            problems.append(f"providers.{name}.api_keys: {error}")
        else:
            endpoints[name] = Endpoint(name, entry, keys, configuration)
    return endpoints, problems


def key_sources(name: str, configuration: Configuration) -> list[tuple[str, "SecretSource | ReadSecret"]]:
    """Return the places of a provider's keys, each with its name in messages."""
    entry = configuration.providers[name]
    if name in configuration.document.providers:
        return [(str(source), source) for source in entry.api_keys]
    secret: SecretStr | None = getattr(configuration.settings, f"{entry.kind}_api_key", None)
    return [] if secret is None else [(f"{entry.kind.upper()}_API_KEY", ReadSecret(secret))]


@dataclass(frozen=True, slots=True)
class ReadSecret:
    """A key that the settings contain."""

    secret: SecretStr

    def read(self) -> SecretStr:
        return self.secret


def _keys_of(name: str, configuration: Configuration) -> tuple[ApiKey, ...]:
    keys = [ApiKey(source.read()) for _, source in key_sources(name, configuration)]
    return tuple({key.id: key for key in keys}.values())
