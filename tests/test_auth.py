"""Who may come in, and to what: API keys, JWTs, tickets, and whose a stream is."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.auth.json_web_tokens import JsonWebTokens, KeysUnreachable
from gateway.auth.signing_keys import SigningKeysUnavailable, SigningKeys
from shared.settings import Settings
from tests.conftest import StartSystem
from tests.fakes import Answer
from tests.sse_client import Broken, open_sse, text_of
from tests.system import REPOSITORY, SECRET, System, ask

JWT_SECRET = "a-secret-for-tests-" * 4
AUDIENCE = "headrace-tests"
GUARDED = {"auth": "keys,jwt", "jwt_secret": JWT_SECRET, "jwt_audience": AUDIENCE, "jwt_leeway_s": 0}


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Two gateways that want keys or tokens."""
    system = System(tmp_path_factory.mktemp("guarded"), gateways=2, workers=1, providers=("openai",), **GUARDED)  # type: ignore[arg-type]
    try:
        system.http.headers["Authorization"] = f"Bearer {token('boot')}"
        await system.start()
        del system.http.headers["Authorization"]
        yield system
    finally:
        await system.stop()


def token(subject: str = "alice", *, key: Any = JWT_SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    standard = {"sub": subject, "aud": AUDIENCE, "exp": time.time() + 600}
    made = {name: value for name, value in (standard | claims).items() if value is not None}
    return jwt.encode(made, key, algorithm=algorithm)


def bearer(credentials: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credentials}"}


def headrace(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, against the system's Redis."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    return subprocess.run(
        [sys.executable, "-m", "headrace", *arguments],
        env=environment | {"HEADRACE_REDIS_URL": system.broker.url},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def make_key(system: System, name: str, *options: str) -> str:
    made = await asyncio.to_thread(headrace, system, "keys", "create", name, *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def start(system: System, credentials: str, model: str = "echo", **body: Any) -> dict[str, str]:
    answer = await system.http.post(f"{system.url}/chat", json=ask(model, **body), headers=bearer(credentials))
    assert answer.status_code == 202, answer.text
    started: dict[str, str] = answer.json()
    return started


# --- who one is


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/chat"),
        ("POST", "/chat/stream"),
        ("GET", "/chat/{id}"),
        ("GET", "/chat/stream/{id}"),
        ("POST", "/chat/{id}/cancel"),
        ("DELETE", "/chat/{id}"),
        ("GET", "/v1/models"),
    ],
)
async def test_nothing_is_done_for_who_shows_nothing_or_rubbish(guarded: System, method: str, path: str) -> None:
    stream_id = (await start(guarded, token()))["stream_id"]
    url = guarded.url + path.format(id=stream_id)
    body = json.dumps(ask("echo"))
    key = await make_key(guarded, "somebody")
    for headers in (
        {},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer rubbish"},
        {"X-Api-Key": ""},
        {"X-Api-Key": key[:-1] + ("a" if key[-1] != "a" else "b")},
        {"X-Api-Key": f"hr-{'0' * 12}-{key.rpartition('-')[2]}"},
        {"X-Api-Key": "hr--"},
        {"Cookie": "headrace=rubbish"},
    ):
        answer = await guarded.http.request(method, url, content=body, headers=headers)
        assert code_of(answer) == (401, "unauthenticated"), headers
        assert answer.headers["www-authenticate"] == "Bearer"
    assert (await guarded.http.get(f"{guarded.url}/chat/{stream_id}", headers=bearer(token()))).status_code == 200


async def test_a_key_is_taken_in_any_of_the_three_places(guarded: System) -> None:
    key = await make_key(guarded, "three-places")
    for headers in ({"Authorization": f"Bearer {key}"}, {"X-Api-Key": key}, {"Cookie": f"headrace={key}"}):
        answer = await guarded.http.get(f"{guarded.url}/v1/models", headers=headers)
        assert answer.status_code == 200


async def test_health_and_page_are_for_everybody(guarded: System) -> None:
    for path in ("/healthz", "/readyz", "/", "/metrics"):
        assert (await guarded.http.get(guarded.url + path)).status_code == 200


# --- keys


async def test_keys_are_listed_without_their_secrets_and_stored_as_hashes(guarded: System) -> None:
    key = await make_key(guarded, "listed", "--scopes", "read,chat", "--expires-in", "90d")
    listed = (await asyncio.to_thread(headrace, guarded, "keys", "list")).stdout
    (line,) = [line for line in listed.splitlines() if " listed " in line]
    assert line.startswith(key.split("-")[1])
    assert "chat,read" in line
    secret = key.split("-", 2)[2]
    assert secret not in listed
    async with guarded.broker.client() as client:
        stored = b"".join([await client.get(name) or b"" async for name in client.scan_iter(match="hr:apikey:*")])
    assert secret.encode() not in stored


async def test_a_revoked_key_is_refused_and_its_connections_are_cut(guarded: System) -> None:
    gate = asyncio.Event()
    guarded.fake.play("revoked", Answer(deltas=["a", "b"], gate=gate, gate_after=1))
    key = await make_key(guarded, "revoked")
    other = await make_key(guarded, "revoked")
    stream_id = (await start(guarded, key, "revoked"))["stream_id"]
    url = f"{guarded.gateways[1].url}/chat/stream/{stream_id}"
    async with await open_sse("GET", url, headers=bearer(key)) as connection:
        await connection.next("token")
        assert (await asyncio.to_thread(headrace, guarded, "keys", "revoke", key.split("-")[1])).returncode == 0
        with pytest.raises(Broken):  # not a clean end, which would look like the whole answer
            await connection.next("done")
    assert code_of(await guarded.http.get(url, headers=bearer(key))) == (401, "unauthenticated")
    gate.set()
    # Rotation: another key of the same name goes on where the first left.
    async with await open_sse("GET", url, headers=bearer(other)) as connection:
        assert text_of(await connection.rest()) == "ab"


async def test_a_key_expires(guarded: System) -> None:
    key = await make_key(guarded, "short", "--expires-in", "2s")

    async def refused() -> bool:
        return (await guarded.http.get(f"{guarded.url}/v1/models", headers=bearer(key))).status_code == 401

    await guarded.eventually(refused)


async def test_a_key_does_only_what_its_scopes_say(guarded: System) -> None:
    reads, chats = await make_key(guarded, "scoped", "--scopes", "read"), await make_key(guarded, "scoped")
    stream_id = (await start(guarded, chats))["stream_id"]
    refused = [
        await guarded.http.post(f"{guarded.url}/chat", json=ask("echo"), headers=bearer(reads)),
        await guarded.http.post(f"{guarded.url}/chat/{stream_id}/cancel", headers=bearer(reads)),
        await guarded.http.delete(f"{guarded.url}/chat/{stream_id}", headers=bearer(reads)),
    ]
    assert [code_of(answer) for answer in refused] == [(403, "forbidden")] * 3
    assert "scope chat" in refused[0].json()["error"]["message"]
    assert (await guarded.http.get(f"{guarded.url}/chat/{stream_id}", headers=bearer(reads))).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["create", "a b"], "NAME"),
        (["create", "a", "--scopes", "chat,fly"], "fly"),
        (["create", "a", "--scopes", ""], "--scopes"),
        (["create", "a", "--expires-in", "soon"], "--expires-in"),
        (["revoke", "0" * 12], "not found"),
    ],
)
async def test_the_command_line_says_what_is_wrong(guarded: System, arguments: list[str], names: str) -> None:
    done = await asyncio.to_thread(headrace, guarded, "keys", *arguments)
    assert done.returncode != 0
    assert names in done.stderr
    assert "Traceback" not in done.stderr


