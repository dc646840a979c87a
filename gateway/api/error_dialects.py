"""The dialect in which a client expects an error: by the path, and by header fields where dialects share one."""

from enum import Enum, auto
from typing import Final

from starlette.types import Scope

_OPENAI: Final = ("/v1/chat", "/v1/responses")
_ANTHROPIC: Final = ("/v1/messages",)
_SHARED: Final = "/v1"
#: Fields that Anthropic's clients send. Others send a key as ``Authorization``.
_OF_ANTHROPIC: Final = frozenset({b"anthropic-version", b"x-api-key"})


class Dialect(Enum):
    """``EITHER_…``: a path that several dialects have, or none. The client is likely one of the named kind."""

    NATIVE = auto()
    OPENAI = auto()
    ANTHROPIC = auto()
    EITHER_OPENAI = auto()
    EITHER_ANTHROPIC = auto()


def dialect_of(scope: Scope) -> Dialect:
    path: str = scope["path"]
    if _is_below(path, *_OPENAI):
        return Dialect.OPENAI
    if _is_below(path, *_ANTHROPIC):
        return Dialect.ANTHROPIC
    if not _is_below(path, _SHARED):
        return Dialect.NATIVE
    names = {name for name, _ in scope["headers"]}
    return Dialect.EITHER_ANTHROPIC if names & _OF_ANTHROPIC else Dialect.EITHER_OPENAI


def _is_below(path: str, *roots: str) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)
