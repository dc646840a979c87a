"""The description ``/openapi.json`` is true: a gateway, fuzzed by its own description, does nothing that is not in
it."""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import jwt
import pytest
import schemathesis

from gateway.api import examples
from gateway.api.descriptions import AG_UI, AI_SDK, ANTHROPIC, OPENAI, OPERATORS
from gateway.api.error_catalog import ERRORS
from gateway.auth.json_web_tokens import KeysUnreachable
from gateway.dialects.anthropic.errors import ThreadsUnsupported
from shared.errors import BrokerUnavailable, HeadraceError, LimitReached, QueueFull, RequestError, Unavailable
from shared.rate_limits import LIMIT_NAMES
from shared.version import VERSION
from tests.conftest import StartSystem
from tests.routes import every_template
from tests.system import REPOSITORY, System

JWT_SECRET = "a-secret-for-tests-" * 4
USERS = ("alice", "bob")
#: Formats of others, of which the description has the main members, and the operators' page's own data.
LOOSELY_DESCRIBED = (OPENAI, ANTHROPIC, AI_SDK, AG_UI, OPERATORS)


def bearer(user: str) -> dict[str, str]:
    claims = {"sub": user, "aud": "fuzz", "exp": time.time() + 3600, "scope": "chat read cancel act_for"}
    return {"Authorization": f"Bearer {jwt.encode(claims, JWT_SECRET, algorithm='HS256')}"}


async def fuzz(system: System, folder: Path, users: Path, *options: str) -> tuple[int, str]:
    """Run schemathesis in a folder of its own, where it leaves files. Return its exit code and output."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color"),
        *("--config-file", str(REPOSITORY / "tests" / "schemathesis.toml")),
        *("run", f"{system.url}/openapi.json", *options),
        *(f"--exclude-tag={tag}" for tag in LOOSELY_DESCRIBED),
        "--exclude-operation-id=get_model",  # its errors are in a format for clients of two dialects
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "NO_PROXY": "*", "FUZZ_USERS": str(users)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, output.decode()


def operations(description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }


def is_exact(operation: dict[str, Any]) -> bool:
    return not set(operation["tags"]) & set(LOOSELY_DESCRIBED) and "default" not in operation["responses"]


async def describe(system: System, version: str | None = None) -> dict[str, Any]:
    parameters = {} if version is None else {"version": version}
    answer = await system.http.get(f"{system.url}/openapi.json", params=parameters)
    description: dict[str, Any] = answer.json()
    return description


@pytest.mark.timeout(600)
async def test_a_gateway_behaves_as_its_description_says(start_system: StartSystem, tmp_path: Path) -> None:
    """Valid and invalid requests, alone and in chains (a stream created by ``POST`` is read, cancelled, deleted and
    read again), as two users and without credentials. Each stream is cut after ``max-stream-events`` events, which
    are checked against the schema of a stream's events."""
    system = await start_system(
        gateways=1,
        workers=1,
        auth="jwt",
        jwt_secret=JWT_SECRET,
        jwt_audience="fuzz",
        credentials=bearer("alice"),
        demo_tokens_per_s=1000,
        lease_s=1,
    )

    async def remembers() -> bool:
        """Wait for 404: shortly after its start, Redis may have lost any stream, which is a 503."""
        return (await system.http.get(f"{system.url}/chat/{'0' * 34}")).status_code == 404

    await system.eventually(remembers)
    users = tmp_path / "users.json"
    headers = {user: [{"name": k, "value": v} for k, v in bearer(user).items()] for user in USERS}
    users.write_text(json.dumps({"auth": [{"name": user, "fixedHeaders": headers[user]} for user in USERS]}))
    code, output = await fuzz(system, tmp_path, users)
    assert code == 0, output
    exact = [name for name, operation in operations(await describe(system)).items() if is_exact(operation)]
    assert f"Tested: {len(exact)}\n" in output
    made = []
    for user in ({}, {"X-Headrace-User": "carol"}):
        listed = await system.http.get(f"{system.url}/chat", params={"limit": 100}, headers=user)
        made += listed.json()["streams"]
    assert len(made) > 12  # otherwise all requests were refused; chats refuse many, and their deletion takes others
    assert all(process.alive for process in (*system.gateways, *system.workers))
    assert not any("Traceback" in process.log.read_text() for process in (*system.gateways, *system.workers))


