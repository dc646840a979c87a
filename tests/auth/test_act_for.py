"""A back end's key acts for its users: each is a principal of its own, and no request becomes another's."""

import asyncio
import json
from collections.abc import Callable
from itertools import product
from typing import Any, Final, NamedTuple

import pytest
from anthropic import AsyncAnthropic
from openai import APIStatusError, AsyncOpenAI

from gateway.app import create_app
from headrace_client import AsyncClient, HeadraceError
from shared.configuration.configuration import load_configuration
from shared.principal_ids import actor_of, is_principal, user_principal
from shared.settings import Settings
from tests.clients.outcomes import run
from tests.credentials import bearer, make_key, run_headrace, start_stream, token
from tests.fakes import Answer
from tests.responses import code_of
from tests.sse_client import Broken, open_sse
from tests.system import SECRET, System, ask

USER: Final = "X-Headrace-User"
ACTS: Final = ("--scopes", "chat,read,cancel,act_for")
Headers = dict[str, str]


def acting(credentials: str, user: str) -> Headers:
    return bearer(credentials) | {USER: user}


class Caller(NamedTuple):
    """Credentials as headers, and the id of their principal."""

    headers: Headers
    id: str


@pytest.fixture(scope="module")
async def callers(guarded: System) -> list[Caller]:
    """Callers whose names are as alike as names can be."""
    shop, other = [await make_key(guarded, name, *ACTS) for name in ("shop", "shop2")]
    scope = "chat read cancel act_for"
    token_, with_slash = token("shop", scope=scope), token("shop/alice", scope=scope)
    return [
        Caller(bearer(shop), "key:shop"),
        Caller(acting(shop, "alice"), "key:shop/alice"),
        Caller(acting(shop, "key:shop"), "key:shop/key:shop"),
        Caller(acting(other, "alice"), "key:shop2/alice"),
        Caller(bearer(token_), "jwt:shop"),
        Caller(acting(token_, "alice"), "jwt-user:shop/alice"),
        Caller(bearer(with_slash), "jwt:shop/alice"),
        Caller(acting(with_slash, "alice"), "jwt-user:shop/alice/alice"),
        Caller(bearer(token("shop/alice/alice")), "jwt:shop/alice/alice"),
    ]


async def test_every_user_is_a_principal_of_its_own(guarded: System, callers: list[Caller]) -> None:
    """Each gets a stream of its own with the same body, key and chat, on both gateways, and sees no other."""
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "mine"}]}
    chat = {"id": "chat-1", "model": "openai/echo", "messages": [message]}
    started, chats = dict[str, str](), dict[str, str]()
    for caller in callers:
        headers = caller.headers | {"Idempotency-Key": "the-same"}
        ids = set()
        for gateway in guarded.gateways:
            answer = await guarded.http.post(f"{gateway.url}/chat", json=ask("echo", "mine"), headers=headers)
            ids.add(answer.json()["stream_id"])
        (started[caller.id],) = ids
        answer = await guarded.http.post(f"{guarded.url}/api/chat", json=chat, headers=caller.headers)
        chats[caller.id] = answer.headers["x-stream-id"]
    assert len({*started.values(), *chats.values()}) == 2 * len(callers)
    base = guarded.gateways[1].url
    for reader, owner in product(callers, callers):
        answer = await guarded.http.get(f"{base}/chat/{started[owner.id]}", headers=reader.headers)
        assert answer.status_code == (200 if reader is owner else 404), (reader.id, owner.id)
    for caller in callers:
        listed = (await guarded.http.get(f"{base}/chat", headers=caller.headers)).json()["streams"]
        assert {each["stream_id"] for each in listed} == {started[caller.id], chats[caller.id]}
        resumed = await guarded.http.get(f"{base}/api/chat/chat-1/stream?ended=true", headers=caller.headers)
        assert resumed.headers["x-stream-id"] == chats[caller.id]


async def test_a_user_resumes_cancels_deletes_and_shares_its_streams(guarded: System, callers: list[Caller]) -> None:
    gate = asyncio.Event()
    guarded.fake.play("users-own", Answer(deltas=["a", "b"], gate=gate, gate_after=1))
    key, alice, *_ = callers
    body = ask("users-own")
    stream_id = (await guarded.http.post(f"{guarded.url}/chat", json=body, headers=alice.headers)).json()["stream_id"]
    url = f"{guarded.gateways[1].url}/chat/{stream_id}"
    async with await open_sse(
        "GET", f"{guarded.gateways[1].url}/chat/stream/{stream_id}", headers=alice.headers
    ) as connection:
        await connection.next("token")
        for method, path in (("POST", "/cancel"), ("DELETE", ""), ("POST", "/tickets")):
            refused = await guarded.http.request(method, url + path, content=b"{}", headers=key.headers)
            assert code_of(refused) == (404, "stream_not_found"), path
        made = await guarded.http.post(f"{url}/tickets", json={"may_cancel": True}, headers=alice.headers)
        link = guarded.url + made.json()["status_url"]
        assert (await guarded.http.get(link)).json()["status"] == "running"
        assert (await guarded.http.post(f"{url}/cancel", headers=alice.headers)).status_code == 202
        gate.set()
        await connection.next("done")
    assert (await guarded.http.delete(url, headers=alice.headers)).status_code == 204
    assert (await guarded.http.get(link)).status_code == 410


