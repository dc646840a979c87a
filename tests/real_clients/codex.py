"""Codex, with one more provider in its configuration. Its sandbox is off: it needs rights that a container lacks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.fakes import Answer, ToolCall
from tests.real_clients.install import folder_of
from tests.real_clients.program import SCHEMA, Command, Outcome, Program, Task, Way

_CONFIGURATION: Final = """\
model = "{model}"
model_provider = "headrace"
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.headrace]
name = "Headrace"
base_url = "{url}/v1"
env_key = "HEADRACE_API_KEY"
wire_api = "responses"
supports_websockets = true
"""


class Codex(Program):
    name = "codex"
    source = "npm"
    packages = ("@openai/codex@0.171.0",)
    ways = (Way("responses", "openai", "gpt-5.5"), Way("responses", "anthropic", "anthropic/claude-sonnet-4-5"))
    offers_tools = True
    is_agent = True

    def append(self, call_id: str, line: str) -> ToolCall:
        return _call(call_id, "exec_command", cmd=f"echo {line} >> steps")

    def look(self, call_id: str, image: Path) -> ToolCall:
        return _call(call_id, "view_image", path=str(image))

    def structured(self, value: object) -> Answer:
        return Answer(deltas=(json.dumps(value),))

    def command(self, task: Task) -> Command:
        settings = task.home / ".codex" / "config.toml"
        settings.parent.mkdir(exist_ok=True)
        settings.write_text(_CONFIGURATION.format(model=task.way.model, url=task.url))
        schema: list[str | Path] = []
        if task.kind == "structured":
            schema_file = task.home / "schema.json"
            schema_file.write_text(json.dumps(SCHEMA))
            schema = ["--output-schema", schema_file]
        program = folder_of(self) / "node_modules" / ".bin" / "codex"
        options = ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", *schema]
        return Command(arguments=[program, "exec", *options, task.prompt], environment={"HEADRACE_API_KEY": "none"})

    def outcome(self, task: Task, code: int, out: str, err: str) -> Outcome:
        outcome = Outcome()
        for event in _events(out):
            match event:
                case {"type": "item.completed", "item": {"type": "agent_message", "text": str(text)}}:
                    outcome.text = text
                case {"type": "turn.completed", "usage": {"cached_input_tokens": int(cached)}}:
                    outcome.cached = cached
                case {"type": "turn.failed", "error": {"message": str(message)}}:
                    outcome.error = message
        if task.kind == "structured" and outcome.text.startswith("{"):
            outcome.parsed = json.loads(outcome.text)
        return outcome


def _events(out: str) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in out.splitlines() if line.startswith("{"))


def _call(call_id: str, name: str, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{call_id}", name, (json.dumps(arguments),))
