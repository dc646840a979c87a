"""Types of single settings: parsing, validation, and messages that never repeat a value, which may be a secret."""

import json
import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Annotated, Final, NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode

T = TypeVar("T")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
#: Schemes of browser extensions and of applications that are built on a browser.
_APP_SCHEMES: Final = frozenset(
    {*(f"{name}-extension" for name in ("chrome", "moz", "safari-web")), "app", "capacitor", "ionic", "tauri"}
)
#: Ten years; some thousand years later the calendar of Python ends.
LONGEST_S: Final = 10 * 365 * 86_400

#: Fields that an operator may deny.
MOST_DENIED: Final = 100
_FIELD_PATH: Final = re.compile(r"[A-Za-z0-9_-]{1,128}(\.[A-Za-z0-9_:-]{1,128}){0,7}")


def split_list(value: object) -> object:
    """Split comma-separated text into a tuple; return anything else unchanged."""
    return tuple(n for n in (part.strip() for part in value.split(",")) if n) if isinstance(value, str) else value


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("not valid JSON; set a JSON object") from None


def _public_key(text: str) -> str:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415  # slow to load

    pem = text.replace("\\n", "\n")  # environment variables often hold escaped line breaks
    try:
        load_pem_public_key(pem.encode())
    except ValueError:
        raise ValueError("not a public key in PEM; include the lines -----BEGIN and -----END") from None
    return pem


def _content_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for n, key in enumerate(keys, start=1):
        if not re.fullmatch("[0-9a-fA-F]{64}", key.get_secret_value()):
            raise ValueError(f"entry {n} is not 64 hexadecimal digits; make a key with openssl rand -hex 32")
    return keys


def _split_url(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # its message contains a part of the URL, perhaps of a password
        raise ValueError("not a valid URL; check its host") from None


def _jwks_url(url: str) -> str:
    parts = _split_url(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise ValueError("not an https:// URL, so keys could be forged in transit; use https://")
    return url


def _server(url: str) -> str:
    """Accept a server address with or without a scheme, as Ollama does."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        usable = bool(parts.hostname) and parts.scheme in {"", "http", "https"} and parts.port != 0
    except ValueError:  # its message may contain a part of a password
        usable = False
    if not usable:
        raise ValueError("not a server address; write it as http://127.0.0.1:11434")
    return url


def _base_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("does not begin with http:// or https://; write the whole URL")
    return _server(url)


def _origin(text: str, n: int) -> str:
    parts = _split_url(text)
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"entry {n} has an invalid port; use 1 to 65535") from None
    if (
        parts.scheme not in {*_DEFAULT_PORTS, *_APP_SCHEMES}
        or not parts.hostname
        or text != f"{parts.scheme}://{parts.netloc}"
    ):
        raise ValueError(f"entry {n} is not an origin; write it as https://chat.example.com, without a path")
    if (
        text != text.lower()
        or not text.isascii()
        or set(text) & set("@*\\ ")
        or text.endswith(":")
        or (port is not None and port == _DEFAULT_PORTS.get(parts.scheme))
    ):
        raise ValueError(
            f"entry {n} is not written as browsers send it; use lower case, without user, wildcard and default port"
        )
    return text


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    if "*" in origins:
        if len(origins) > 1:
            raise ValueError("* excludes other origins; remove it or the others")
        return origins
    return tuple(_origin(text, n) for n, text in enumerate(origins, start=1))


def _networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    for n, text in enumerate(texts, start=1):
        try:
            ip_network(text)
        except ValueError:
            raise ValueError(f"entry {n} is not an address or network; write it as 10.0.0.5 or 10.0.0.0/24") from None
    return texts


def is_field_path(text: str) -> bool:
    """Return True for the path of a field that an operator may deny; see ``shared/denied_fields.py``."""
    return _FIELD_PATH.fullmatch(text) is not None


def _field_paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    if len(paths) > MOST_DENIED:
        raise ValueError(f"more than {MOST_DENIED} entries; deny fewer")
    for n, path in enumerate(paths, start=1):
        if not is_field_path(path):
            raise ValueError(f"entry {n} is not the path of a field; write it as mcp_servers or tools.web_search")
    return paths


Seconds = Annotated[float, Field(gt=0, le=86_400)]
Names = Annotated[tuple[str, ...], NoDecode, Field(default=())]
Json = Annotated[T, NoDecode, BeforeValidator(_json)]
PublicKey = Annotated[str, AfterValidator(_public_key)]
ContentKeys = Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(_content_keys)]
JwksUrl = Annotated[str, AfterValidator(_jwks_url)]
ServerAddress = Annotated[str, AfterValidator(_server)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Origins = Annotated[tuple[str, ...], NoDecode, AfterValidator(_origins)]
FieldPaths = Annotated[tuple[str, ...], NoDecode, AfterValidator(_field_paths)]
Networks = Annotated[tuple[str, ...], NoDecode, AfterValidator(_networks)]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits for one provider call: to connect, to the first token, from one token to the next, in total; and the
    silence after a finish reason that ends an answer."""

    connect_s: float
    first_token_s: float
    between_tokens_s: float
    total_s: float
    end_grace_s: float

    @property
    def grace_s(self) -> float:
        """``end_grace_s``, but less than the idle timeout, so that a complete answer is never taken for a stalled
        one."""
        return min(self.end_grace_s, self.between_tokens_s / 2)


class TimeoutChanges(BaseModel):
    """Timeouts of one provider or model that differ from the general ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connect_s: Seconds | None = None
    first_token_s: Seconds | None = None
    between_tokens_s: Seconds | None = None
    total_s: Seconds | None = None


class Conflict(NamedTuple):
    """A problem of several fields together; ``message`` names the setting."""

    fields: frozenset[str]
    message: str


class ConflictsFound(ValueError):
    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__("\n".join(conflict.message for conflict in conflicts))
        self.conflicts = conflicts
