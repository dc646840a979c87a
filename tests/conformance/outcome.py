"""The request to a client and its outcome for the user: the same for all clients, so that a row is written once."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

Say = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """``leave_at``: stop, in this client's way, once the text contains this. ``resume``: continue after a cut if the
    client does not by itself. ``words``: the browser in whose words it gets the cut. ``join``: read an answer that
    was requested elsewhere. ``key``: Idempotency-Key."""

    base: str
    model: str
    key: str | None = None
    tools: tuple[str, ...] = ()
    structured: bool = False
    max_retries: int = 0
    leave_at: str | None = None
    resume: bool = False
    words: str | None = None
    join: Any = None
    read_timeout_s: float | None = None


@dataclass(slots=True)
class Outcome:
    """``finish`` in the client's own terms. ``error`` has name, message, status and code. ``messages``: of a client
    that keeps the conversation."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tools: list[list[Any]] = field(default_factory=list)
    parsed: Any = None
    usage: list[int] | None = None
    finish: str | None = None
    error: dict[str, Any] | None = None
    left: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)

    def leaves(self, ask: Ask) -> bool:
        self.left = ask.leave_at is not None and ask.leave_at in self.text
        return self.left


@dataclass(frozen=True, slots=True)
class Client:
    """``run``: a function, or its name in ``tests/node/clients.mjs``. ``resumes``: after a cut, by itself or on its
    user's request; never if its protocol cannot. ``held``: its HTTP status waits for the first output. ``needs_key``:
    it needs an ``Idempotency-Key`` to repeat a request. ``joins``: it can read an answer that was requested
    elsewhere. ``package``: the package that has its version."""

    name: str
    protocol: str
    run: Callable[[Ask, Outcome, Say], Coroutine[Any, Any, None]] | str
    resumes: Literal["itself", "asked", "not"]
    held: bool
    package: str
    needs_key: bool = False
    joins: bool = False
