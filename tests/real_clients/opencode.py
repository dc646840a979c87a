"""opencode, with one more provider in its configuration. It may use its tools unasked, and loads no plug-ins."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from tests.fakes import Answer, ToolCall
from tests.real_clients.install import folder_of
from tests.real_clients.program import Command, Outcome, Program, Task, Way

_PACKAGES: Final = {
    "chat": "@ai-sdk/openai-compatible",
    "responses": "@ai-sdk/openai",
    "messages": "@ai-sdk/anthropic",
}
#: The configuration's entry for a model that the program has no data of.
_MODEL: Final = {"attachment": True, "modalities": {"input": ["text", "image"], "output": ["text"]}}


class Opencode(Program):
    name = "opencode"
    source = "npm"
    packages = ("opencode-ai@1.18.33",)
    ways = (
        Way("chat", "openai", "openai/gpt-5"),
        Way("chat", "anthropic", "anthropic/claude-sonnet-4-5"),
        Way("responses", "openai", "openai/gpt-5"),
        Way("messages", "anthropic", "anthropic/claude-sonnet-4-5"),
        Way("messages", "openai", "openai/gpt-5"),
    )
    lacks = MappingProxyType({"structured": "c"})
    offers_tools = True
    is_agent = True

    def append(self, call_id: str, line: str) -> ToolCall:
        return _call(call_id, "bash", command=f"echo {line} >> steps", description="Append a line")

    def look(self, call_id: str, image: Path) -> ToolCall:
        return _call(call_id, "read", filePath=str(image))

    def structured(self, value: object) -> Answer:
        raise NotImplementedError

    def command(self, task: Task) -> Command:
        settings = task.home / ".config" / "opencode" / "opencode.json"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps(_configuration(task)))
        (task.home / ".npmrc").write_text("offline=true\n")
        program = folder_of(self) / "node_modules" / ".bin" / "opencode"
        options = ["--format", "json", "--auto", "--model", f"headrace/{task.way.model}"]
        return Command(
            arguments=[program, "run", *options, task.prompt], environment={"OPENCODE_DISABLE_MODELS_FETCH": "1"}
        )

    def outcome(self, task: Task, code: int, out: str, err: str) -> Outcome:
        outcome = Outcome()
        for event in _events(out):
            match event:
                case {"type": "text", "part": {"text": str(text)}}:
                    outcome.text = text
                case {"type": "step_finish", "part": {"tokens": {"cache": {"read": int(cached)}}}}:
                    outcome.cached = cached
                case {"type": "error", "error": error}:
                    outcome.error = json.dumps(error)
        return outcome


def _configuration(task: Task) -> dict[str, Any]:
    provider = {
        "npm": _PACKAGES[task.way.api],
        "name": "Headrace",
        "options": {"baseURL": f"{task.url}/v1", "apiKey": "none"},
        "models": {task.way.model: _MODEL},
    }
    return {"autoupdate": False, "share": "disabled", "provider": {"headrace": provider}}


def _events(out: str) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in out.splitlines() if line.startswith("{"))


def _call(call_id: str, name: str, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{call_id}", name, (json.dumps(arguments),))
