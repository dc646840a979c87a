"""The settings of webhooks, a part of ``shared/settings.py``."""

import base64
import binascii
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode

from shared.webhook_hosts import HostEntry, WebhookHosts, WebhookUrlRefused, parse_host_entry


def _webhook_url(url: str) -> str:
    try:
        WebhookHosts().check(url, is_trusted=True)
    except WebhookUrlRefused as error:
        raise ValueError(str(error)) from None
    return url


def _webhook_hosts(texts: tuple[str, ...]) -> tuple[str, ...]:
    for n, text in enumerate(texts, start=1):
        _host_entry(text, n)
    return texts


def _host_entry(text: str, n: int) -> HostEntry:
    try:
        return parse_host_entry(text)
    except ValueError:
        examples = "hooks.example.com, *.example.com:8443, 10.0.0.5 or 10.0.0.0/8"
        raise ValueError(f"entry {n} is not a host, address or network; write it as {examples}") from None


def _webhook_secrets(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    remedy = 'make one with echo "whsec_$(openssl rand -base64 32)"'
    for n, secret in enumerate(secrets, start=1):
        prefix, _, encoded = secret.get_secret_value().rpartition("whsec_")
        try:
            size = len(base64.b64decode(encoded, validate=True)) if not prefix else 0
        except (binascii.Error, ValueError):
            size = 0
        if not 24 <= size <= 64:
            raise ValueError(f"entry {n} is not whsec_ and 24 to 64 bytes in base64; {remedy}")
    return secrets


_Url = Annotated[str, AfterValidator(_webhook_url)]
_Hosts = Annotated[tuple[str, ...], NoDecode, AfterValidator(_webhook_hosts)]
_Secrets = Annotated[tuple[SecretStr, ...], NoDecode, AfterValidator(_webhook_secrets)]


class WebhookSettings(BaseSettings):
    #: Receiver of the endings of all streams whose request or API key has none of its own.
    webhook_url: _Url | None = None
    #: Hosts that a request's ``webhook_url`` may have: names, ``*.`` before them for all below, addresses, networks;
    #: each with a port, or for all ports. An address that is not public must be listed by itself.
    webhook_hosts: _Hosts = ()
    #: Secrets of Standard Webhooks (``whsec_…``). All sign, so that receivers can change theirs.
    webhook_secret: _Secrets = ()
    #: ``thin``: ids, state and usage; ``full``: the answer too, as ``GET /chat/{stream_id}`` has it.
    webhook_payload: Literal["thin", "full"] = "thin"
    webhook_timeout_s: Annotated[float, Field(ge=0.1, le=300)] = 15
    #: Time from the end of a stream, for which a webhook is sent again until its receiver accepts it.
    webhook_retry_s: Annotated[float, Field(ge=1, le=30 * 86_400)] = 86_400

    @property
    def allowed_webhook_hosts(self) -> WebhookHosts:
        return WebhookHosts(tuple(map(parse_host_entry, self.webhook_hosts)))
