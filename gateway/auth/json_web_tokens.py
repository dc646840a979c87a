"""JWTs of an external issuer, verified by PyJWT.

The accepted algorithms follow from the kind of key, never from the token: a secret verifies HS256 only, a public key
RS256 and ES256 only. So neither ``alg: none`` nor a public key that is used as a secret is accepted.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

import jwt

from gateway.auth.principal import Principal
from gateway.auth.signing_keys import SigningKeys, SigningKeysUnavailable
from shared.errors import Unauthenticated, Unavailable
from shared.model_patterns import LONGEST_PATTERN, MOST_PATTERNS, ModelPatterns
from shared.principal_ids import LONGEST_SUBJECT, is_subject, token_principal
from shared.scopes import DEFAULT_SCOPES, Scope
from shared.setting_types import MOST_DENIED, is_field_path
from shared.settings import Settings, SettingsError

_ASYMMETRIC: Final = ["RS256", "ES256"]
#: What is wrong with a token, for the operator, by the name of PyJWT's exception.
_REASONS: Final = {
    "InvalidAudienceError": "its aud is not HEADRACE_JWT_AUDIENCE",
    "InvalidIssuerError": "its iss is not HEADRACE_JWT_ISSUER",
    "InvalidSignatureError": "its signature does not fit the key of HEADRACE_JWT_…",
    "InvalidAlgorithmError": "its alg does not fit the key of HEADRACE_JWT_…",
    "ImmatureSignatureError": "its nbf or iat lies in the future; compare the clocks, or raise HEADRACE_JWT_LEEWAY_S",
    "InvalidIssuedAtError": "its iat is not a time",
    "InvalidSubjectError": "its sub is not a string",
    "MissingRequiredClaimError": "it lacks one of exp, sub, aud, and iss if HEADRACE_JWT_ISSUER is set",
}


class KeysUnreachable(Unavailable):
    code = "jwks_unreachable"
    message = "tokens cannot be verified at the moment; try again shortly"
    detail = "HEADRACE_JWT_JWKS_URL: cannot be fetched; check the URL and its server from the gateways"
    when = "tokens cannot be verified at the moment"


class JsonWebTokens:
    def __init__(self, settings: Settings) -> None:
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._leeway_s = settings.jwt_leeway_s
        self._key = settings.jwt_secret.get_secret_value() if settings.jwt_secret else settings.jwt_public_key
        self._algorithms = ["HS256"] if settings.jwt_secret else _ASYMMETRIC
        self._jwks = SigningKeys(settings.jwt_jwks_url) if settings.jwt_jwks_url is not None else None

    def check(self) -> None:
        """Fetch the keys once, at the start. Raises :class:`SettingsError` if they are unavailable."""
        if self._jwks is not None:
            try:
                self._jwks.fetch()
            except SigningKeysUnavailable as error:
                raise SettingsError(f"HEADRACE_JWT_JWKS_URL: {error}") from None

    async def principal(self, token: str) -> Principal:
        """Verify the token. Raises :class:`Unauthenticated`, and :class:`KeysUnreachable` if the keys are
        unavailable."""
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
            expires_at = _finite(claims["exp"])
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired") from None
        except (jwt.PyJWTError, TypeError, ValueError, OverflowError) as error:
            raise Unauthenticated("the token is invalid", detail=_reason(error)) from None
        subject: str = claims["sub"]
        if not is_subject(subject):
            raise Unauthenticated(f"sub: must have 1 to {LONGEST_SUBJECT} printable characters")
        return Principal(
            token_principal(subject),
            _scopes_of(claims),
            expires_at,
            leeway_s=self._leeway_s,
            models=_models_of(claims),
            denied=_denied_of(claims),
        )

    async def _key_of(self, token: str) -> Any:  # a string, or a key of the cryptography library
        if self._jwks is None:
            return self._key
        key_id = jwt.get_unverified_header(token).get("kid")
        if not isinstance(key_id, str):
            raise Unauthenticated("kid: missing; the token must name its signing key")
        try:
            key = await self._jwks.find(key_id)
        except SigningKeysUnavailable:
            raise KeysUnreachable from None
        if key is None:
            raise Unauthenticated("kid: unknown signing key")
        return key.key


def _reason(error: Exception) -> str:
    """Return the fault of a token, by the class of the error: its text may contain a part of the token."""
    return f"token: {_REASONS.get(type(error).__name__, 'malformed')}"


def _finite(claim: Any) -> float:
    """Return a time. Raises ValueError, OverflowError and TypeError for one that a float cannot hold."""
    seconds = float(claim)
    if not math.isfinite(seconds):
        raise ValueError
    return seconds


def _scopes_of(claims: dict[str, Any]) -> frozenset[Scope]:
    """Return all default scopes if the token has no ``scope``; else those of ours that it lists, as a string or, as
    some identity providers send it, as a list."""
    if "scope" not in claims:
        return DEFAULT_SCOPES
    return frozenset(Scope(word) for word in _words(claims["scope"]) if word in set(Scope))


def _models_of(claims: dict[str, Any]) -> ModelPatterns | None:
    """Return the allowed models: all if the token has no ``models``; none for null or a claim of another type."""
    if "models" not in claims:
        return None
    claim = claims["models"]
    words = _words(claim.replace(",", " ") if isinstance(claim, str) else claim)
    patterns = [word for word in words if 0 < len(word) <= LONGEST_PATTERN]
    return ModelPatterns(patterns[:MOST_PATTERNS])


def _denied_of(claims: dict[str, Any]) -> tuple[str, ...]:
    """Return the denied fields. A claim that is not a list of paths is refused: otherwise it would deny nothing.
    Raises :class:`Unauthenticated`."""
    claim = claims.get("denied_fields")
    words = claim.replace(",", " ").split() if isinstance(claim, str) else [] if claim is None else claim
    is_list = isinstance(words, list) and len(words) <= MOST_DENIED
    if not is_list or not all(isinstance(word, str) and is_field_path(word) for word in words):
        raise Unauthenticated(f"denied_fields: must be a list of at most {MOST_DENIED} paths of fields")
    return tuple(words)


def _words(claim: Any) -> Iterator[str]:
    """Yield the words of a claim that is text, or the texts of a list."""
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    yield from (word for word in words if isinstance(word, str))