# --- tokens


def unsigned(claims: Mapping[str, object], algorithm: str) -> str:
    def part(value: Mapping[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims)}."


BAD_TOKENS = {
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
    "a ticket": lambda: jwt.encode({"sub": "x", "aud": "headrace:stream", "exp": time.time() + 9}, SECRET),
}


def changed(good: str) -> str:
    head, _, signature = good.split(".")
    claims = {"sub": "root", "aud": AUDIENCE, "exp": time.time() + 600}
    return f"{head}.{unsigned(claims, 'HS256').split('.')[1]}.{signature}"


@pytest.mark.parametrize("bad", BAD_TOKENS)
async def test_a_bad_token_is_refused(guarded: System, bad: str) -> None:
    answer = await guarded.http.get(f"{guarded.url}/v1/models", headers=bearer(BAD_TOKENS[bad]()))
    assert code_of(answer) == (401, "unauthenticated")


@pytest.mark.parametrize("scope", ["openid read profile", ["openid", "read", {}]])
async def test_a_tokens_scopes_are_heeded(guarded: System, scope: object) -> None:
    reads = token(scope=scope)
    answer = await guarded.http.post(f"{guarded.url}/chat", json=ask("echo"), headers=bearer(reads))
    assert code_of(answer) == (403, "forbidden")
    stream_id = (await start(guarded, token(scope="chat")))["stream_id"]
    assert (await guarded.http.get(f"{guarded.url}/chat/{stream_id}", headers=bearer(reads))).status_code == 200


