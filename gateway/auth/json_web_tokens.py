"""JWTs of somebody else's making, verified by PyJWT.

Which algorithms are taken follows from the kind of key, never from the token: a secret verifies HS256 only, a public
key RS256 and ES256 only. So neither ``alg: none`` nor a public key that is used as a secret gets in.
"""

from typing import Any, Final

import jwt

from gateway.auth.principal import ALL_SCOPES, SCOPES, Principal, Scope
from gateway.auth.signing_keys import NoKeys, SigningKeys
from shared.errors import Unauthenticated, Unavailable
from shared.settings import Settings, SettingsError

_ASYMMETRIC: Final = ["RS256", "ES256"]
#: Of RFC 7519's StringOrURI; as long as OpenID Connect lets it be.
_LONGEST_SUBJECT: Final = 255


class KeysUnreachable(Unavailable):
    code = "jwks_unreachable"


class JsonWebTokens:
    def __init__(self, settings: Settings) -> None:
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._leeway_s = settings.jwt_leeway_s
        self._key = settings.jwt_secret.get_secret_value() if settings.jwt_secret else settings.jwt_public_key
        self._algorithms = ["HS256"] if settings.jwt_secret else _ASYMMETRIC
        self._jwks = SigningKeys(settings.jwt_jwks_url) if settings.jwt_jwks_url is not None else None

    def check(self) -> None:
        """At the start. Raises :class:`SettingsError` where the keys cannot be had."""
        if self._jwks is not None:
            try:
                self._jwks.fetch()
            except NoKeys as error:
                raise SettingsError(f"HEADRACE_JWT_JWKS_URL: {error}") from None

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
        except (jwt.PyJWTError, TypeError, ValueError):
            raise Unauthenticated("the token is not valid here") from None
        subject: str = claims["sub"]
        if not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise Unauthenticated(f"the token's sub has to be 1 to {_LONGEST_SUBJECT} printable characters")
        return Principal(f"jwt:{subject}", _scopes_of(claims), float(claims["exp"]) + self._leeway_s)

    async def _key_of(self, token: str) -> Any:  # a text, or a key of the cryptography library
        if self._jwks is None:
            return self._key
        key_id = jwt.get_unverified_header(token).get("kid")
        if not isinstance(key_id, str):
            raise Unauthenticated("the token does not name the key that it is signed with (kid)")
        try:
            key = await self._jwks.find(key_id)
        except NoKeys:
            raise KeysUnreachable("the keys that tokens are verified with cannot be fetched") from None
        if key is None:
            raise Unauthenticated("the token is signed with a key that nobody here knows")
        return key.key


def _scopes_of(claims: dict[str, Any]) -> frozenset[Scope]:
    """All, where the token says nothing of scopes; else those of ours that it names, in a text or, as some identity
    providers have it, in a list."""
    said = claims.get("scope")
    if said is None:
        return ALL_SCOPES
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    return frozenset(Scope(word) for word in words if isinstance(word, str) and word in SCOPES)
