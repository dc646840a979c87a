"""JWTs of somebody else's making, verified by PyJWT.

Which algorithms are taken follows from the kind of key, never from the token: a secret verifies HS256 only, a public
key RS256 and ES256 only. So neither ``alg: none`` nor a public key that is used as a secret gets in.
"""

import asyncio
import json
from typing import Any, Final

import jwt

from gateway.auth.principal import ALL_SCOPES, SCOPES, Principal, Scope
from shared.errors import Unauthenticated, Unavailable
from shared.settings import Settings, SettingsError

_ASYMMETRIC: Final = ["RS256", "ES256"]
_JWKS_TIMEOUT_S: Final = 5
_JWKS_LIFE_S: Final = 300
#: Of PyJWT, for an answer that is not JSON, or has no key.
_NO_JWKS: Final = (json.JSONDecodeError, jwt.PyJWKSetError)


class KeysUnreachable(Unavailable):
    code = "jwks_unreachable"


class JsonWebTokens:
    def __init__(self, settings: Settings) -> None:
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._leeway_s = settings.jwt_leeway_s
        self._key = settings.jwt_secret.get_secret_value() if settings.jwt_secret else settings.jwt_public_key
        self._algorithms = ["HS256"] if settings.jwt_secret else _ASYMMETRIC
        self._jwks = None
        if settings.jwt_jwks_url is not None:
            # Fetched again when it is old, or when a token names a key that is not in it: so keys may rotate.
            self._jwks = jwt.PyJWKClient(settings.jwt_jwks_url, lifespan=_JWKS_LIFE_S, timeout=_JWKS_TIMEOUT_S)

    def check(self) -> None:
        """At the start. Raises :class:`SettingsError` where the keys cannot be had."""
        if self._jwks is not None:
            try:
                self._jwks.get_signing_keys()
            except jwt.PyJWKClientError as error:
                raise SettingsError(f"HEADRACE_JWT_JWKS_URL: {error}") from None
            except _NO_JWKS:
                raise SettingsError("HEADRACE_JWT_JWKS_URL: what is there is no JWKS with a usable key") from None

    async def principal(self, token: str) -> Principal:
        """Raises :class:`Unauthenticated`; :class:`KeysUnreachable` where the keys cannot be had now."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                await self._key_of(token),
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway_s,
                options={"require": ["exp", "sub", "aud", *(["iss"] if self._issuer else [])]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired") from None
        except (jwt.InvalidTokenError, TypeError, ValueError):
            raise Unauthenticated("the token is not valid here") from None
        return Principal(f"jwt:{claims['sub']}", _scopes_of(claims), float(claims["exp"]) + self._leeway_s)

    async def _key_of(self, token: str) -> Any:  # a text, or a key of the cryptography library
        if self._jwks is None:
            return self._key
        try:
            return (await asyncio.to_thread(self._jwks.get_signing_key_from_jwt, token)).key
        except (jwt.PyJWKClientConnectionError, *_NO_JWKS):
            raise KeysUnreachable("the keys that tokens are verified with cannot be fetched") from None
        except jwt.PyJWKClientError:
            raise Unauthenticated("the token is signed with a key that nobody here knows") from None


def _scopes_of(claims: dict[str, Any]) -> frozenset[Scope]:
    """All, where the token says nothing of scopes; else those of ours that it names, in a text or, as some identity
    providers have it, in a list."""
    said = claims.get("scope")
    if said is None:
        return ALL_SCOPES
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    return frozenset(Scope(word) for word in words if isinstance(word, str) and word in SCOPES)
