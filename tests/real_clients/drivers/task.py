"""The task of a driver, its tools, and its outcome: the same for all libraries in Python."""

import base64
import json
import sys
from pathlib import Path
from types import SimpleNamespace

TASK = SimpleNamespace(**json.loads(sys.argv[1]))
#: The base URL for the SDKs of OpenAI and for those of Anthropic.
OPENAI_URL, ANTHROPIC_URL = f"{TASK.url}/v1", TASK.url
SCHEMA = {
    "title": "answer",
    "description": "The answer.",
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


def append(line: str) -> str:
    """Append a line to the file."""
    with Path("steps").open("a") as file:
        file.write(line + "\n")
    return "appended"


def read(path: str) -> tuple[bytes, str]:
    """Return an image's bytes, and the same as base64."""
    data = Path(path).read_bytes()
    return data, base64.b64encode(data).decode()


def finish(**outcome: object) -> None:
    print(json.dumps(outcome), flush=True)


def cancelled() -> None:
    """Stay, so that only the cancelled call can have closed the connection."""
    print("cancelled", flush=True)
    sys.stdin.read()
    finish()


def run(**kinds) -> None:
    """Run the function of the task's kind. An exception of the library is the outcome's error."""
    try:
        kinds[TASK.kind]()
    except Exception as error:
        if TASK.kind != "error":
            raise
        finish(error=f"{type(error).__name__}: {error}")