async def test_the_official_sdks_act_for_a_user(guarded: System) -> None:
    """OpenAI's and Anthropic's clients with one header for all requests."""
    key = await make_key(guarded, "sdks", *ACTS)

    def openai_client(user: str) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0, default_headers={USER: user})

    messages: Any = [{"role": "user", "content": "hi"}]
    async with openai_client("alice") as alice, openai_client("bob") as bob:
        await alice.chat.completions.create(model="openai/echo", messages=messages)
        first = await alice.responses.create(model="openai/echo", input="mine")
        assert (await alice.responses.retrieve(first.id)).output_text == "mine"
        more: dict[str, Any] = {"model": "openai/echo", "input": "and?", "previous_response_id": first.id}
        await alice.responses.create(**more)
        for call in (lambda: bob.responses.retrieve(first.id), lambda: bob.responses.create(**more)):
            with pytest.raises(APIStatusError) as raised:
                await call()
            assert raised.value.status_code in {400, 404}
    async with AsyncAnthropic(
        base_url=guarded.url, api_key=key, max_retries=0, default_headers={USER: "alice"}
    ) as client:
        await client.messages.create(model="openai/echo", messages=messages, max_tokens=9)
    for user, streams in (("alice", 4), ("bob", 0)):
        listed = (await guarded.http.get(f"{guarded.url}/chat", headers=acting(key, user))).json()["streams"]
        assert len(listed) == streams


async def test_the_client_libraries_act_for_a_user(guarded: System) -> None:
    key = await make_key(guarded, "libraries", *ACTS)
    messages = [{"role": "user", "content": "hi"}]
    async with (
        AsyncClient(guarded.url, key=key, user="alice") as alice,
        AsyncClient(guarded.url, key=key, user="bob") as bob,
    ):
        answer = await alice.start(messages, model="openai/echo")
        assert (await alice.wait(answer.id))["status"] == "completed"
        await alice.cancel(answer.id)
        with pytest.raises(HeadraceError, match="stream_not_found"):
            await bob.status(answer.id)
    program: dict[str, Any] = {"url": guarded.url, "key": key, "models": ["openai/echo"]}
    (started,) = await run("start", user="bob", **program)
    for user, streams in (("alice", [answer.id]), ("bob", [started["id"]])):
        listed = (await guarded.http.get(f"{guarded.url}/chat", headers=acting(key, user))).json()["streams"]
        assert [each["stream_id"] for each in listed] == streams


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        (b"", "must have 1 to 128 visible ASCII"),
        (b"u" * 129, "must have 1 to 128"),
        (b"a/b", "without slash"),
        (b"a, b", "comma"),
        (b"a b", "visible"),
        (b"a\tb", "visible"),
        ("ä".encode(), "%2F"),
        (b"\xe4", "ASCII"),
    ],
)
async def test_an_invalid_user_is_refused(guarded: System, user: bytes, problem: str) -> None:
    caller = bearer(token("shop", scope="chat act_for"))
    headers = [*((name.encode(), value.encode()) for name, value in caller.items()), (USER.encode(), user)]
    for path, status in (("/chat", 422), ("/v1/chat/completions", 400), ("/v1/messages", 400)):
        answer = await guarded.http.post(guarded.url + path, content=b"{", headers=headers)
        assert answer.status_code == status
        message = answer.json()["error"]["message"]
        assert message.startswith(f"{USER}: ")
        assert problem in message


async def test_a_header_that_is_repeated_is_refused(guarded: System) -> None:
    headers = [*bearer(token("shop", scope="chat act_for")).items(), (USER, "alice"), (USER.lower(), "alice")]
    answer = await guarded.http.get(f"{guarded.url}/chat", headers=headers)
    assert code_of(answer) == (422, "invalid_request")
    assert "sent 2 times" in answer.text