def test_every_error_is_described() -> None:
    def below(kind: type[HeadraceError]) -> set[type[HeadraceError]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    kinds = below(RequestError) | below(Unavailable)
    assert {KeysUnreachable, ThreadsUnsupported} < kinds  # errors outside shared/errors.py
    limits = {LimitReached(limit, "", {}).code for limit in LIMIT_NAMES}
    codes = {
        kind.code for kind in kinds - {Unavailable, LimitReached, ThreadsUnsupported}
    }  # the last belongs to one dialect
    assert set(ERRORS) == codes | limits | {"request_timeout"}
    assert all(
        ERRORS[code] == (429, f"the limit {code.removesuffix('_exceeded')} is reached", True) for code in limits
    )
    assert ERRORS["queue_full"] == (503, QueueFull.when, True)


def test_no_message_or_description_for_clients_names_our_operation() -> None:
    """Addresses, settings and parts of the installation are for operators, in ``detail``."""
    kinds: list[type[HeadraceError]] = [KeysUnreachable]
    kinds += [*Unavailable.__subclasses__(), *BrokerUnavailable.__subclasses__()]
    texts = [*(info.when for info in ERRORS.values()), *(kind.message for kind in kinds)]
    assert not [text for text in texts if re.search(r"HEADRACE_|Redis|[Ww]orker|gateway|/", text)]


async def test_every_reference_in_the_description_resolves(system: System) -> None:
    description = await describe(system)

    def look(node: Any) -> None:
        if isinstance(node, dict) and isinstance(reference := node.get("$ref"), str):
            found: Any = description
            for part in reference.removeprefix("#/").split("/"):
                found = found[part]
        for member in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            look(member)

    look(description)
    assert "HTTPValidationError" not in json.dumps(description)  # the framework's own, which no route returns
    for name, operation in operations(description).items():
        assert operation["description"], name
        for status, answer in operation["responses"].items():
            if is_exact(operation) and int(status) >= 400:
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorBody"}
    streams = [name for name, operation in operations(description).items() if "x-itemSchema" in str(operation)]
    assert streams == ["POST /chat/stream", "GET /chat/stream/{stream_id}"]
    create = operations(description)["POST /chat"]
    assert set(create["responses"]) >= {"202", "400", "401", "403", "408", "409", "410", "413", "422", "429", "503"}


async def test_generators_of_clients_can_read_the_description(system: System) -> None:
    """Most of them support OpenAPI 3.1 at the latest, and make a class of each schema and of each title."""
    description = await describe(system)
    assert description["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(description).validate()
    schemas = description["components"]["schemas"]
    classes = {name.lower() for name in schemas}
    inner = [title for schema in schemas.values() for member in schema.values() for title in titles_in(member)]
    assert [title for title in inner if title.lower().replace("_", "") in classes] == []


async def test_the_events_of_a_stream_are_described(system: System) -> None:
    described = operations(await describe(system))
    newer = operations(await describe(system, "3.2"))
    for name in ("POST /chat/stream", "GET /chat/stream/{stream_id}"):
        stream = described[name]["responses"]["200"]["content"]["text/event-stream"]
        assert stream["schema"]["type"] == "string"
        assert stream["x-itemSchema"] == {"$ref": "#/components/schemas/Frame"}
        stream = newer[name]["responses"]["200"]["content"]["text/event-stream"]
        assert stream == {"itemSchema": {"$ref": "#/components/schemas/Frame"}}


async def test_the_version_of_openapi_can_be_chosen(system: System) -> None:
    older, newer = await describe(system), await describe(system, "3.2")
    assert (older["openapi"], newer["openapi"]) == ("3.1.0", "3.2.0")
    assert await describe(system, "3.1") == older
    schemathesis.openapi.from_dict(newer).validate()
    refused = await system.http.get(f"{system.url}/openapi.json", params={"version": "2"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (422, "version: must be '3.1' or '3.2'")


async def test_every_route_is_described_for_people(system: System) -> None:
    """Pages and files are no part of the API."""
    description = await describe(system)
    described = operations(description)
    templates = {re.sub(r":path\}", "}", path) for _, path in every_template()}
    pages = {"/", "/ops", "/docs", "/page", "/page/client", "/openapi.json"}
    assert templates - pages == set(description["paths"])
    names = [operation["operationId"] for operation in described.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)+", name) for name in names)
    groups = [tag["name"] for tag in description["tags"]]
    for name, operation in described.items():
        assert operation["summary"] != operation["operationId"].replace("_", " ").title(), name
        assert [tag for tag in operation["tags"] if tag in groups] == operation["tags"], name
        assert len(operation["tags"]) == 1, name
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content["examples"], name
    assert description["servers"] == [{"url": "/", "description": "this server"}]
    assert set(description["components"]["securitySchemes"]) == {"bearer", "api_key", "cookie", "ticket"}


@pytest.mark.parametrize(
    ("path", "key", "wrong"),
    [
        ("/v1/chat/completions", "OpenAiErrorBody", {"n": 2}),
        ("/v1/responses", "OpenAiErrorBody", {"input": 3}),
        ("/v1/responses/input_tokens", "OpenAiErrorBody", {"input": 3}),
        ("/v1/messages", "AnthropicErrorBody", {"max_tokens": "many"}),
        ("/v1/messages/count_tokens", "AnthropicErrorBody", {"messages": 3}),
        ("/api/chat", "ErrorBody", {"messages": 3}),
        ("/ag-ui", "ErrorBody", {"messages": 3}),
    ],
)
async def test_other_dialects_answer_as_described(system: System, path: str, key: str, wrong: dict[str, Any]) -> None:
    description = await describe(system)
    operation = description["paths"][path]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    example = content["examples"]["text"]["value"]

    def check(schema: dict[str, Any], value: Any) -> None:
        jsonschema_rs.validator_for({**schema, "components": description["components"]}).validate(value)

    check(content["schema"], example)
    answer = await system.http.post(system.url + path, json=example)
    assert answer.status_code == 200, answer.text
    answers = operation["responses"]["200"]["content"]
    if "application/json" in answers:
        check(answers["application/json"]["schema"], answer.json())
    assert answer.headers["content-type"].partition(";")[0] in answers
    refused = await system.http.post(system.url + path, json=example | wrong)
    assert refused.status_code in {400, 422}
    check(operation["responses"]["default"]["content"]["application/json"]["schema"], refused.json())
    assert key in str(operation["responses"]["default"])


def titles_in(node: Any) -> Iterator[str]:
    """Yield the titles of the objects within a schema."""
    if isinstance(node, dict):
        if node.get("type") == "object" and isinstance(node.get("title"), str):
            yield node["title"]
        for member in node.values():
            yield from titles_in(member)
    elif isinstance(node, list):
        for item in node:
            yield from titles_in(item)


async def test_the_description_and_the_health_check_have_the_version(system: System) -> None:
    assert (await describe(system))["info"]["version"] == VERSION
    health = await system.http.get(f"{system.url}/healthz")
    assert health.json() == {"status": "ok", "version": VERSION}


async def test_security_requirements_are_described(system: System) -> None:
    """The gateway requires no credentials, but a ticket must be valid if there is one."""
    described = operations(await describe(system))
    assert described["POST /chat"]["security"] == [{}]
    assert described["GET /chat/{stream_id}"]["security"] == [{}, {"ticket": []}]


async def test_examples_of_answers_fit_their_schemas(system: System) -> None:
    description = await describe(system)
    found = 0
    for operation in operations(description).values():
        for status in {"200", "202"} & set(operation["responses"]):
            content = operation["responses"][status].get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                schema = {**content["schema"], "components": description["components"]}
                value = description["components"]["examples"][example["$ref"].rpartition("/")[2]]["value"]
                jsonschema_rs.validator_for(schema).validate(value)
                found += 1
    assert found >= 2


@pytest.mark.parametrize("name", examples.CHAT)
async def test_an_example_can_be_sent_unchanged(system: System, name: str) -> None:
    answer = await system.http.post(f"{system.url}/chat", json=examples.CHAT[name])
    assert answer.status_code == 202, answer.text
    ended = await system.ended(answer.json()["stream_id"])
    assert ended["status"] == "completed", ended
