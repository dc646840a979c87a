"""Simon Willison's ``llm``, with its models for OpenAI's APIs and the plug-in for Anthropic's. Its tools are
functions of the user."""

import json
import re
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.fakes import Answer, ToolCall
from tests.real_clients.install import folder_of
from tests.real_clients.library import CHAT, RESPONSES
from tests.real_clients.program import SCHEMA, Command, Outcome, Program, Task, Way
from tests.real_clients.scenarios import BEFORE_TOOLS

_MODEL: Final = """\
- model_id: headrace
  model_name: {model}
  api_base: {url}/v1
  responses: {responses}
  supports_tools: true
  supports_schema: true
  vision: true
"""
_FUNCTIONS: Final = '''\
from pathlib import Path
import llm

def append(line: str) -> str:
    """Append a line to the file."""
    with Path("steps").open("a") as file:
        file.write(line + "\\n")
    return "appended"

def look(path: str) -> llm.ToolOutput:
    """Read an image."""
    return llm.ToolOutput(output="an image", attachments=[llm.Attachment(path=path, type="image/png")])
'''
_CACHED: Final = re.compile(r'"(?:cached_tokens|cache_read_input_tokens)": (\d+)')


class Llm(Program):
    name = "llm"
    source = "pip"
    packages = ("llm==0.36", "llm-anthropic==0.30")
    # The plug-in has the models of Anthropic only.
    ways = (*CHAT, *RESPONSES, Way("messages", "anthropic", "claude-sonnet-4-5"))
    lacks = MappingProxyType({"gateways killed": "b"})

    def append(self, call_id: str, line: str) -> ToolCall:
        return ToolCall(f"call_{call_id}", "append", (json.dumps({"line": line}),))

    def look(self, call_id: str, image: Path) -> ToolCall:
        return ToolCall(f"call_{call_id}", "look", (json.dumps({"path": str(image)}),))

    def structured(self, value: object) -> Answer:
        return Answer(deltas=(json.dumps(value),))

    def command(self, task: Task) -> Command:
        models = task.home / "extra-openai-models.yaml"
        responses = json.dumps(task.way.api == "responses")
        models.write_text(_MODEL.format(model=task.way.model, url=task.url, responses=responses))
        functions = task.home / "functions.py"
        functions.write_text(_FUNCTIONS)
        model = "headrace" if task.way.api != "messages" else f"anthropic/{task.way.model}"
        options: list[str | Path] = ["--usage", "--hide-reasoning", "--model", model]
        if task.kind in {"tools", "image"}:
            options += ["--functions", functions]
        if task.kind == "structured":
            options += ["--schema", json.dumps(SCHEMA)]
        if task.kind == "usage" and task.way.api == "messages":
            options += ["-o", "cache", "1"]
        return Command(
            arguments=[folder_of(self) / "bin" / "llm", "prompt", task.prompt, *options],
            environment={
                "LLM_USER_PATH": str(task.home),
                "ANTHROPIC_BASE_URL": task.url,
                "ANTHROPIC_API_KEY": "none",
            },
        )

    def outcome(self, task: Task, code: int, out: str, err: str) -> Outcome:
        """Return the outcome of the last step. The program prints the text of all steps in a row."""
        text = out.strip().removeprefix(BEFORE_TOOLS).strip()
        cached = _CACHED.search(err)
        return Outcome(
            text=text,
            parsed=json.loads(text) if task.kind == "structured" and code == 0 else None,
            cached=int(cached[1]) if cached else None,
        )
