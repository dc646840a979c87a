"""What is asked of a client, and what its user then has: the same for all, so that a row is written once."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

Say = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """``leave_at``: stop, as this client does, once the text has that. ``resume``: go on after a cut, where the
    client does not by itself. ``join``: read what was asked for elsewhere. ``key``: Idempotency-Key."""

    base: str
    model: str
    key: str | None = None
    tools: tuple[str, ...] = ()
    structured: bool = False
    max_retries: int = 0
    leave_at: str | None = None
    resume: bool = False
    join: Any = None
    read_timeout_s: float | None = None


@dataclass(slots=True)
class Outcome:
    """``finish`` in the client's own words. ``error`` has name, message, status and code."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tools: list[list[Any]] = field(default_factory=list)
    parsed: Any = None
    usage: list[int] | None = None
    finish: str | None = None
    error: dict[str, Any] | None = None
    left: bool = False

    def leaves(self, ask: Ask) -> bool:
        self.left = ask.leave_at is not None and ask.leave_at in self.text
        return self.left


@dataclass(frozen=True, slots=True)
class Client:
    """``run``: a function, or its name in ``tests/node/clients.mjs``. ``resumes``: after a cut, by itself or where
    its user says so; not at all where the protocol cannot. ``held``: its HTTP status waits for the first word.
    ``needs_key``: to send a request again it needs an ``Idempotency-Key``. ``joins``: can read what was asked for
    elsewhere. ``package``: where its version is found."""

    name: str
    protocol: str
    run: Callable[[Ask, Outcome, Say], Coroutine[Any, Any, None]] | str
    resumes: Literal["itself", "asked", "not"]
    held: bool
    package: str
    needs_key: bool = False
    joins: bool = False
