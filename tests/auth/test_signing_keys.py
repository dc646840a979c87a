"""Signing keys come from a JWKS server: keys are rotated, and a short outage of the server refuses no token."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.auth.json_web_tokens import JsonWebTokens, KeysUnreachable
from gateway.auth.signing_keys import SigningKeys, SigningKeysUnavailable
from shared.settings import Settings
from tests.auth.refused_start import gateway_refuses_to_start
from tests.conftest import StartSystem
from tests.credentials import AUDIENCE, bearer, rsa_key


class JwksServer:
    """Serves the public halves of the current ``keys``, by id. While ``is_away``, it closes connections without a
    response."""

    def __init__(self, keys: dict[str, Any]) -> None:
        self.keys = keys
        self.is_away = False
        self.requests = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        if not self.is_away:
            writer.write(self._answer())
        writer.close()

    def _answer(self) -> bytes:
        found = []
        for key_id, key in self.keys.items():
            algorithm = jwt.algorithms.ECAlgorithm
            found.append(algorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": key_id, "alg": "ES256"})
        body = json.dumps({"keys": found}).encode()
        return f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def jwks_server(keys: dict[str, Any]) -> AsyncIterator[JwksServer]:
    served = JwksServer(keys)
    async with await asyncio.start_server(served.serve, "127.0.0.1", 0) as server:
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
        yield served


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def signed(key: Any, key_id: str) -> str:
    claims = {"sub": "alice", "aud": AUDIENCE, "exp": time.time() + 600}
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": key_id})


async def test_keys_of_a_jwks_verify_even_if_its_server_is_down(start_system: StartSystem) -> None:
    old, new = ec_key(), ec_key()
    async with jwks_server({"old": old, "new": new}) as served:
        system = await start_system(
            gateways=1,
            workers=1,
            auth="jwt",
            jwt_audience=AUDIENCE,
            jwt_jwks_url=served.url,
            credentials=bearer(signed(old, "old")),
        )
        claims = {"sub": "alice", "aud": AUDIENCE, "exp": time.time() + 600}
        of_another_kind = jwt.encode(claims, rsa_key(), algorithm="RS256", headers={"kid": "new"})
        nameless = jwt.encode(claims, new, algorithm="ES256")
        seen = [
            (await system.http.get(f"{system.url}/v1/models", headers=bearer(shown))).status_code
            for shown in (signed(new, "new"), signed(new, "old"), signed(new, "unknown"), of_another_kind, nameless)
        ]
        assert seen == [200, 401, 401, 401, 401]
        served.is_away = True
        pending = [
            system.http.get(f"{system.url}/v1/models", headers=bearer(signed(old, f"unknown-{number}")))
            for number in range(20)
        ]
        assert {answer.status_code for answer in await asyncio.gather(*pending)} <= {401, 503}
        assert served.requests <= 3  # a flood of unknown keys does not reach their server
        answer = await system.http.get(f"{system.url}/v1/models", headers=bearer(signed(old, "old")))
        assert answer.status_code == 200  # an outage of their server refuses no known key


async def test_signing_keys_are_rotated_and_outlive_an_outage_of_their_server() -> None:
    old, new = ec_key(), ec_key()
    async with jwks_server({"old": old}) as served:
        keys = SigningKeys(served.url, life_s=0, pause_s=0)
        assert await keys.find("old") is not None
        assert await keys.find("new") is None
        served.keys = {"new": new}
        assert await keys.find("new") is not None
        assert await keys.find("old") is None
        served.is_away = True
        before = served.requests
        found = await asyncio.gather(*(keys.find("new") for _ in range(20)))
        assert None not in found
        assert served.requests == before + 1
        with pytest.raises(SigningKeysUnavailable):
            await keys.find("newer")
        served.keys["newer"] = ec_key()
        served.is_away = False
        assert await keys.find("newer") is not None


async def test_signing_keys_expire_if_their_server_stays_away() -> None:
    async with jwks_server({"old": ec_key()}) as served:
        keys = SigningKeys(served.url, life_s=0, pause_s=0, kept_s=0)
        assert await keys.find("old") is not None
        served.is_away = True
        with pytest.raises(SigningKeysUnavailable):
            await keys.find("old")


NO_JWKS = {
    "a page": "<html>Sign in</html>",
    "no keys": '{"keys": []}',
    "no set": '{"issuer": "https://id.example"}',
    "no object": '{"keys": [1]}',
    "a huge number": "9" * 5000,
    "deep": "[" * 200_000,
}


@pytest.mark.parametrize("body", NO_JWKS.values(), ids=NO_JWKS)
async def test_an_invalid_jwks_stops_the_start_and_later_blames_no_token(body: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
        environment = {"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_AUDIENCE": AUDIENCE, "HEADRACE_JWT_JWKS_URL": url}
        await gateway_refuses_to_start(environment, message="HEADRACE_JWT_JWKS_URL: ")
        tokens = JsonWebTokens(Settings(auth=("jwt",), jwt_audience=AUDIENCE, jwt_jwks_url=url))
        with pytest.raises(KeysUnreachable):
            await tokens.principal(signed(ec_key(), "new"))
