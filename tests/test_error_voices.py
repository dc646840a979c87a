"""Errors have two voices: the client gets what happened and what to do, the log gets the cause and the setting."""

import logging

import httpx
import pytest
from fastapi import FastAPI

from gateway.api import errors
from shared.errors import BrokerUnavailable, Forbidden


def app_raising(error: Exception, cause: Exception | None = None) -> FastAPI:
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False})
    errors.install(app)

    @app.get("/")
    async def fail() -> None:
        raise error from cause

    return app


async def get(app: FastAPI) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get("/")


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the lines about errors, without those of an earlier test's tasks."""
    return [line for line in caplog.records if line.name == errors.__name__]


async def test_the_cause_is_logged_and_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    app = app_raising(BrokerUnavailable(detail="HEADRACE_REDIS_URL is wrong"), ConnectionError("redis.internal:6379"))
    answer = await get(app)
    assert answer.status_code == 503
    assert "HEADRACE" not in answer.text
    assert "redis" not in answer.text
    (line,) = logged(caplog)
    assert (line.levelno, line.message) == (logging.WARNING, "request refused")
    assert vars(line)["code"] == "broker_unavailable"
    assert vars(line)["detail"] == "HEADRACE_REDIS_URL is wrong"
    assert "redis.internal:6379" in vars(line)["cause"]


async def test_a_repeated_error_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_raising(Forbidden("not from here", detail="a setting"))
    for _ in range(3):
        assert (await get(app)).status_code == 403
    assert len(logged(caplog)) == 1
    monkeypatch.setattr(errors, "_next_detail_at", {})  # a minute later
    await get(app)
    assert len(logged(caplog)) == 2


async def test_an_error_without_detail_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert (await get(app_raising(Forbidden("credentials: lack the scope admin")))).status_code == 403
    assert logged(caplog) == []
