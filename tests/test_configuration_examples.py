"""The examples of headrace.toml are valid, and so is the published schema for editors."""

import json
import tomllib
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import pytest

from shared.configuration.configuration import load_configuration
from shared.configuration.schema import schema_text
from shared.settings import Settings
from tests.cli import ROOT, finish, headrace

EXAMPLES = sorted((ROOT / "examples/configuration").glob("*.toml"))
SCHEMA = ROOT / "docs/headrace.schema.json"
#: Base addresses, as the services document them.
ADDRESSES = {
    "azure-openai": "https://YOUR-RESOURCE.openai.azure.com/openai/v1",
    "azure-openai-entra": "https://YOUR-RESOURCE.openai.azure.com/openai/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "groq": "https://api.groq.com/openai/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "vllm": "http://gpu-1.internal:8000/v1",
    "lm-studio": "http://127.0.0.1:1234/v1",
}


def content_of(path: Path) -> Any:
    """Return the file as JSON: editors see a TOML date as text."""
    return json.loads(json.dumps(tomllib.loads(path.read_text()), default=date.isoformat))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_is_valid_for_headrace_and_for_editors(path: Path) -> None:
    assert path.read_text().startswith("#:schema ../../docs/headrace.schema.json\n")
    configuration = load_configuration(Settings(config=path))
    assert configuration.document.providers
    assert jsonschema_rs.validator_for(json.loads(SCHEMA.read_text())).is_valid(content_of(path))


def test_each_service_has_an_example() -> None:
    assert {path.stem for path in EXAMPLES} == {*ADDRESSES, "bedrock-and-vertex", "several"}
    for path in EXAMPLES:
        if path.stem in ADDRESSES:
            (first, *_) = load_configuration(Settings(config=path)).document.providers.values()
            assert first.base_url == ADDRESSES[path.stem]
            assert urlsplit(str(first.base_url)).path.rstrip("/")  # a bare host is the most frequent mistake


def test_the_published_schema_is_current() -> None:
    assert SCHEMA.read_text() == schema_text(), "run: headrace schema > docs/headrace.schema.json"


async def test_the_schema_is_printed() -> None:
    ended = await finish(await headrace("schema"), timeout_s=60)
    assert (ended.code, ended.out) == (0, SCHEMA.read_text())


@pytest.mark.parametrize(
    "text",
    [
        "[providers.a]\nkind = 'openia'",
        "[providers.a]\nkind = 'openai'\nheadrs = {}",
        "[providers.a]\nkind = 'openai'\napi_keys = ['sk-123']",
        "[models.a]\ntargets = []",
        "[models.a]\ntargets = ['model-without-provider']",
        "[models.a]\ntargets = [{ target = 'a/b', weigth = 1 }]",
        "[prices.a]\ncurrency = 'usd'\nas_of = '2026-11-01'\ninput = 1\noutput = 1",
        "providrs = {}",
    ],
)
def test_editors_mark_mistakes(text: str) -> None:
    validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    assert not validator.is_valid(tomllib.loads(text))