async def test_a_connection_ends_with_its_token(guarded: System) -> None:
    guarded.fake.play("ends-with-token", Answer(deltas=["a"], end="hang"))
    stream_id = (await start(guarded, token(), "ends-with-token"))["stream_id"]
    url = f"{guarded.url}/chat/stream/{stream_id}"
    async with await open_sse("GET", url, headers=bearer(token(exp=time.time() + 2))) as connection:
        await connection.next("token")
        with pytest.raises(Broken):
            await connection.next("done")
    await guarded.http.post(f"{guarded.url}/chat/{stream_id}/cancel", headers=bearer(token()))


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(key: Any) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = key.public_key().public_bytes(encoding, form)
    return pem.decode()


async def test_a_public_key_verifies_and_is_no_secret(start_system: StartSystem) -> None:
    key = rsa_key()
    pem = pem_of(key)
    system = await start_guarded(start_system, key, "RS256", jwt_public_key=pem.replace("\n", "\\n"))
    # Key confusion: whoever has the public key signs with it as if it were a secret.
    head, claims = unsigned({"sub": "a", "aud": AUDIENCE, "exp": time.time() + 600}, "HS256").split(".")[:2]
    signature = hmac.new(pem.encode(), f"{head}.{claims}".encode(), hashlib.sha256).digest()
    forged = f"{head}.{claims}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    for bad in (forged, token(), token(key=rsa_key(), algorithm="RS256"), token(key=key, algorithm="RS512")):
        assert (await system.http.get(f"{system.url}/v1/models", headers=bearer(bad))).status_code == 401


async def start_guarded(start_system: StartSystem, key: Any, algorithm: str, **settings: object) -> System:
    """A system that takes tokens signed with ``key``: its being ready shows that it does."""
    return await start_system(
        gateways=1,
        workers=1,
        auth="jwt",
        jwt_audience=AUDIENCE,
        credentials=bearer(token(key=key, algorithm=algorithm)),
        **settings,
    )


class JwksServer:
    """Serves the public halves of ``keys``, by id, as they are at the time. While ``is_away``, connections break."""

    def __init__(self, keys: dict[str, Any]) -> None:
        self.keys = keys
        self.is_away = False
        self.asked = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
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


