"""Verification of webhooks, by the Standard Webhooks specification."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

_TOLERANCE_S: Final = 300
_PREFIX: Final = "whsec_"


class WebhookInvalid(Exception):
    """A request that is not a webhook of the gateway, or is too old. Respond with 400 and do nothing else."""


def verify_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | Iterable[str],
    *,
    tolerance_s: float = _TOLERANCE_S,
) -> dict[str, Any]:
    """Return the JSON of a webhook whose signature is right. Raises :class:`WebhookInvalid`.

    ``body``: the bytes as they were received, not parsed and printed again. ``secret``: ``whsec_…``, or several
    during a rotation. Deliveries may be repeated: use the header ``webhook-id`` to act once.
    """
    raw = body.encode() if isinstance(body, str) else body
    found = {name.lower(): value for name, value in headers.items()}
    try:
        webhook_id, timestamp = found["webhook-id"], found["webhook-timestamp"]
        signatures = found["webhook-signature"].split(" ")
    except KeyError as missing:
        raise WebhookInvalid(f"{missing.args[0]}: the header is missing") from None
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise WebhookInvalid("webhook-timestamp: not a number of seconds")
    if abs(time.time() - int(timestamp)) > tolerance_s:
        raise WebhookInvalid("webhook-timestamp: too far from the time here; check this machine's clock")
    signed = f"{webhook_id}.{timestamp}.".encode() + raw
    secrets = [secret] if isinstance(secret, str) else secret
    expected = ["v1," + _signature(one, signed) for one in secrets]
    if not any(_are_equal(given, one) for given in signatures for one in expected):
        raise WebhookInvalid("webhook-signature: none is right; check the secret, and pass the body unchanged")
    try:
        payload = json.loads(raw)
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        raise WebhookInvalid("body: not a JSON object")
    return payload


def _signature(secret: str, signed: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("secret: not in the form whsec_<base64>") from None
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def _are_equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
