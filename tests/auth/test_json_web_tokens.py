"""A JWT needs a valid signature, audience, expiry and subject; it grants its scopes until it expires."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from tests.conftest import StartSystem
from tests.credentials import AUDIENCE, JWT_SECRET, bearer, rsa_key, start_stream, token
from tests.fakes import Answer
from tests.responses import code_of
from tests.sse_client import Broken, open_sse
from tests.system import SECRET, System, ask


def unsigned(claims: Mapping[str, object], algorithm: str) -> str:
    def part(value: Mapping[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims)}."


def with_times(**times: object) -> str:
    """Sign a token with these claims as they are: PyJWT checks some before it signs."""
    claims = {"sub": "alice", "aud": AUDIENCE, "exp": time.time() + 600} | times
    return jwt.api_jws.encode(json.dumps(claims).encode(), JWT_SECRET, algorithm="HS256")


#: Times that are no times. A float cannot hold the large ones.
BAD_TIMES = [
    (claim, name, value)
    for claim in ("exp", "nbf", "iat")
    for name, value in {
        "huge": 10**400,
        "huge text": "9" * 400,
        "too many digits": "9" * 5000,
        "infinite": float("inf"),
        "minus infinity": float("-inf"),
        "no number": float("nan"),
        "text": "soon",
        "a list": [1],
        "an object": {"at": 1},
    }.items()
]
BAD_TOKENS: dict[str, Callable[[], str]] = {
    "expired": lambda: token(exp=time.time() - 1),
    "not yet": lambda: token(nbf=time.time() + 600),
    "without expiry": lambda: token(exp=None),
    "without subject": lambda: token(subject=None),  # type: ignore[arg-type]
    "for others": lambda: token(aud="others"),
    "without audience": lambda: token(aud=None),
    "another's signature": lambda: token(key="another-secret-of-at-least-32-bytes-x"),
    "another algorithm": lambda: token(algorithm="HS512"),
    "none": lambda: unsigned({"sub": "alice", "aud": AUDIENCE, "exp": time.time() + 600}, "none"),
    "nOnE": lambda: unsigned({"sub": "alice", "aud": AUDIENCE, "exp": time.time() + 600}, "nOnE"),
    "no signature": lambda: token().rpartition(".")[0] + ".",
    "changed": lambda: changed(token()),
    "no name": lambda: token(""),
    "a name that is no text": lambda: token("alice\x1b[2J"),
    "a long name": lambda: token("a" * 256),
    **{f"{claim} {name}": partial(with_times, **{claim: value}) for claim, name, value in BAD_TIMES},
    "a ticket": lambda: jwt.encode({"sub": "x", "aud": "headrace:stream", "exp": time.time() + 9}, SECRET),
}


def changed(good: str) -> str:
    head, _, signature = good.split(".")
    claims = {"sub": "root", "aud": AUDIENCE, "exp": time.time() + 600}
    return f"{head}.{unsigned(claims, 'HS256').split('.')[1]}.{signature}"


@pytest.mark.parametrize("bad", BAD_TOKENS)
async def test_an_invalid_token_is_refused(guarded: System, bad: str) -> None:
    answer = await guarded.http.get(f"{guarded.url}/v1/models", headers=bearer(BAD_TOKENS[bad]()))
    assert code_of(answer) == (401, "unauthenticated")


@pytest.mark.parametrize("scope", ["openid read profile", ["openid", "read", {}]])
async def test_a_token_does_only_what_its_scopes_allow(guarded: System, scope: object) -> None:
    reads = token(scope=scope)
    answer = await guarded.http.post(f"{guarded.url}/chat", json=ask("echo"), headers=bearer(reads))
    assert code_of(answer) == (403, "forbidden")
    stream_id = (await start_stream(guarded, token(scope="chat")))["stream_id"]
    assert (await guarded.http.get(f"{guarded.url}/chat/{stream_id}", headers=bearer(reads))).status_code == 200


async def test_a_connection_ends_with_its_token(guarded: System) -> None:
    guarded.fake.play("ends-with-token", Answer(deltas=["a"], end="hang"))
    stream_id = (await start_stream(guarded, token(), "ends-with-token"))["stream_id"]
    url = f"{guarded.url}/chat/stream/{stream_id}"
    async with await open_sse("GET", url, headers=bearer(token())) as connection:
        await connection.next("token")  # so that the next reader gets it at once
    async with await open_sse("GET", url, headers=bearer(token(exp=time.time() + 5))) as connection:
        await connection.next("token")
        with pytest.raises(Broken):
            await connection.next("done")
    await guarded.http.post(f"{guarded.url}/chat/{stream_id}/cancel", headers=bearer(token()))


def pem_of(key: Any) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = key.public_key().public_bytes(encoding, form)
    return pem.decode()


async def test_a_public_key_verifies_and_cannot_sign(start_system: StartSystem) -> None:
    key = rsa_key()
    pem = pem_of(key)
    system = await start_guarded(start_system, key, "RS256", jwt_public_key=pem.replace("\n", "\\n"))
    # Key confusion: an attacker signs with the public key as if it were a secret.
    head, claims = unsigned({"sub": "a", "aud": AUDIENCE, "exp": time.time() + 600}, "HS256").split(".")[:2]
    signature = hmac.new(pem.encode(), f"{head}.{claims}".encode(), hashlib.sha256).digest()
    forged = f"{head}.{claims}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    for bad in (forged, token(), token(key=rsa_key(), algorithm="RS256"), token(key=key, algorithm="RS512")):
        assert (await system.http.get(f"{system.url}/v1/models", headers=bearer(bad))).status_code == 401


async def start_guarded(start_system: StartSystem, key: Any, algorithm: str, **settings: object) -> System:
    """Start a system that accepts tokens signed with ``key``; it becomes ready only if it does."""
    return await start_system(
        gateways=1,
        workers=1,
        auth="jwt",
        jwt_audience=AUDIENCE,
        credentials=bearer(token(key=key, algorithm=algorithm)),
        **settings,
    )