async def test_keys_of_a_jwks_verify(start_system: StartSystem) -> None:
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
        asked = [
            system.http.get(f"{system.url}/v1/models", headers=bearer(signed(old, f"unknown-{number}")))
            for number in range(20)
        ]
        assert {answer.status_code for answer in await asyncio.gather(*asked)} <= {401, 503}
        assert served.asked <= 3  # a flood of unknown keys is none for their server
        answer = await system.http.get(f"{system.url}/v1/models", headers=bearer(signed(old, "old")))
        assert answer.status_code == 200  # nor is its outage ours


async def test_signing_keys_are_rotated_and_outlive_their_server() -> None:
    old, new = ec_key(), ec_key()
    async with jwks_server({"old": old}) as served:
        keys = SigningKeys(served.url, life_s=0, pause_s=0)
        assert await keys.find("old") is not None
        assert await keys.find("new") is None
        served.keys = {"new": new}
        assert await keys.find("new") is not None
        assert await keys.find("old") is None
        served.is_away = True
        asked = served.asked
        found = await asyncio.gather(*(keys.find("new") for _ in range(20)))
        assert None not in found
        assert served.asked == asked + 1
        with pytest.raises(SigningKeysUnavailable):
            await keys.find("newer")
        served.keys["newer"] = ec_key()
        served.is_away = False
        assert await keys.find("newer") is not None


