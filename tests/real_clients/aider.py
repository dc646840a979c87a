"""aider, with the addresses and keys of OpenAI's and Anthropic's APIs. It gives no tools: models edit by text."""

import json
import re
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.fakes import Answer, ToolCall
from tests.real_clients.install import folder_of
from tests.real_clients.program import Command, Outcome, Program, Task, Way

#: No requests beyond the gateway, and no questions.
_OPTIONS: Final = (
    "--yes-always",
    "--no-check-update",
    "--analytics-disable",
    "--no-show-release-notes",
    "--no-show-model-warnings",
)
#: The program loads a list of models if there is none of today.
_MODELS: Final = Path(".aider") / "caches" / "model_prices_and_context_window.json"
#: The program has statistics of the cache only if it does not stream, its documentation says.
_CACHE: Final = ("--cache-prompts", "--no-stream")
_ANSWER: Final = re.compile(r"\n\n((?:.+\n)+)\n*Tokens: ")
_CACHED: Final = re.compile(r"(\d+) cache hit")
_ERROR: Final = re.compile(r"litellm\.\w+(?:Error|Exception).*", re.DOTALL)


class Aider(Program):
    name = "aider"
    source = "pip"
    packages = ("aider-chat==0.86.2",)
    ways = (
        Way("chat", "openai", "openai/openai/gpt-5"),
        Way("chat", "anthropic", "openai/anthropic/claude-sonnet-4-5"),
        Way("messages", "anthropic", "anthropic/claude-sonnet-4-5"),
        Way("messages", "openai", "anthropic/openai/gpt-5"),
    )
    lacks = MappingProxyType(
        {
            **dict.fromkeys(
                ("parallel tools", "three steps", "image by a tool", "structured", "gateways killed"), "b"
            ),
            # It shows only the counts of Anthropic's and DeepSeek's APIs.
            "chat: cached tokens": "c",
        }
    )

    def append(self, call_id: str, line: str) -> ToolCall:
        raise NotImplementedError

    def look(self, call_id: str, image: Path) -> ToolCall:
        raise NotImplementedError

    def structured(self, value: object) -> Answer:
        raise NotImplementedError

    def command(self, task: Task) -> Command:
        models = task.home / _MODELS
        models.parent.mkdir(parents=True, exist_ok=True)
        models.write_text(json.dumps({"none": {}}))
        options = [*_OPTIONS, *(_CACHE if task.kind == "usage" else ())]
        program = folder_of(self) / "bin" / "aider"
        return Command(
            arguments=[program, "--model", str(task.way.model), *options, "--message", task.prompt],
            environment={
                "OPENAI_API_BASE": f"{task.url}/v1",
                "OPENAI_API_KEY": "none",
                "ANTHROPIC_API_BASE": task.url,
                "ANTHROPIC_API_KEY": "none",
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            },
        )

    def outcome(self, task: Task, code: int, out: str, err: str) -> Outcome:
        answer, cached, error = _ANSWER.search(out), _CACHED.search(out), _ERROR.search(out)
        return Outcome(
            text=answer[1].strip() if answer else "",
            cached=int(cached[1]) if cached else None,
            error=error[0][-1000:] if error else None,
        )
