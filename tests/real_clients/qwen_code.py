"""Qwen Code, with one model provider in its settings. It may use its tools unasked."""

import json
from pathlib import Path
from typing import Any, Final

from tests.fakes import Answer, ToolCall
from tests.real_clients.install import folder_of
from tests.real_clients.program import SCHEMA, Command, Outcome, Program, Task, Way

#: By API: the program's name for it, the variable of its key, and the path of its base URL.
_APIS: Final = {
    "chat": ("openai", "OPENAI_API_KEY", "/v1"),
    "responses": ("openai-responses", "OPENAI_API_KEY", "/v1"),
    "messages": ("anthropic", "ANTHROPIC_API_KEY", ""),
}


class QwenCode(Program):
    name = "qwen-code"
    source = "npm"
    packages = ("@qwen-code/qwen-code@0.24.4",)
    ways = (
        Way("chat", "openai", "openai/gpt-5"),
        Way("chat", "anthropic", "anthropic/claude-sonnet-4-5"),
        Way("responses", "openai", "openai/gpt-5"),
        Way("messages", "anthropic", "anthropic/claude-sonnet-4-5"),
        Way("messages", "openai", "openai/gpt-5"),
    )
    offers_tools = True
    # Its requests that write down memories have other tools only.
    main_tool = "agent"
    is_agent = True

    def append(self, call_id: str, line: str) -> ToolCall:
        return _call(call_id, "run_shell_command", command=f"echo {line} >> steps", is_background=False)

    def look(self, call_id: str, image: Path) -> ToolCall:
        return _call(call_id, "read_file", file_path=str(image))

    def structured(self, value: object) -> Answer:
        return Answer(deltas=(), tools=[ToolCall("call_value", "structured_output", (json.dumps(value),))])

    def command(self, task: Task) -> Command:
        settings = task.home / ".qwen" / "settings.json"
        settings.parent.mkdir(exist_ok=True)
        settings.write_text(json.dumps(_settings(task)))
        schema = ["--json-schema", json.dumps(SCHEMA)] if task.kind == "structured" else []
        program = folder_of(self) / "node_modules" / ".bin" / "qwen"
        options = ["--output-format", "json", "--yolo", *schema]
        return Command(
            arguments=[program, *options, "--prompt", task.prompt], environment={_APIS[task.way.api][1]: "none"}
        )

    def outcome(self, task: Task, code: int, out: str, err: str) -> Outcome:
        if not out.strip().startswith("["):
            return Outcome(error=(err or out)[-1000:] or f"exit code {code}")
        events = json.loads(out)
        result = events[-1]
        usage = [event["message"]["usage"] for event in events if event["type"] == "assistant"]
        return Outcome(
            text=result.get("result", ""),
            parsed=result.get("structured_result"),
            cached=usage[-1].get("cache_read_input_tokens") if usage else None,
            error=json.dumps(result.get("error", result)) if result["is_error"] else None,
        )


def _settings(task: Task) -> dict[str, Any]:
    api, key, path = _APIS[task.way.api]
    model = {
        "id": task.way.model,
        "envKey": key,
        "baseUrl": task.url + path,
        "generationConfig": {"modalities": {"image": True}},
    }
    return {
        "modelProviders": {api: [model]},
        "security": {"auth": {"selectedType": api}},
        "model": {"name": task.way.model},
        "general": {"enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
    }


def _call(call_id: str, name: str, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{call_id}", name, (json.dumps(arguments),))