async def test_signing_keys_do_not_outlive_their_server_for_ever() -> None:
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
async def test_what_is_no_jwks_stops_the_start_and_later_is_no_fault_of_a_token(body: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
        said = {"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_AUDIENCE": AUDIENCE, "HEADRACE_JWT_JWKS_URL": url}
        await test_bad_configuration_stops_the_start(said, [], "HEADRACE_JWT_JWKS_URL: ")
        tokens = JsonWebTokens(Settings(auth=("jwt",), jwt_audience=AUDIENCE, jwt_jwks_url=url))
        with pytest.raises(KeysUnreachable):
            await tokens.principal(signed(ec_key(), "new"))


# --- whose a stream is


async def test_a_stream_is_its_owners_alone(guarded: System) -> None:
    alice, bob = token("alice"), token("bob")
    stream_id = (await start(guarded, alice, prompt="for alice"))["stream_id"]
    base = guarded.gateways[1].url
    nowhere = f"{base}/chat/{'00' * 17}"
    while (await guarded.http.get(nowhere, headers=bearer(bob))).status_code == 503:
        await asyncio.sleep(0.1)  # a Redis that has just begun may have lost it
    for method, path in (
        ("GET", f"/chat/{stream_id}"),
        ("GET", f"/chat/stream/{stream_id}"),
        ("POST", f"/chat/{stream_id}/cancel"),
        ("DELETE", f"/chat/{stream_id}"),
    ):
        theirs = await guarded.http.request(method, base + path, headers=bearer(bob))
        nobodys = await guarded.http.request(method, base + path.replace(stream_id, "00" * 17), headers=bearer(bob))
        assert code_of(theirs) == (404, "stream_not_found")
        assert theirs.json() == nobodys.json()  # not even that there is one
    status = (await guarded.http.get(f"{base}/chat/{stream_id}", headers=bearer(alice))).json()
    assert status["text"] == "for alice"


async def test_a_key_and_a_token_of_one_name_are_two(guarded: System) -> None:
    key = await make_key(guarded, "alice")
    stream_id = (await start(guarded, key))["stream_id"]
    answer = await guarded.http.get(f"{guarded.url}/chat/{stream_id}", headers=bearer(token("alice")))
    assert code_of(answer) == (404, "stream_not_found")


async def test_an_idempotency_key_is_ones_own(guarded: System) -> None:
    headers = {"Idempotency-Key": "the-same"}
    ids = []
    for who in ("alice", "bob", "alice"):
        answer = await guarded.http.post(
            f"{guarded.url}/chat", json=ask("echo", who[0]), headers=headers | bearer(token(who))
        )
        ids.append(answer.json()["stream_id"])
    assert ids[0] == ids[2] != ids[1]


async def listed(system: System, who: str, **query: Any) -> dict[str, Any]:
    answer = await system.http.get(f"{system.url}/chat", params=query, headers=bearer(token(who)))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_one_lists_ones_own_streams_the_newest_first(guarded: System) -> None:
    assert await listed(guarded, "carol") == {"streams": [], "next_page": None}
    made = [(await start(guarded, token("carol"), metadata={"n": str(n)}))["stream_id"] for n in range(7)]
    await start(guarded, token("dave"))
    pages, page = [], None
    while True:
        body = await listed(guarded, "carol", limit=3, **({"page": page} if page else {}))
        pages.append([(s["stream_id"], s["metadata"]["n"]) for s in body["streams"]])
        if (page := body["next_page"]) is None:
            break
    whole = [(stream_id, str(n)) for n, stream_id in enumerate(made)][::-1]
    assert [entry for part in pages for entry in part] == whole
    assert [len(part) for part in pages[:2]] == [3, 3]
    await guarded.http.delete(f"{guarded.url}/chat/{made[3]}", headers=bearer(token("carol")))
    left = await listed(guarded, "carol")
    assert [s["stream_id"] for s in left["streams"]] == [s for s in made[::-1] if s != made[3]]
    assert "text" not in left["streams"][0]
    bad = await guarded.http.get(f"{guarded.url}/chat?page=rubbish", headers=bearer(token("carol")))
    assert code_of(bad) == (422, "invalid_request")


# --- tickets


async def test_an_owner_gives_others_a_link(guarded: System) -> None:
    gate = asyncio.Event()
    guarded.fake.play("shared", Answer(deltas=["a", "b"], gate=gate, gate_after=1))
    stream_id = (await start(guarded, token(), "shared"))["stream_id"]
    url = f"{guarded.url}/chat/{stream_id}/tickets"
    assert code_of(await guarded.http.post(url, json={}, headers=bearer(token("bob")))) == (404, "stream_not_found")
    for wrong in ({"life_s": 0}, {"life_s": 1e9}, {"may_fly": True}):
        answer = await guarded.http.post(url, json=wrong, headers=bearer(token()))
        assert code_of(answer) == (422, "invalid_request")
    made = (await guarded.http.post(url, json={"life_s": 60, "may_cancel": True}, headers=bearer(token()))).json()
    ticket = made["stream_url"].partition("ticket=")[2]
    async with await open_sse("GET", guarded.gateways[1].url + made["stream_url"]) as connection:
        await connection.next("token")
        answer = await guarded.http.post(f"{guarded.url}/chat/{stream_id}/cancel?ticket={ticket}")
        assert answer.status_code == 202
        assert (await connection.rest())[-1].data["finish_reason"] == "cancelled"
    gate.set()


async def test_a_ticket_reads_one_stream_and_no_more(guarded: System) -> None:
    started, other = await start(guarded, token(), prompt="with a ticket"), await start(guarded, token())
    ticket = started["stream_url"].partition("ticket=")[2]
    async with await open_sse("GET", guarded.gateways[1].url + started["stream_url"]) as connection:
        assert text_of(await connection.rest()) == "with a ticket"
    status = await guarded.http.get(f"{guarded.url}{started['status_url']}?ticket={ticket}")
    assert status.json()["text"] == "with a ticket"
    elsewhere = await guarded.http.get(f"{guarded.url}/chat/{other['stream_id']}?ticket={ticket}")
    assert code_of(elsewhere) == (401, "invalid_ticket")
    cancel = await guarded.http.post(f"{guarded.url}/chat/{started['stream_id']}/cancel?ticket={ticket}")
    assert code_of(cancel) == (403, "forbidden")
    delete = await guarded.http.delete(f"{guarded.url}/chat/{started['stream_id']}?ticket={ticket}")
    assert code_of(delete) == (401, "unauthenticated")


async def test_a_link_ends_with_the_key_that_made_it(guarded: System) -> None:
    gate = asyncio.Event()
    guarded.fake.play("linked", Answer(deltas=["a", "b"], gate=gate, gate_after=1))
    first, second = await make_key(guarded, "linked"), await make_key(guarded, "linked", "--scopes", "read")
    started = await start(guarded, first, "linked")
    links = f"{guarded.url}/chat/{started['stream_id']}/tickets"
    asked = await guarded.http.post(links, json={"life_s": 90 * 24 * 3600}, headers=bearer(second))
    link = guarded.gateways[1].url + asked.json()["stream_url"]
    async with (
        await open_sse("GET", link) as by_link,
        await open_sse("GET", guarded.url + started["stream_url"]) as by_stream_url,
    ):
        await by_link.next("token")
        for key in (first, second):
            assert (await asyncio.to_thread(headrace, guarded, "keys", "revoke", key.split("-")[1])).returncode == 0
        with pytest.raises(Broken):
            await by_link.next("done")
        assert code_of(await guarded.http.get(link)) == (401, "invalid_ticket")
        gate.set()
        assert text_of(await by_stream_url.rest()) == "ab"


async def test_a_connection_ends_with_its_ticket(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, ticket_life_s=2)
    system.fake.play("held", Answer(deltas=["a"], end="hang"))
    started = (await system.http.post(f"{system.url}/chat", json=ask("held"))).json()
    async with await open_sse("GET", system.url + started["stream_url"]) as connection:
        await connection.next("token")
        with pytest.raises(Broken):
            await connection.next("done")
    assert code_of(await system.http.get(system.url + started["stream_url"])) == (401, "invalid_ticket")
    await system.http.post(f"{system.url}/chat/{started['stream_id']}/cancel")


# --- cookies, and what must not be seen


async def test_a_cookie_is_not_taken_from_another_sites_page(guarded: System) -> None:
    url = f"{guarded.url}/chat"
    cookie = {"Cookie": f"headrace={token()}"}
    own = guarded.url
    for origin, status in (("https://evil.example", 403), ("null", 403), (own, 202)):
        answer = await guarded.http.post(url, json=ask("echo"), headers=cookie | {"Origin": origin})
        assert answer.status_code == status, origin


@pytest.mark.parametrize(("origins", "status"), [("", 403), ("https://friend.example", 403), ("*", 202)])
async def test_another_sites_page_gets_nothing_of_a_gateway_that_asks_nobody(
    start_system: StartSystem, origins: str, status: int
) -> None:
    """It needs no credentials, and asks without a preflight by what it says its body is."""
    system = await start_system(gateways=1, workers=1, cors_origins=origins)
    url, body = f"{system.url}/chat", json.dumps(ask("echo"))
    page = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}
    assert (await system.http.post(url, content=body, headers=page)).status_code == status
    if origins.startswith("https"):
        assert (await system.http.post(url, content=body, headers=page | {"Origin": origins})).status_code == 202
    mine = await system.http.post(
        url, content=body, headers=page | {"Origin": system.url, "Sec-Fetch-Site": "same-origin"}
    )
    stopped = await system.http.post(f"{system.url}/ops/streams/{mine.json()['stream_id']}/cancel", headers=page)
    assert (mine.status_code, stopped.status_code) == (202, status)


