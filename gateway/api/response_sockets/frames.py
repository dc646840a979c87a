"""Frames of a client on a WebSocket: a request each, as JSON, with members of their own around it."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.intake.submit import MOST_KEY_CHARACTERS
from shared.errors import HeadraceError, InvalidJson, InvalidRequest, StreamNotFound
from shared.schemas.chat import parse_json_object
from shared.schemas.json_bounds import check_value_count

CREATE: Final = "response.create"
RESUME: Final = "response.resume"
CANCEL: Final = "response.cancel"
STEER: Final = "response.steer"
_TYPES: Final = (CREATE, RESUME, CANCEL)
_LONGEST_TRACK: Final = 128
_LONGEST_ID: Final = 128
_ENVELOPE: Final = ("type", "stream_id", "idempotency_key", "generate")


@dataclass(frozen=True, slots=True)
class Create:
    """``body``: of ``POST /v1/responses``. ``track``: the client's ``stream_id``. ``generates``: False for a request
    that is only prepared. ``previous``: id of the response that it continues. ``stores``: False if its input must not
    be kept."""

    track: str | None
    body: bytes
    idempotency_key: str | None
    generates: bool
    previous: str | None
    stores: bool


@dataclass(frozen=True, slots=True)
class Resume:
    track: str | None
    response_id: str
    starting_after: int


@dataclass(frozen=True, slots=True)
class Cancel:
    track: str | None
    response_id: str


@dataclass(frozen=True, slots=True)
class Steer:
    """Input for a response in progress, which no provider here takes."""

    track: str | None
    previous: str
    input: Any


ClientFrame = Create | Resume | Cancel | Steer


class BadFrame(Exception):
    """A frame that is refused. ``track``: as far as the frame names one."""

    def __init__(self, error: HeadraceError, track: str | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.track = track


def parse_frame(text: bytes) -> ClientFrame:
    """Raises :class:`BadFrame`."""
    track: str | None = None
    try:
        raw = _members_of(text)
        track = _track_of(raw)
        return _frame_of(raw, track)
    except HeadraceError as error:
        raise BadFrame(error, track) from None


def _members_of(text: bytes) -> dict[str, msgspec.Raw]:
    try:
        check_value_count(text)  # millions of small values would take a multiple of the text's memory
    except ValueError as error:
        raise InvalidRequest(f"message: {error}") from None
    try:
        return msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _not_an_object(text) from None


def _not_an_object(text: bytes) -> HeadraceError:
    """Return the error that a body of HTTP gets, which names the place."""
    try:
        parse_json_object(text)
    except HeadraceError as error:
        return type(error)(error.message.replace("body", "message", 1))
    return InvalidJson("message: not a JSON object; send one, with a type")


def _frame_of(raw: dict[str, msgspec.Raw], track: str | None) -> ClientFrame:
    match _text(raw, "type"):
        case "response.create":
            return _create_of(raw, track)
        case "response.resume":
            return Resume(track, _required(raw, "response_id"), _starting_after(raw))
        case "response.cancel":
            return Cancel(track, _required(raw, "response_id"))
        case "response.steer":
            return Steer(track, _text(raw, "previous_response_id") or "", _value(raw, "input"))
        case None:
            raise InvalidRequest(f"type: missing; use one of {', '.join(_TYPES)}")
        case other:
            raise InvalidRequest(f"type: unknown type {other[:64]!r}; use one of {', '.join(_TYPES)}")


def _create_of(raw: dict[str, msgspec.Raw], track: str | None) -> Create:
    generates, stores = _flag(raw, "generate", default=True), _flag(raw, "store", default=True)
    body = {name: value for name, value in raw.items() if name not in _ENVELOPE}
    body["stream"] = msgspec.Raw(b"true")  # a WebSocket has no other answers
    return Create(
        track=track,
        body=msgspec.json.encode(body),
        idempotency_key=_idempotency_key(raw),
        generates=generates,
        previous=_text(raw, "previous_response_id"),
        stores=stores,
    )


def _idempotency_key(raw: dict[str, msgspec.Raw]) -> str | None:
    key = _text(raw, "idempotency_key")
    if key is not None and not 1 <= len(key) <= MOST_KEY_CHARACTERS:
        raise InvalidRequest(f"idempotency_key: must have 1 to {MOST_KEY_CHARACTERS} characters")
    return key


def _track_of(raw: dict[str, msgspec.Raw]) -> str | None:
    track = _text(raw, "stream_id")
    if track is not None and not 1 <= len(track) <= _LONGEST_TRACK:
        raise InvalidRequest(f"stream_id: must have 1 to {_LONGEST_TRACK} characters")
    return track


def _starting_after(raw: dict[str, msgspec.Raw]) -> int:
    value = _value(raw, "starting_after")
    if value is None:
        return -1
    if not isinstance(value, int) or isinstance(value, bool) or not -1 <= value < 2**53:
        raise InvalidRequest("starting_after: must be the sequence_number of an event, or -1 for all events")
    return value


def _required(raw: dict[str, msgspec.Raw], name: str) -> str:
    value = _text(raw, name)
    if not value:
        raise InvalidRequest(f"{name}: missing; set it to the id of a response")
    if len(value) > _LONGEST_ID:
        raise StreamNotFound
    return value


def _flag(raw: dict[str, msgspec.Raw], name: str, *, default: bool) -> bool:
    value = _value(raw, name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}: must be true or false")
    return value


def _text(raw: dict[str, msgspec.Raw], name: str) -> str | None:
    value = _value(raw, name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{name}: must be a string")
    return value


def _value(raw: dict[str, msgspec.Raw], name: str) -> Any:
    if name not in raw:
        return None
    try:
        return msgspec.json.decode(raw[name])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise InvalidJson(f"{name}: not valid JSON; correct it") from None
