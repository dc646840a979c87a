"""The JSON schema of ``headrace chat --json-schema``."""

import json
import re
from pathlib import Path

LONGEST_NAME = 64


class SchemaFileError(Exception):
    """The file is of no use; the message says why."""


def read_schema(path: Path) -> dict[str, object]:
    """The ``response_format`` that asks for an answer by the schema in this file. Whether it is a schema indeed, the
    gateway will say."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SchemaFileError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SchemaFileError(f"{path} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise SchemaFileError(f"{path} is not a JSON schema: it holds no object")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem)[:LONGEST_NAME] or "answer"
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
