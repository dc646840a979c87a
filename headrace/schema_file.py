"""Reads the JSON schema of ``headrace chat --json-schema``."""

import json
import re
from pathlib import Path

LONGEST_NAME = 64


class SchemaFileError(Exception):
    """The file is unusable; the message has the reason."""


def read_schema(path: Path) -> dict[str, object]:
    """Return the ``response_format`` with the schema in this file. The gateway validates the schema."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SchemaFileError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SchemaFileError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(schema, dict):
        raise SchemaFileError(f"{path}: not a JSON object; a JSON schema is one")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem)[:LONGEST_NAME] or "answer"
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
