"""The interface of a program: its installation, its tools, and one run of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from tests.fakes import Answer, ToolCall
from tests.real_clients.upstream import count_results

Kind = Literal["text", "tools", "image", "structured", "cancel", "error", "usage"]
Api = Literal["chat", "responses", "messages"]
#: The schema of every structured answer.
SCHEMA: Final = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Way:
    """An API that the program speaks, and the provider behind the gateway. ``model``: the name that it asks for; None
    for its default. ``client``: the program's package for this API, if it has several. ``lacks``: the scenarios that
    the program does not have in this way, with the letter of the reason."""

    api: Api
    provider: Literal["openai", "anthropic"]
    model: str | None
    client: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def is_direct(self) -> bool:
        """Return whether the provider itself has this API."""
        return (self.api, self.provider) in {("chat", "openai"), ("messages", "anthropic")}

    def __str__(self) -> str:
        client = f" ({self.client})" if self.client else ""
        return f"{self.api}{client} → {self.provider}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run of a program. ``url``: of the gateway, without ``/v1``. ``folder``: the working folder, in which the
    program's tools append lines to the file ``steps``. ``home``: an empty home folder."""

    kind: Kind
    prompt: str
    url: str
    way: Way
    folder: Path
    home: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The program's command line. ``environment`` is added to a minimal one. ``cancels``: it cancels the answer by
    itself once it has some text, and then waits for the end of its input; other programs get Ctrl-C."""

    arguments: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    cancels: bool = False


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The result for the program's user. ``cached``: the reported tokens that came from the provider's cache."""

    text: str = ""
    parsed: Any = None
    cached: int | None = None
    error: str | None = None


class Program(ABC):
    """A program, at a pinned version. ``lacks``: the scenarios that it does not have, with the letter of the reason.
    A key is a column, or ``api: column`` if the program lacks it over that API only.
    ``offers_tools``: every request of its main loop has tools; one without them is a side request, such as for a
    title. ``main_tool``: a tool that only requests of its main loop have. ``heavy``: it is run at the nightly level
    only. ``is_agent``: it finishes a task by itself, so that it is also run while gateways are killed."""

    name: str
    source: Literal["npm", "pip"]
    packages: tuple[str, ...]
    ways: tuple[Way, ...]
    lacks: Mapping[str, str] = MappingProxyType({})
    offers_tools: bool = False
    main_tool: str | None = None
    heavy: bool = False
    is_agent: bool = False

    @abstractmethod
    def append(self, call_id: str, line: str) -> ToolCall:
        """Return the call of a tool that appends ``line`` to the file ``steps``."""

    @abstractmethod
    def look(self, call_id: str, image: Path) -> ToolCall:
        """Return the call of a tool that reads an image."""

    @abstractmethod
    def structured(self, value: object) -> Answer:
        """Return an answer that gives the program ``value`` of :data:`SCHEMA`."""

    def final(self, words: Sequence[str]) -> Answer:
        """Return the answer that ends the program's work with tools."""
        return Answer(deltas=tuple(words))

    def count_results(self, request: dict[str, Any]) -> int:
        """Count the tool results in a request to the provider."""
        return count_results(request)

    @abstractmethod
    def command(self, task: Task) -> Command: ...

    @abstractmethod
    def outcome(self, task: Task, code: int, out: str, err: str) -> Outcome: ...
