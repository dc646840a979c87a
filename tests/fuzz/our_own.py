"""Targets: settings, addresses, our own stored data, and what the command line reads from a gateway."""

import os
import random
from collections.abc import Mapping
from typing import Final
from unittest.mock import patch

import msgspec

from headrace_client._sse import Frame, SseDecoder
from shared.broker.connection_pool import check_url
from shared.broker.sealing import Sealing
from shared.broker.timeline import FIELDS, StreamTimeline
from shared.environment import load_settings
from shared.errors import ContentUnreadable
from shared.protocol import events
from shared.protocol.events import Done, Error, Json, Reasoning, Refusal, Start, Token, ToolCall, Usage
from shared.protocol.transcript import fold
from shared.settings import Settings, SettingsError
from tests.fuzz.mutations import any_text, mutated_bytes, split_randomly
from tests.fuzz.target import Target, from_bytes, from_text

_STREAM_ID: Final = "a3" + "0" * 32
_SEALING: Final = Sealing([b"k" * 32])
_EVENTS: Final = (
    Start("s", "m", "p", 1),
    Token("x", 0),
    Reasoning("x", 0),
    Refusal("x", 0),
    ToolCall(0, "{}", "a", "f", complete=True),
    Json(["a", 1], {"b": None}),
    Error("c", "m", retryable=False, param="p"),
    Done("stop", None, Usage(1, 2)),
)
_STORED: Final = tuple(map(events.encode, _EVENTS))
_SSE: Final = (
    b'retry: 1000\nid: 3-1\nevent: token\ndata: {"token":"x"}\n\n: ping\nid: 3-2\nevent: done\ndata: {}\r\n\r\n'
)
_URLS: Final = (
    "redis://u:hunter2%40@127.0.0.1:6379/0?socket_timeout=3",
    "rediss://h",
    "unix:///tmp/s?db=1",
    "sentinel://u:hunter2@a:1,b:2,[::1]:3/m/1?x=y",
)
_VALUES: Final = (
    *("https://u:hunter2@[::1]:1/a", "http://hunter2@[a", "u:hunter2@h:1", "hunter2" * 9),
    *("1", "0.5", "-1", "true", "keys,jwt", "none", "127.0.0.1", "a, b", "10.0.0.0/8", "https://a.example:8080"),
    *('{"openai": 3}', '{"openai/m": {"first_token_s": 300}}', '{"a": ["b/c"]}', "ab" * 32, *_URLS),
    "-----BEGIN PUBLIC KEY-----\\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\\n-----END PUBLIC KEY-----",
)
_NAMES: Final = tuple(
    alias if isinstance(alias := field.validation_alias, str) else f"HEADRACE_{name.upper()}"
    for name, field in Settings.model_fields.items()
)


def _environment(rng: random.Random) -> dict[str, str]:
    """Make an environment. A value cannot contain NUL, nor text that is not UTF-8."""
    names = [*rng.sample(_NAMES, rng.choice((1, 1, 2, 5))), *(["HEADRACE_X"] if rng.random() < 0.05 else [])]
    return {name: any_text(_VALUES, rng).replace("\0", "").encode("utf-8", "replace").decode() for name in names}


def _settings(environment: Mapping[str, str]) -> None:
    with patch.dict(os.environ, environment, clear=True):
        try:
            settings = load_settings()
        except SettingsError as error:
            assert str(error)
            assert all(": " in line for line in str(error).splitlines())
            assert "hunter2" not in str(error), "a message repeats a value, which may be a password"
            raise
    assert settings.general_timeouts.connect_s > 0
    assert settings.limits.most_tokens >= 0


def _url(text: str) -> None:
    try:
        check_url(text)
    except ValueError as error:
        assert "hunter2" not in str(error)
        raise


def _stored_event(stored: bytes) -> None:
    event = events.decode(stored)
    assert events.encode(event).split(b" ")[0] == event.TYPE
    fold([event])


def _sealed(rng: random.Random) -> bytes:
    return mutated_bytes(_SEALING.seal(_STREAM_ID, b"plain"), rng)


def _open(stored: bytes) -> None:
    opened = _SEALING.open(_STREAM_ID, stored)
    assert opened == (b"plain" if stored.startswith(b"\x01") else stored)


def _history(rng: random.Random) -> dict[str, str]:
    entries = "1:claim:1:w1.2 2:failure:openai:x 3:output 4:parked:openai 5:claim:2:ending 6:resume:reset 7:cancel:x"
    return {"history": any_text([entries], rng), "created": "1", "ended": "9", "finish_reason": "stop"}


def _timeline(fields: Mapping[str, str]) -> None:
    whole: dict[str, str | None] = dict.fromkeys(FIELDS)
    for each in StreamTimeline(_STREAM_ID, whole | dict(fields), 1).timeline():
        assert each.what


def _decode_sse(body: bytes) -> None:
    """Check that events do not depend on how the stream is split."""
    whole, in_pieces = SseDecoder(), SseDecoder()
    at_once = list(whole.feed(body))
    found: list[Frame] = []
    for piece in split_randomly(body, random.Random(len(body))):
        found += in_pieces.feed(piece)
    assert found == at_once
    assert in_pieces.retry_ms == whole.retry_ms


_DECODING: Final[tuple[type[Exception], ...]] = (KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)


OUR_OWN: Final[tuple[Target, ...]] = (
    Target("settings", _environment, _settings, (SettingsError,)),
    Target("redis-url", from_text(*_URLS), _url, (ValueError,)),
    Target("stored-event", from_bytes(*_STORED), _stored_event, _DECODING),
    Target("sealed", _sealed, _open, (ContentUnreadable,)),
    Target("timeline", _history, _timeline),
    Target("sse-decoder", from_bytes(_SSE), _decode_sse),
)