@pytest.mark.parametrize("said", [{}, {"auth": "none"}, {"trusted_proxies": "127.0.0.1"}])
async def test_a_page_that_rebinds_its_name_to_loopback_gets_nothing(
    start_system: StartSystem, said: dict[str, str]
) -> None:
    system = await start_system(gateways=1, workers=1, **said)
    stream_id = (await system.http.post(f"{system.url}/chat", json=ask("echo"))).json()["stream_id"]
    for path in ("/chat", f"/chat/{stream_id}", "/v1/models"):
        rebound = await system.http.get(f"{system.url}{path}", headers={"Host": "evil.example:8000"})
        assert rebound.status_code == (200 if said else 403), path
        own = await system.http.get(f"{system.url}{path}", headers={"Host": "localhost:8000"})
        assert own.status_code == 200


async def test_credentials_and_tickets_stay_out_of_logs(guarded: System) -> None:
    key = await make_key(guarded, "logged")
    started = await start(guarded, key)
    ticket = started["stream_url"].partition("ticket=")[2]
    await guarded.http.get(guarded.url + started["stream_url"])
    await guarded.http.get(f"{guarded.url}/chat/{started['stream_id']}?ticket={ticket[:-2]}xx")
    logs = "".join(path.read_text() for path in guarded.folder.glob("*.log"))
    for secret in (key, ticket, ticket.rpartition(".")[2], JWT_SECRET, SECRET):
        assert secret not in logs


