"""All programs, in the order of the table."""

from typing import Final

from tests.real_clients.aider import Aider
from tests.real_clients.claude_code import ClaudeCode
from tests.real_clients.codex import Codex
from tests.real_clients.library import CHAT, MESSAGES, RESPONSES, Library, by, without_tool_images
from tests.real_clients.llm import Llm
from tests.real_clients.opencode import Opencode
from tests.real_clients.program import Program, Way
from tests.real_clients.qwen_code import QwenCode

_AI_SDK_7: Final = (
    "ai@7.0.173",
    "@ai-sdk/openai@4.0.118",
    "@ai-sdk/anthropic@4.0.105",
    "@ai-sdk/openai-compatible@3.0.92",
)
_AI_SDK_6: Final = (
    "ai@6.0.326",
    "@ai-sdk/openai@3.0.141",
    "@ai-sdk/anthropic@3.0.140",
    "@ai-sdk/openai-compatible@2.0.92",
)
_AI_SDK_WAYS: Final = (
    *without_tool_images(by("@ai-sdk/openai", CHAT)),
    *by("@ai-sdk/openai", RESPONSES),
    *by("@ai-sdk/anthropic", MESSAGES),
)
_AI_SDK_COMPATIBLE: Final = by("@ai-sdk/openai-compatible", CHAT)
_LANGCHAIN: Final = (
    "langchain==1.5.2",
    "langchain-openai==1.7.4",
    "langchain-anthropic==1.7.10",
    "langgraph==1.2.24",
)
#: Its API passes a chat on; its own tools run in a browser's session only.
_OPEN_WEBUI_LACKS: Final = dict.fromkeys(("parallel tools", "three steps", "image by a tool", "structured"), "b")
_LANGCHAIN_JS: Final = (
    "langchain@1.5.14",
    "@langchain/openai@1.6.0",
    "@langchain/anthropic@1.5.11",
    "@langchain/langgraph@1.7.3",
    "@langchain/core@1.4.0",
    "zod@4.6.7",
)
_AGENTS_JS: Final = ("@openai/agents@0.20.0", "openai@7.59.0", "zod@4.6.7")
_LLAMA_INDEX: Final = (
    "llama-index-core==0.14.25",
    "llama-index-llms-openai-like==0.8.1",
    "llama-index-llms-openai==0.8.3",
    "llama-index-llms-anthropic==0.12.3",
    "anthropic==0.93.0",  # it calls this with arguments and types that 1.x and 2.x do not have
)
_ALL: Final = (*CHAT, *RESPONSES, *MESSAGES)
#: Its Anthropic model takes the names of Anthropic's models only.
_LLAMA_INDEX_WAYS: Final = (
    *CHAT,
    *RESPONSES,
    Way("messages", "anthropic", "claude-sonnet-4-5"),
)

PROGRAMS: Final[tuple[Program, ...]] = (
    ClaudeCode(),
    Codex(),
    Opencode(),
    QwenCode(),
    Aider(),
    Llm(),
    Library("ai-sdk-7", "npm", _AI_SDK_7, (*_AI_SDK_COMPATIBLE, *_AI_SDK_WAYS), "ai_sdk.mjs"),
    Library("ai-sdk-6", "npm", _AI_SDK_6, (*without_tool_images(_AI_SDK_COMPATIBLE), *_AI_SDK_WAYS), "ai_sdk.mjs"),
    Library("langchain", "pip", _LANGCHAIN, _ALL, "langchain_py.py"),
    Library("pydantic-ai", "pip", ("pydantic-ai-slim[openai,anthropic]==2.68.0",), _ALL, "pydantic_ai_py.py"),
    Library(
        "openai-agents",
        "pip",
        ("openai-agents==0.24.0",),
        (*CHAT, *RESPONSES, *by("WebSocket", RESPONSES)),
        "openai_agents_py.py",
        lacks={"chat: image by a tool": "d"},
    ),
    Library("langchain-js", "npm", _LANGCHAIN_JS, _ALL, "langchain_js.mjs"),
    Library(
        "openai-agents-js",
        "npm",
        _AGENTS_JS,
        (*without_tool_images(CHAT), *RESPONSES, *by("WebSocket", RESPONSES)),
        "openai_agents_js.mjs",
    ),
    Library(
        "open-webui", "pip", ("open-webui==0.12.4",), CHAT, "open_webui_py.py", lacks=_OPEN_WEBUI_LACKS, heavy=True
    ),
    Library(
        "llama-index",
        "pip",
        _LLAMA_INDEX,
        _LLAMA_INDEX_WAYS,
        "llama_index_py.py",
        lacks={"chat: image by a tool": "d"},
    ),
    Library("litellm", "pip", ("litellm==1.110.2",), _ALL, "litellm_py.py"),
    Library(
        "instructor",
        "pip",
        ("instructor==1.17.0", "anthropic==0.93.0"),
        _ALL,
        "instructor_py.py",
        lacks={"parallel tools": "b", "three steps": "b", "image by a tool": "b"},
        value_tool="Value",
    ),
    Library(
        "dspy",
        "pip",
        ("dspy==3.4.1", "litellm==1.110.2"),
        _ALL,
        "dspy_py.py",
        lacks={"image by a tool": "b"},
        final_tool="submit",
    ),
    Library(
        "smolagents",
        "pip",
        ("smolagents[openai,litellm]==1.26.0",),
        (*CHAT, *MESSAGES),
        "smolagents_py.py",
        lacks={"cancel": "b"},
        final_tool="final_answer",
        result_text="appended|looked",
    ),
)
