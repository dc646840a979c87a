"""The JSON schema of ``headrace.toml``, for editors. docs/headrace.schema.json is its published form."""

import json
from typing import Final

from shared.configuration.document import Document

_ADDRESS: Final = "https://json-schema.org/draft/2020-12/schema"


def schema_text() -> str:
    """Return the schema as text."""
    generated = Document.model_json_schema(mode="validation")
    head = {"$schema": _ADDRESS, "title": "headrace.toml", "description": "See docs/configuration.md."}
    return json.dumps(head | {name: part for name, part in generated.items() if name not in head}, indent=2) + "\n"