async def test_only_credentials_with_the_scope_may_act(guarded: System) -> None:
    """Neither tokens and keys without it, nor a browser by its cookie. Nothing becomes the caller's own stream."""
    acts = token("browser", scope="chat read act_for")
    plain = await make_key(guarded, "plain")
    for headers, refusal, words in (
        (acting(plain, "alice"), (403, "forbidden"), "requires the scope act_for"),
        (acting(token("plain"), "alice"), (403, "forbidden"), "requires the scope act_for"),
        (acting(token("plain", scope="chat admin"), "alice"), (403, "forbidden"), "requires the scope act_for"),
        ({"Cookie": f"headrace={acts}", USER: "alice"}, (403, "forbidden"), "not accepted with the cookie"),
        ({USER: "alice"}, (401, "unauthenticated"), "credentials are missing"),
        (acting("rubbish", "a/b"), (401, "unauthenticated"), "invalid"),
    ):
        answer = await guarded.http.post(f"{guarded.url}/chat", json=ask("echo"), headers=headers)
        assert code_of(answer) == refusal
        assert words in answer.json()["error"]["message"]
        assert refusal[0] == 401 or answer.json()["error"]["message"].startswith(f"{USER}: ")
    assert (await guarded.http.get(f"{guarded.url}/chat", headers=bearer(plain))).json()["streams"] == []


async def test_a_gateway_without_authentication_refuses_the_header(system: System) -> None:
    """Every caller could choose a principal."""
    answer = await system.http.post(f"{system.url}/chat", json=ask("echo"), headers={USER: "alice"})
    assert code_of(answer) == (403, "forbidden")
    assert answer.json()["error"]["message"].startswith(f"{USER}: not accepted, because authentication is disabled")


async def test_a_user_has_the_scopes_of_its_key_but_is_no_operator(guarded: System) -> None:
    key = await make_key(guarded, "operates", "--scopes", "read,admin,act_for")
    url = f"{guarded.url}/ops/overview"
    assert (await guarded.http.get(url, headers=bearer(key))).status_code == 200
    refused = await guarded.http.get(url, headers=acting(key, "alice"))
    assert code_of(refused) == (403, "forbidden")
    assert refused.json()["error"]["message"].startswith(f"{USER}: not accepted here")
    refused = await guarded.http.post(f"{guarded.url}/chat", json=ask("echo"), headers=acting(key, "alice"))
    assert "the scope chat;" in refused.json()["error"]["message"]
    listed = (await asyncio.to_thread(run_headrace, guarded, "keys", "list")).stdout
    assert "operates  act_for,admin,read " in listed


async def test_the_limits_of_a_key_hold_for_each_of_its_users(guarded: System) -> None:
    """Its models hold for all of them."""
    limits = ("--requests-per-minute", "2", "--concurrent-streams", "1", "--models", "openai/*")
    key = await make_key(guarded, "limited", *ACTS, *limits)
    guarded.fake.play("held", Answer(deltas=["a"], end="hang"))

    async def post(user: str, model: str) -> tuple[int, str]:
        body = ask(model, on_disconnect="continue")
        answer = await guarded.http.post(f"{guarded.url}/chat", json=body, headers=acting(key, user))
        started = answer.json()
        ids.extend([(user, started["stream_id"])] if answer.status_code == 202 else [])
        return answer.status_code, started.get("error", {}).get("code", "")

    ids = list[tuple[str, str]]()
    assert await post("alice", "held") == (202, "")
    assert await post("alice", "held") == (429, "concurrent_streams_exceeded")
    assert await post("bob", "held") == (202, "")
    assert await post("bob", "held") == (429, "concurrent_streams_exceeded")
    for user, stream_id in ids:
        url = f"{guarded.url}/chat/{stream_id}"
        await guarded.http.post(f"{url}/cancel", headers=acting(key, user))

        async def ended(url: str = url, user: str = user) -> bool:
            return bool((await guarded.http.get(url, headers=acting(key, user))).json()["ended_at"])

        await guarded.eventually(ended)
    assert await post("alice", "echo") == (202, "")
    assert await post("alice", "echo") == (429, "requests_per_minute_exceeded")
    refused = await guarded.http.post(
        f"{guarded.url}/chat", json={**ask("demo"), "provider": "demo"}, headers=acting(key, "bob")
    )
    assert code_of(refused) == (403, "model_not_allowed")


