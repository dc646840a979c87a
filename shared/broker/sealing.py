"""Encryption of the content in Redis: requests, metadata and every event.

The cipher is AES-256-GCM with a key per stream, derived from the first of ``HEADRACE_CONTENT_KEYS`` and the stream's
id, so that content of one stream opens in no other. The sealed format is: byte 1, the id of the key (4 bytes), a
nonce (12), the ciphertext. A value with another first byte was stored without a key and is read unchanged, so keys
can be introduced while streams live.
"""

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from shared.errors import ContentUnreadable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MARK: Final = b"\x01"
_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_SEALED_FIELDS: Final = frozenset({"request", "metadata", "shown", "response", "chat", "title", "run"})
_HEAD_BYTES: Final = len(_MARK) + _ID_BYTES


class Sealing:
    """Seals and opens content. The first of ``keys`` seals, all of them open; without keys, content is unchanged."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_id_of(key): key for key in keys}
        self._newest = _id_of(keys[0]) if keys else None

    def seal(self, stream_id: str, plain: bytes) -> bytes:
        if self._newest is None:
            return plain
        nonce = os.urandom(_NONCE_BYTES)
        sealed = _cipher(self._keys[self._newest], stream_id).encrypt(nonce, plain, None)
        return b"".join((_MARK, self._newest, nonce, sealed))

    def open(self, stream_id: str, stored: bytes) -> bytes:
        """Open a stored value. Raises :class:`ContentUnreadable` if its key is missing or the bytes were changed."""
        if not is_sealed(stored):
            return stored
        key = self._keys.get(stored[len(_MARK) : _HEAD_BYTES])
        if key is None:
            raise ContentUnreadable
        nonce, sealed = stored[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES], stored[_HEAD_BYTES + _NONCE_BYTES :]
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  as below

        try:
            return _cipher(key, stream_id).decrypt(nonce, sealed, None)
        except (InvalidTag, ValueError) as error:  # ValueError: bytes are missing
            raise ContentUnreadable from error

    def seal_all(self, stream_id: str, plain: Sequence[bytes]) -> Sequence[bytes]:
        return plain if self._newest is None else [self.seal(stream_id, each) for each in plain]

    def open_all(self, stream_id: str, stored: Iterable[bytes]) -> list[bytes]:
        return [self.open(stream_id, each) if each.startswith(_MARK) else each for each in stored]

    def seal_fields(self, stream_id: str, fields: Mapping[str, str | bytes | int]) -> dict[str, str | bytes | int]:
        """Return a stream's state with its content sealed."""
        sealed = dict(fields)
        for name in _SEALED_FIELDS & fields.keys():
            value = fields[name]
            sealed[name] = self.seal(stream_id, value.encode() if isinstance(value, str) else bytes(value))
        return sealed

    def open_fields(self, stream_id: str, fields: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return a stream's state with its content opened. A field that cannot be opened stays sealed, since the
        stream must still be ended."""
        opened = dict(fields)
        for name in _SEALED_FIELDS & fields.keys():
            with suppress(ContentUnreadable):
                opened[name] = self.open(stream_id, fields[name])
        return opened

    def texts(self, stream_id: str, names: Sequence[str], values: Sequence[bytes | None]) -> dict[str, str | None]:
        """Return some fields of a state, opened. Raises :class:`ContentUnreadable`."""
        return {
            name: self.open(stream_id, value).decode() if value else None
            for name, value in zip(names, values, strict=True)
        }


def is_sealed(stored: bytes) -> bool:
    return stored.startswith(_MARK)


@lru_cache(maxsize=4096)
def _cipher(key: bytes, stream_id: str) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  slow to load and rarely needed

    return AESGCM(hmac.digest(key, b"headrace stream " + stream_id.encode(), hashlib.sha256))


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"headrace content key " + key).digest()[:_ID_BYTES]
