"""What of an answer is printed as it comes, and where."""

import json
import sys
from typing import Any


class AnswerPrinter:
    """To stdout goes the answer and nothing else: its text, or, ``as_json``, each of its values on a line of its own
    once it is whole, the whole answer last. To stderr go tool calls and what a model says in place of an answer.
    Reasoning is left out."""

    def __init__(self, *, as_json: bool) -> None:
        self.is_whole = not as_json  # a text always is: nobody can tell what it lacks
        self._as_json = as_json
        self._has_shown = False
        self._text = ""  # the last of it, which tells whether the terminal's cursor stands at a line's start
        self._refusal = ""

    def take(self, name: str, data: dict[str, Any]) -> None:
        match name:
            case "token" if not self._as_json:
                self._text = data["token"] or self._text
                self._print(data["token"])
            case "json" if self._as_json:
                self.is_whole = data["path"] == []
                self._print(_compact({"path": data["path"], "value": data["value"]}) + "\n")
            case "tool_call" if data["complete"]:
                self._has_shown = True
                note(f"tool call: {data['name']} {_compact(json.loads(data['arguments']))}")
            case "refusal":
                self._refusal += data["text"]
            case "start" if data["reset"]:
                self._begin_anew()

    def finish(self) -> None:
        """There will be no more. May be said twice."""
        if self._text and not self._text.endswith("\n") and sys.stdout.isatty():
            self._print("\n")
        if self._refusal:
            note(f"refusal: {self._refusal}")
        self._text = self._refusal = ""

    def _begin_anew(self) -> None:
        if self._has_shown:
            note(("\n" if self._text else "") + "[the answer was lost and begins anew]")
        self._has_shown = False
        self._text = self._refusal = ""

    def _print(self, text: str) -> None:
        self._has_shown = True
        sys.stdout.write(text)
        sys.stdout.flush()


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