async def test_a_revoked_key_ends_the_connections_and_links_of_its_users(guarded: System) -> None:
    guarded.fake.play("users-revoked", Answer(deltas=["a"], end="hang"))
    key, kept = await make_key(guarded, "leaks", *ACTS), await make_key(guarded, "leaks", *ACTS)
    urls, links = list[str](), list[str]()
    for user in ("alice", "bob"):
        headers = acting(key, user)
        answer = await guarded.http.post(f"{guarded.url}/chat", json=ask("users-revoked"), headers=headers)
        stream_id = answer.json()["stream_id"]
        urls.append(f"{guarded.gateways[1].url}/chat/stream/{stream_id}")
        made = await guarded.http.post(f"{guarded.url}/chat/{stream_id}/tickets", json={}, headers=headers)
        links.append(guarded.url + made.json()["status_url"])
    async with (
        await open_sse("GET", urls[0], headers=acting(key, "alice")) as alice,
        await open_sse("GET", urls[1], headers=acting(key, "bob")) as bob,
        await open_sse("GET", urls[1], headers=acting(kept, "bob")) as stays,
    ):
        for connection in (alice, bob, stays):
            await connection.next("token")
        assert (await asyncio.to_thread(run_headrace, guarded, "keys", "revoke", key.split("-")[1])).returncode == 0
        for connection in (alice, bob):
            with pytest.raises(Broken):
                await connection.next("done")
        for link in links:
            assert code_of(await guarded.http.get(link)) == (401, "invalid_ticket")
        assert code_of(await guarded.http.get(urls[0], headers=acting(key, "alice"))) == (401, "unauthenticated")
        await guarded.http.post(urls[1].replace("/stream/", "/") + "/cancel", headers=acting(kept, "bob"))
        await stays.next("done")  # another key of the name acts for the same users


async def test_the_links_of_one_user_or_of_all_can_be_revoked(guarded: System) -> None:
    key = await make_key(guarded, "links", *ACTS)

    async def link_of(headers: Headers) -> str:
        answer = await guarded.http.post(f"{guarded.url}/chat", json=ask("echo"), headers=headers)
        return guarded.url + str(answer.json()["stream_url"])

    links = [await link_of(headers) for headers in (acting(key, "alice"), acting(key, "bob"), bearer(key))]
    stranger = await link_of(acting(await make_key(guarded, "links2", *ACTS), "alice"))

    def become(statuses: list[int]) -> Callable[[], Any]:
        async def are() -> bool:
            return [(await guarded.http.get(link)).status_code for link in links] == statuses

        return are

    for principal, statuses in (("key:links/alice", [401, 200, 200]), ("key:links", [401, 401, 401])):
        done = await asyncio.to_thread(run_headrace, guarded, "keys", "revoke-links", principal)
        assert done.returncode == 0, done.stderr
        await guarded.eventually(become(statuses))
    assert (await guarded.http.get(stranger)).status_code == 200
    wrong = await asyncio.to_thread(run_headrace, guarded, "keys", "revoke-links", "key:links/a/b")
    assert "key:NAME/USER" in wrong.stderr


async def test_a_link_needs_no_user(guarded: System) -> None:
    """Whoever has a link sends the header in vain: the link is the credential."""
    started = await start_stream(guarded, token("shares"), prompt="shared")
    for header in ({}, {USER: "mallory"}, {USER: "a/b"}):
        assert "shared" in (await guarded.http.get(guarded.url + started["stream_url"], headers=header)).text


async def test_the_request_log_names_the_user(guarded: System) -> None:
    key = await make_key(guarded, "logged-users", *ACTS)
    await guarded.http.get(f"{guarded.url}/chat", headers=acting(key, "alice@example.com"))

    async def logged() -> bool:
        return '"key:logged-users/alice@example.com"' in guarded.gateways[0].log.read_text()

    await guarded.eventually(logged)


def test_ids_of_principals_are_unambiguous() -> None:
    actors = ["key:a", "key:a.b", "jwt:a", "jwt:a/b", "jwt:key:a", "jwt:a/b/c"]
    users = ["a", "b", "key:a", "a:b"]
    ids = {user_principal(actor, user): actor for actor in actors for user in users}
    assert len(ids) == len(actors) * len(users)
    assert not ids.keys() & set(actors)
    assert all(actor_of(each) == actor for each, actor in ids.items())
    assert all(actor_of(actor) is None for actor in [*actors, "anonymous"])
    assert all(map(is_principal, (*ids, *actors)))
    assert not any(
        map(is_principal, ("anonymous", "key:", "key:a/", "key:/a", "jwt:", "jwt-user:a", "jwt-user:a/", "x:a"))
    )


def test_the_description_has_the_header_if_there_is_authentication() -> None:
    reference = {"$ref": "#/components/parameters/user"}
    for auth, has_it in (("keys", True), ("none", False)):
        description = create_app(load_configuration(Settings(secret=SECRET, auth=auth))).openapi()
        assert ("user" in description["components"]["parameters"]) == has_it
        with_header = {
            path
            for path, methods in description["paths"].items()
            if reference in methods.get("get", {}).get("parameters", ())
        }
        expected = {
            *("/chat", "/chat/{stream_id}", "/chat/stream/{stream_id}", "/chats", "/chats/{chat_id}"),
            *("/connection", "/v1/models", "/v1/usage", "/v1/responses/{response_id}", "/api/chat/{chat_id}/stream"),
            "/ag-ui/runs/{run_id}",
        }
        assert expected <= with_header if has_it else not with_header
        assert not with_header & {"/healthz", "/readyz"}
        assert USER in json.dumps(description) or not has_it
