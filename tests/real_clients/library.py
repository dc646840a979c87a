"""A library, driven by a script of ``tests/real_clients/drivers`` that uses it as its documentation shows."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from tests.fakes import Answer, ToolCall
from tests.real_clients.install import folder_of
from tests.real_clients.program import Command, Outcome, Program, Task, Way
from tests.real_clients.upstream import count_results

DRIVERS: Final = Path(__file__).parent / "drivers"
_GPT: Final = "openai/gpt-5"
_CLAUDE: Final = "anthropic/claude-sonnet-4-5"
CHAT: Final = (Way("chat", "openai", _GPT), Way("chat", "anthropic", _CLAUDE))
RESPONSES: Final = (Way("responses", "openai", _GPT), Way("responses", "anthropic", _CLAUDE))
MESSAGES: Final = (Way("messages", "anthropic", _CLAUDE), Way("messages", "openai", _GPT))
#: A tool's image is text or missing in the request that the library sends over Chat Completions.
_NO_IMAGE: Final = {"image by a tool": "i"}


def by(client: str, ways: tuple[Way, ...]) -> tuple[Way, ...]:
    """Return ``ways`` by the library's package ``client``."""
    return tuple(replace(way, client=client) for way in ways)


def without_tool_images(ways: tuple[Way, ...]) -> tuple[Way, ...]:
    return tuple(replace(way, lacks=_NO_IMAGE) for way in ways)


@dataclass(frozen=True, slots=True, eq=False)
class Library(Program):
    """``driver``: a script. It prints its outcome as JSON on its last line. ``value_tool``: the tool whose
    arguments are a structured answer. ``final_tool``: the tool whose argument ``answer`` ends the work with tools.
    ``result_text``: a pattern of a tool result, if the library sends results as a user's text."""

    name: str
    source: Literal["npm", "pip"]
    packages: tuple[str, ...]
    ways: tuple[Way, ...]
    driver: str
    lacks: Mapping[str, str] = field(default_factory=dict)
    heavy: bool = False
    value_tool: str | None = None
    final_tool: str | None = None
    result_text: str | None = None

    def append(self, call_id: str, line: str) -> ToolCall:
        return ToolCall(f"call_{call_id}", "append", (json.dumps({"line": line}),))

    def look(self, call_id: str, image: Path) -> ToolCall:
        return ToolCall(f"call_{call_id}", "look", (json.dumps({"path": str(image)}),))

    def final(self, words: Sequence[str]) -> Answer:
        if self.final_tool is None:
            return Answer(deltas=tuple(words))
        arguments = json.dumps({"answer": "".join(words)})
        return Answer(deltas=(), tools=[ToolCall("call_final", self.final_tool, (arguments,))])

    def count_results(self, request: dict[str, Any]) -> int:
        if self.result_text is None:
            return count_results(request)
        said = [message["content"] for message in request["messages"] if message["role"] == "user"]
        return len(re.findall(self.result_text, json.dumps(said)))

    def structured(self, value: object) -> Answer:
        if self.value_tool is not None:
            return Answer(deltas=(), tools=[ToolCall("call_value", self.value_tool, (json.dumps(value),))])
        return Answer(deltas=(json.dumps(value),))

    def command(self, task: Task) -> Command:
        asked = {
            "kind": task.kind,
            "prompt": task.prompt,
            "url": task.url,
            "api": task.way.api,
            "model": task.way.model,
            "client": task.way.client,
        }
        return Command(
            arguments=[*self._interpreter(), json.dumps(asked)],
            environment={"PYTHONWARNINGS": "ignore"},
            cancels=task.kind == "cancel",
        )

    def outcome(self, task: Task, code: int, out: str, err: str) -> Outcome:
        last = out.strip().splitlines()[-1:]
        if not last or not last[0].startswith("{"):
            return Outcome(error=(err or out)[-2000:] or f"exit code {code}")
        return Outcome(**json.loads(last[0]))

    def _interpreter(self) -> list[str | Path]:
        folder = folder_of(self)
        if self.source == "pip":
            return [folder / "bin" / "python", DRIVERS / self.driver]
        # Node finds packages from the folder of the script.
        for script in (self.driver, "task.mjs"):
            shutil.copyfile(DRIVERS / script, folder / script)
        return ["node", folder / self.driver]