# --- settings


@pytest.mark.parametrize(
    ("environment", "arguments", "names"),
    [
        ({}, ["--host", "0.0.0.0"], "HEADRACE_AUTH: not set, but HEADRACE_HOST"),
        ({"HEADRACE_AUTH": "key"}, [], "HEADRACE_AUTH"),
        ({"HEADRACE_AUTH": "none,keys"}, [], "none excludes other methods"),
        ({"HEADRACE_AUTH": "jwt"}, [], "HEADRACE_JWT_SECRET, HEADRACE_JWT_PUBLIC_KEY"),
        ({"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_SECRET": "x" * 32}, [], "JWT_AUDIENCE"),
        ({"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_SECRET": "short"}, [], "HEADRACE_JWT_SECRET"),
        ({"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_PUBLIC_KEY": "rubbish"}, [], "not a public key in PEM"),
        ({"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_JWKS_URL": "http://example.com/"}, [], "https://"),
        (
            {
                "HEADRACE_AUTH": "jwt",
                "HEADRACE_JWT_JWKS_URL": "http://127.0.0.1:1/jwks.json",
                "HEADRACE_JWT_AUDIENCE": "x",
            },
            [],
            "HEADRACE_JWT_JWKS_URL",
        ),
    ],
)
async def test_bad_configuration_stops_the_start(
    environment: dict[str, str], arguments: list[str], names: str
) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "headrace", "gateway", "--port", "0", *arguments],
        env=inherited | {"HEADRACE_SECRET": SECRET} | environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {1, 2}
    assert names in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


async def test_chats_of_the_same_id_are_each_ones_own(guarded: System) -> None:
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "mine"}]}
    body = {"id": "chat-1", "model": "openai/echo", "messages": [message]}
    url = f"{guarded.url}/api/chat"
    alice, bob = ({"Authorization": f"Bearer {token(name)}"} for name in ("alice", "bob"))
    assert (await guarded.http.post(url, json=body)).status_code == 401
    assert "mine" in (await guarded.http.post(url, json=body, headers=alice)).text
    for path in ("stream", "stream?ended=true"):
        assert (await guarded.http.get(f"{url}/chat-1/{path}", headers=bob)).status_code == 204
    assert "mine" in (await guarded.http.get(f"{url}/chat-1/stream?ended=true", headers=alice)).text
    assert (await guarded.http.post(f"{url}/chat-1/stop", headers=bob)).json()["stream_id"] is None


async def test_items_of_a_response_are_named_by_its_owner_alone(guarded: System) -> None:
    url = f"{guarded.url}/v1/responses"
    alice, bob = bearer(token("alice")), bearer(token("bob"))
    first = await guarded.http.post(url, json={"model": "openai/echo", "input": "mine"}, headers=alice)
    named = [{"type": "item_reference", "id": item["id"]} for item in first.json()["output"]]
    body = {"model": "openai/echo", "input": [*named, {"role": "user", "content": "and?"}]}
    assert (await guarded.http.post(url, json=body, headers=alice)).status_code == 200
    theirs = await guarded.http.post(url, json=body, headers=bob)
    assert theirs.status_code == 400
    assert "input.0.id: no such item" in theirs.json()["error"]["message"]
