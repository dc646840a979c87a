"""The command ``headrace check``, with real providers' wires, a real Redis and keys that are good or bad."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.cli import Ended, finish, headrace
from tests.fakes import Answer, FakeProvider
from tests.ports import free_port

Fakes = dict[str, FakeProvider]
GOOD = "good-key-of-alpha-1234"
BAD = "revoked-key-of-alpha-9876"
CONFIGURATION = """
[providers.alpha]
kind = "openai"
base_url = "{alpha.openai_base_url}"
api_keys = ["env:ALPHA_ONE", "env:ALPHA_TWO", "file:{folder}/none", "env:ALPHA_AGAIN"]

[providers.beta]
kind = "anthropic"
base_url = "{beta.anthropic_base_url}"
models = ["m", "gone"]

[providers.local]
kind = "ollama"
base_url = "{local.ollama_host}"

[providers.openai]
kind = "openai"
base_url = "http://127.0.0.1:{closed}/v1"

[providers.listless]
kind = "openai"
base_url = "{listless.openai_base_url}"

[models.fast]
targets = ["alpha/m"]
"""
KEYS = {"ALPHA_ONE": GOOD, "ALPHA_TWO": BAD, "ALPHA_AGAIN": GOOD, "OPENAI_API_KEY": "key-of-the-environment"}


@pytest.fixture(scope="module")
async def fakes() -> AsyncIterator[Fakes]:
    async with AsyncExitStack() as stack:
        fakes = {
            name: await stack.enter_async_context(FakeProvider()) for name in ("alpha", "beta", "local", "listless")
        }
        for fake in fakes.values():
            fake.play("m", Answer(deltas=["Hello"]))
        fakes["alpha"].revoked_keys = frozenset({BAD})
        fakes["listless"].list_status = 404
        yield fakes


@pytest.fixture(scope="module")
async def file(fakes: Fakes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    path = folder / "headrace.toml"
    path.write_text(CONFIGURATION.format(**fakes, folder=folder, closed=free_port()))
    return path


@pytest.fixture(scope="module")
async def redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("redis"))
    await broker.start()
    yield broker
    broker.kill()


async def check(*options: str, **settings: str) -> Ended:
    ended = await finish(await headrace("check", *options, **settings), timeout_s=100)  # it imports all SDKs
    for secret in KEYS.values():
        assert secret not in ended.out + ended.err
    return ended


def rows(ended: Ended) -> list[tuple[str, str, str, str]]:
    return [
        tuple(row[name] for name in ("state", "name", "key", "detail")) for row in json.loads(ended.out)["checks"]
    ]


async def test_each_key_of_each_provider_is_tested(file: Path, redis: Broker) -> None:
    ended = await check("--config", str(file), "--json", HEADRACE_REDIS_URL=redis.url, **KEYS)
    assert (ended.code, ended.err) == (1, "")
    found = rows(ended)
    assert found[0][0] == "ok"
    assert "5 providers, 1 alias," in found[0][3]
    assert found[1] == (
        "note",
        "openai",
        "",
        "[providers.openai] replaces the short form; OPENAI_API_KEY, OPENAI_BASE_URL have no effect",
    )
    assert found[2] == ("ok", "Redis", "", redis.url)
    of = {(name, key): (state, detail) for state, name, key, detail in found[3:]}
    assert of[("demo", "")] == ("ok", "built in")
    assert of[("alpha", "env:ALPHA_ONE …1234")] == ("ok", "2 models")
    state, detail = of[("alpha", "env:ALPHA_TWO …9876")]
    assert state == "WRONG"
    assert "refused the key (HTTP 401); check api_keys of [providers.alpha]" in detail
    folder = file.parent
    state, detail = of[("alpha", f"file:{folder}/none")]
    assert (state, detail) == (
        "WRONG",
        f"providers.alpha.api_keys: file:{folder}/none: no such file or directory; check the path",
    )
    assert of[("alpha", "env:ALPHA_AGAIN …1234")] == ("note", "the same key as env:ALPHA_ONE …1234; it is used once")
    assert of[("beta", "")] == ("note", "2 models; its list lacks gone: check the configured models")
    assert of[("local", "")] == ("ok", "2 models")
    state, detail = of[("openai", "")]
    assert state == "WRONG"
    assert "check base_url of [providers.openai]" in detail
    assert of[("listless", "")] == (
        "WRONG",
        "no list of models at this address; check the path in base_url of [providers.listless], or set models",
    )


async def test_a_request_for_one_token_goes_to_one_model_with_each_key(
    file: Path, redis: Broker, fakes: Fakes
) -> None:
    for fake in fakes.values():
        fake.calls.clear()
    ended = await check("--config", str(file), "--ask", "--json", HEADRACE_REDIS_URL=redis.url, **KEYS)
    of = {(name, key): (state, detail) for state, name, key, detail in rows(ended)}
    assert of[("alpha", "env:ALPHA_ONE …1234")] == ("ok", "m answered")
    assert of[("beta", "")][1].startswith("m answered")
    assert of[("local", "")] == ("ok", "echo answered")
    assert [call.request["max_tokens"] for call in fakes["beta"].calls] == [1]
    keys = sorted(call.headers["authorization"] for call in fakes["alpha"].calls)
    assert keys == [f"Bearer {GOOD}"]


async def test_a_model_that_needs_more_than_one_token_gets_more(fakes: Fakes, redis: Broker) -> None:
    fake = fakes["alpha"]
    fake.calls.clear()
    fake.director = lambda call: Answer(status=400) if call.request["max_tokens"] < 16 else Answer()
    try:
        environment = {"OPENAI_BASE_URL": fake.openai_base_url, "OPENAI_API_KEY": GOOD}
        ended = await check("--ask", HEADRACE_REDIS_URL=redis.url, **environment)
    finally:
        fake.director = None
    assert ended.code == 0
    assert [call.request["max_tokens"] for call in fake.calls] == [1, 16]
    lines = [line.split() for line in ended.out.splitlines()]
    assert ["ok", "openai", "OPENAI_API_KEY", "…1234", "echo", "answered"] in lines


async def test_without_a_redis_nothing_is_wrong(tmp_path: Path) -> None:
    ended = await check("--data-dir", str(tmp_path))
    assert ended.code == 0
    assert "headrace up, which starts its own, is not running" in ended.out


async def test_a_stopped_redis_of_headrace_up_is_not_wrong(tmp_path: Path) -> None:
    """Between two runs of ``headrace up`` its directory still has the address."""
    tmp_path.chmod(0o700)
    (tmp_path / "broker-url").write_text(f"unix://{tmp_path}/redis.sock")
    ended = await check("--data-dir", str(tmp_path))
    assert ended.code == 0, ended.out
    assert "headrace up, which starts its own, is not running" in ended.out


async def test_the_redis_of_headrace_up_is_tested_and_points_to_doctor(tmp_path: Path, redis: Broker) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "broker-url").write_text(redis.url)
    ended = await check("--data-dir", str(tmp_path))
    assert ended.code == 0, ended.out
    assert "headrace doctor examines it" in ended.out


async def test_a_redis_that_cannot_be_reached_is_wrong() -> None:
    ended = await check(HEADRACE_REDIS_URL=f"redis://user:gehe1m@127.0.0.1:{free_port()}/0")
    assert ended.code == 1
    assert "correct HEADRACE_REDIS_URL" in ended.out
    assert "gehe1m" not in ended.out


@pytest.mark.parametrize("command", ["check", "up", "gateway", "worker"])
async def test_problems_of_settings_and_file_come_together(command: str, tmp_path: Path) -> None:
    path = tmp_path / "headrace.toml"
    path.write_text("[providers.alpha]\nkind = 'openia'\n\n[models.fast]\ntarget = ['alpha/x']\n")
    ended = await finish(await headrace(command, "--config", str(path), HEADRACE_PROT="1", HEADRACE_LEASE_S="soon"))
    assert ended.code == 2
    assert [line.partition("; ")[0] for line in ended.err.splitlines()] == [
        "HEADRACE_PROT: unknown setting",
        "HEADRACE_LEASE_S: not a number",
        f"{path}:2: providers.alpha.kind: unknown value",
        f"{path}:4: models.fast.targets: missing",
        f"{path}:5: models.fast.target: unknown key",
    ]


async def test_the_archive_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "archive.db"
    url = f"sqlite:///{file}"
    for content, state, detail in (
        (None, "note", "creates the file"),
        (b"", "note", "updates it"),
        (b"x" * 999, "WRONG", ""),
    ):
        if content is not None:
            file.write_bytes(content)
        ended = await check("--json", "--data-dir", str(tmp_path), HEADRACE_ARCHIVE_URL=url)
        (row,) = [row for row in rows(ended) if row[1] == "archive"]
        assert row[0] == state
        assert detail in row[3]
    ended = await check("--data-dir", str(tmp_path), HEADRACE_ARCHIVE_URL="sqlite:////no/such/directory/a.db")
    assert ended.code == 1
    assert "the directory /no/such/directory does not exist" in ended.out
    secret = f"postgresql://user:gehe1m@127.0.0.1:{free_port()}/archive"
    ended = await check("--data-dir", str(tmp_path), HEADRACE_ARCHIVE_URL=secret)
    assert ended.code == 1
    assert "gehe1m" not in ended.out + ended.err


@pytest.mark.parametrize("command", ["up", "gateway", "worker"])
async def test_a_wrong_archive_stops_the_start(command: str) -> None:
    ended = await finish(await headrace(command, HEADRACE_ARCHIVE_URL="mysql://user:gehe1m@host/a"))
    assert ended.code == 2
    assert ended.err.startswith(
        "HEADRACE_ARCHIVE_URL: not the URL of a database that is supported; write it as sqlite:///"
    )
    assert "gehe1m" not in ended.err
