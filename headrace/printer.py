"""Prints an answer as it arrives.

A terminal gets no control characters of a model or a server (:mod:`shared.printable`). A pipe or a file gets the
answer unchanged. Notes are always filtered.
"""

import json
import re
import sys
from typing import Final

from headrace_client import Event, Json, Refusal, Reset, Token, ToolCall, Waiting
from shared.printable import REPLACEMENT, one_line, printable

_NO_WORKER: Final = "no worker is running"
_REASONS: Final = {
    "model": "waiting for the model",
    "worker_lost": "its worker was lost; another one takes the answer over",
}


class AnswerPrinter:
    """Printer of one answer.

    stdout gets only the answer: its text, or with ``as_json`` each value on its own line once it is complete, the
    whole answer last. stderr gets tool calls and refusals. Reasoning is not printed.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.is_complete = not as_json  # text has no mark of completeness
        self._as_json = as_json
        self._has_shown = False
        self._text = ""  # the last piece, to see if the cursor is at the start of a line
        self._refusal = ""
        self._reason = ""  # of the silence before
        self._is_terminal = sys.stdout.isatty()

    def take(self, event: Event) -> None:
        if event.event_id is not None:
            self._reason = ""
        match event:
            case Token(token=text) if not self._as_json:
                self._text = text or self._text
                self._print(text)
            case Json(path=path, value=value) if self._as_json:
                self.is_complete = path == []
                self._print(_compact({"path": path, "value": value}) + "\n")
            case ToolCall(complete=True, name=name, arguments=arguments):
                self._has_shown = True
                note(f"tool call: {one_line(name or '')} {_compact(json.loads(arguments))}")
            case Waiting():
                self._wait(event)
            case Refusal(text=text):
                self._refusal += text
            case Reset():
                self._restart()

    def finish(self) -> None:
        """End the line, and print a refusal. A second call does nothing."""
        if self._text and not self._text.endswith("\n") and self._is_terminal:
            self._print("\n")
        if self._refusal:
            note(f"refusal: {self._refusal}")
        self._text = self._refusal = ""

    def _wait(self, waiting: Waiting) -> None:
        """Tell a person at a terminal why nothing comes, once for each reason."""
        is_unserved = waiting.state == "queued" and waiting.workers == 0
        reason = _NO_WORKER if is_unserved else _REASONS.get(waiting.state, "")
        if reason and reason != self._reason and sys.stderr.isatty():
            note(("\n" if self._text else "") + f"[{reason}]")
        self._reason = reason

    def _restart(self) -> None:
        if self._has_shown:
            note(("\n" if self._text else "") + "[the answer was lost; it restarts from the beginning]")
        self._has_shown = False
        self._text = self._refusal = ""

    def _print(self, text: str) -> None:
        self._has_shown = True
        sys.stdout.write(printable(text) if self._is_terminal else _encodable(text))
        sys.stdout.flush()


def note(text: str) -> None:
    """Print to stderr, without control characters."""
    print(printable(text), file=sys.stderr, flush=True)


def _encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which have no bytes in UTF-8."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", REPLACEMENT, text)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
