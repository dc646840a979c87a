"""Shipped files give Redis the memory that their retention needs, and a start with too little says so in figures."""

import asyncio
import json
import re
import signal
from pathlib import Path

import pytest

from shared.broker.retention_fit import ANSWER_BYTES, ANSWER_TOKENS, RetentionFit
from shared.settings import Settings
from tests.broker import Broker
from tests.cli import finish, headrace
from tests.deployment import COMPOSE, COMPOSE_CLUSTER, COMPOSE_TRY, KUBERNETES
from tests.ports import free_port
from tests.system import REPOSITORY

UNITS = {"mb": 2**20, "gb": 2**30}
DEFAULT_S = Settings.model_fields["retention_s"].default


def test_an_answer_takes_as_much_as_was_measured() -> None:
    measured = json.loads((REPOSITORY / "bench" / "capacity.json").read_text())["redis_bytes_after_the_end"]
    assert measured["answer"] + measured["token"] * ANSWER_TOKENS == ANSWER_BYTES


@pytest.mark.parametrize(
    ("path", "servers", "per_s"),
    [
        pytest.param(COMPOSE_TRY, 1, 20, id="trial"),
        pytest.param(COMPOSE, 1, 4, id="production"),
        pytest.param(COMPOSE_CLUSTER, 3, 6, id="cluster"),
        pytest.param(KUBERNETES / "base" / "redis.yaml", 1, 4, id="kubernetes"),
    ],
)
def test_shipped_memory_keeps_answers_as_long_as_shipped_retention(path: Path, servers: int, per_s: float) -> None:
    """The pages name these numbers of answers a second."""
    ((count, unit),) = set(re.findall(r"(?m)^\s+maxmemory (\d+)(mb|gb)$", path.read_text()))
    retention = re.search(r"HEADRACE_RETENTION_S: (\d+)", path.read_text())
    fit = RetentionFit(int(count) * UNITS[unit] * servers, float(retention[1]) if retention else DEFAULT_S)
    assert not fit.is_small
    assert fit.per_s > per_s


async def test_a_start_with_too_little_memory_says_so_in_figures(tmp_path: Path) -> None:
    broker = Broker(tmp_path, "--maxmemory", "100mb")
    await broker.start()
    says = "maxmemory 105 MB keeps about 17,468 answers of 500 tokens, 0.2 a second for HEADRACE_RETENTION_S=86400"
    remedy = "for 1 a second set maxmemory to 519 MB, or HEADRACE_RETENTION_S to 17468"
    try:
        worker = await headrace("worker", HEADRACE_REDIS_URL=broker.url)
        try:
            assert worker.stderr is not None
            async with asyncio.timeout(60):
                events = dict[str, str]()
                while "worker started" not in events:
                    line = json.loads(await worker.stderr.readline())
                    events[line["event"]] = line.get("detail", "")
        finally:
            worker.send_signal(signal.SIGTERM)
            ended = await finish(worker)
        assert ended.code == 0
        assert says in events["memory small for retention"]
        assert remedy in events["memory small for retention"]

        nobody = f"http://127.0.0.1:{free_port()}"  # where the doctor looks for a gateway
        for command, name, key in (("check", "memory", "name"), ("doctor", "redis_retention", "check")):
            process = await headrace(command, "--json", HEADRACE_REDIS_URL=broker.url, HEADRACE_URL=nobody)
            ended = await finish(process, timeout_s=60)
            (row,) = (each for each in json.loads(ended.out)["checks"] if each[key] == name)
            assert row["state"] == "note"
            assert says in row["detail"]
    finally:
        broker.kill()


async def test_memory_that_suffices_is_no_matter(tmp_path: Path) -> None:
    broker = Broker(tmp_path, "--maxmemory", "100mb")
    await broker.start()
    try:
        settings = {"HEADRACE_REDIS_URL": broker.url, "HEADRACE_RETENTION_S": "3600"}
        ended = await finish(await headrace("check", "--json", **settings), timeout_s=60)
        (row,) = (each for each in json.loads(ended.out)["checks"] if each["name"] == "memory")
        assert row["state"] == "ok"
        assert "4.9 a second for HEADRACE_RETENTION_S=3600" in row["detail"]
    finally:
        broker.kill()
