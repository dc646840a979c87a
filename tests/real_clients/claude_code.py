"""Claude Code, with its default settings: only the address and the key are set."""

import json
from pathlib import Path
from typing import Any, Final

from tests.fakes import Answer, ToolCall
from tests.real_clients.install import folder_of
from tests.real_clients.program import SCHEMA, Command, Outcome, Program, Task, Way

#: IS_SANDBOX: it may use its tools unasked as root. The others: no traffic beyond the gateway.
_ENVIRONMENT: Final = {
    "IS_SANDBOX": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
}


class ClaudeCode(Program):
    name = "claude-code"
    source = "npm"
    packages = ("@anthropic-ai/claude-code@2.1.332",)
    ways = (Way("messages", "anthropic", None), Way("messages", "openai", "openai/gpt-5"))
    offers_tools = True
    is_agent = True

    def append(self, call_id: str, line: str) -> ToolCall:
        return _call(call_id, "Bash", command=f"echo {line} >> steps", description="Append a line")

    def look(self, call_id: str, image: Path) -> ToolCall:
        return _call(call_id, "Read", file_path=str(image))

    def structured(self, value: object) -> Answer:
        return Answer(deltas=(), tools=[ToolCall("toolu_value", "StructuredOutput", (json.dumps(value),))])

    def command(self, task: Task) -> Command:
        model = [] if task.way.model is None else ["--model", task.way.model]
        schema = ["--json-schema", json.dumps(SCHEMA)] if task.kind == "structured" else []
        program = folder_of(self) / "node_modules" / ".bin" / "claude"
        options = ["--output-format", "json", "--dangerously-skip-permissions", *model, *schema]
        address = {"ANTHROPIC_BASE_URL": task.url, "ANTHROPIC_API_KEY": "sk-ant-api03-none"}
        return Command(arguments=[program, "-p", task.prompt, *options], environment=_ENVIRONMENT | address)

    def outcome(self, task: Task, code: int, out: str, err: str) -> Outcome:
        if not out.strip().startswith("{"):
            return Outcome(error=(err or out)[-1000:] or f"exit code {code}")
        result = json.loads(out)
        return Outcome(
            text=result.get("result", ""),
            parsed=result.get("structured_output"),
            cached=result["usage"]["cache_read_input_tokens"],
            error=result.get("result", "no reason") if result["is_error"] else None,
        )


def _call(call_id: str, name: str, **arguments: Any) -> ToolCall:
    return ToolCall(f"toolu_{call_id}", name, (json.dumps(arguments),))
