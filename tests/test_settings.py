"""The environment is checked as a whole: every problem has a line that names the variable and the remedy."""

import os

import pytest

from shared.environment import load_settings
from shared.settings import SettingsError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("HEADRACE_", "OPENAI_", "OTEL_")):
            monkeypatch.delenv(name)


def problems(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    return str(refused.value).splitlines()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("HEADRACE_FROBNICATE", "1", "unknown setting; remove it"),
        ("HEADRACE_PROT", "1", "unknown setting; did you mean HEADRACE_PORT?"),
        ("HEADRACE_OPENAI_API_KEY", "1", "unknown setting; did you mean OPENAI_API_KEY?"),
        ("HEADRACE_PORT", "x", "not an integer; set an integer from 0 to 65535"),
        ("HEADRACE_PORT", "65536", "too large; set an integer from 0 to 65535"),
        ("HEADRACE_LEASE_S", "0.5", "too small; set a number of seconds from 1 to 300"),
        ("HEADRACE_HEARTBEAT_S", "0", "too small; set a number of seconds above 0 up to 86400"),
        ("HEADRACE_RETENTION_S", "inf", "not a finite number; set a number of seconds from 1 to 315360000"),
        ("HEADRACE_TICKET_LIFE_S", "0", "too small; set a number of seconds from 1"),
        ("HEADRACE_LOG_LEVEL", "INFO", "unknown value; use debug, info, warning or error"),
        ("HEADRACE_AUTH", "keys,jtw", "entry 2: unknown value; use none, keys or jwt"),
        ("HEADRACE_SECRET", "short", "too short; use at least 32 characters"),
        ("HEADRACE_DEFAULT_MODEL", "x" * 257, "too long; use at most 256 characters"),
        ("HEADRACE_FALLBACKS", "openai", "not valid JSON; set a JSON object"),
        ("HEADRACE_FALLBACKS", "[]", "not a JSON object; use {…}"),
        ("HEADRACE_FALLBACKS", '{"a": "b"}', "a: not a JSON array; use […]"),
        ("HEADRACE_FALLBACKS", '{"a": [1]}', "a: entry 1: not text; use quotes"),
        ("HEADRACE_PROVIDER_STREAMS", '{"openai": 0}', "openai: too small; set a number from 1"),
        ("OTEL_SDK_DISABLED", "maybe", "not a boolean; use true or false"),
        ("OPENAI_BASE_URL", "x", "does not begin with http:// or https://; write the whole URL"),
    ],
)
def test_a_problem_names_the_variable_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    assert problems(monkeypatch, **{name: value}) == [f"{name}: {problem}"]


def test_variables_of_clients_stop_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/clients.md says to export them, perhaps in the shell that starts ``headrace up``."""
    for name in ("HEADRACE_URL", "HEADRACE_API_KEY", "HEADRACE_MODEL"):
        monkeypatch.setenv(name, "anything")
    load_settings()
    assert problems(monkeypatch, HEADRACE_KEY="x") == [
        "HEADRACE_KEY: unknown setting; did you mean HEADRACE_API_KEY?"
    ]


def test_all_problems_are_listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = problems(
        monkeypatch,
        HEADRACE_PROT="1",
        HEADRACE_METRICS_PORT="x",
        HEADRACE_MODEL_TIMEOUTS='{"openai": {"connect_s": 0, "total": 1}}',
        HEADRACE_WINDOW="9999",
        HEADRACE_AUTH="jwt",
    )
    assert found == [
        "HEADRACE_PROT: unknown setting; did you mean HEADRACE_PORT?",
        "HEADRACE_METRICS_PORT: not an integer; set an integer from 0 to 65535",
        "HEADRACE_MODEL_TIMEOUTS: openai: connect_s: too small; set a number above 0",
        "HEADRACE_MODEL_TIMEOUTS: openai: total: unknown field;"
        " use connect_s, first_token_s, between_tokens_s, total_s",
        "HEADRACE_WINDOW: 9999 exceeds HEADRACE_CAP (1024); lower it or raise HEADRACE_CAP",
        "HEADRACE_AUTH: jwt needs one source of keys, not 0; set one of"
        " HEADRACE_JWT_SECRET, HEADRACE_JWT_PUBLIC_KEY, HEADRACE_JWT_JWKS_URL",
        "HEADRACE_JWT_AUDIENCE: not set, so tokens for other services would be accepted; set it for jwt",
    ]


def test_the_default_of_an_invalid_setting_conflicts_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = problems(monkeypatch, HEADRACE_WINDOW="2048", HEADRACE_CAP="4k", OTEL_SDK_DISABLED="maybe")
    assert [line.partition(":")[0] for line in found] == ["OTEL_SDK_DISABLED", "HEADRACE_CAP"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEADRACE_REDIS_URL", "redis://:canary@[x"),
        ("HEADRACE_REDIS_URL", "sentinel://[::1u:canary@a:1,b:2,[::1]:3/m"),
        ("HEADRACE_JWT_JWKS_URL", "https://user:canary@[::1u]/"),
        ("HEADRACE_CORS_ORIGINS", "https://user:canary@[::1u]"),
        ("OPENAI_BASE_URL", "http://user:canary@[::1u]"),
        ("OLLAMA_HOST", "user:canary@[::1u]"),
    ],
)
def test_no_value_with_an_invalid_address_is_repeated(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The standard library's message contains everything between the slashes."""
    (problem,) = problems(monkeypatch, **{name: value})
    assert problem.startswith(f"{name}: ")
    assert "canary" not in problem


def test_no_value_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value may be a secret, or contain one."""
    found = problems(
        monkeypatch,
        HEADRACE_SECRET="canary",
        HEADRACE_CONTENT_KEYS="canary",
        HEADRACE_JWT_SECRET="canary",
        HEADRACE_JWT_PUBLIC_KEY="canary",
        HEADRACE_JWT_JWKS_URL="http://user:canary@example.com/",
        HEADRACE_REDIS_URL="redis://:cana/canary@x",
        HEADRACE_CORS_ORIGINS="https://user:canary@example.com",
        HEADRACE_TRUSTED_PROXIES="canary",
        HEADRACE_FALLBACKS="canary",
        HEADRACE_AUTH="canary",
        HEADRACE_PORT="canary",
        HEADRACE_LOG_FORMAT="canary",
        OPENAI_BASE_URL="http://user:can/canary@y",
    )
    assert len(found) == 13
    assert "canary" not in "\n".join(found)
