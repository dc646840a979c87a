"""Output of the supervisor: its children's lines, each under a name, and its own notes."""

import os
from typing import TextIO

from shared.printable import printable

#: Cyan, green, magenta, yellow, blue, and the bright ones of these; never red, which means an error.
COLOURS = (36, 32, 35, 33, 34, 96, 92, 95, 93, 94)
OWN_NAME = "headrace"
MIN_WIDTH = len("gateway.1")


class Console:
    """Writer of whole lines. If its reader exits (``headrace up | head``), it falls silent and stops nothing."""

    def __init__(self, out: TextIO) -> None:
        self._out: TextIO | None = out
        self._is_terminal = out.isatty()
        self._coloured = self._is_terminal and "NO_COLOR" not in os.environ
        self._names: list[str] = []
        self._width = MIN_WIDTH

    def add_name(self, name: str) -> None:
        """Assign a colour to the name and widen the column for it."""
        self._names.append(name)
        self._width = max(self._width, len(name))

    def line(self, name: str, text: str) -> None:
        self._write(f"{self._prefix(name)}{self._safe(text)}\n")

    def note(self, text: str) -> None:
        self.line(OWN_NAME, text)

    def block(self, text: str) -> None:
        """Write text without names before its lines, so that it can be copied."""
        self._write(f"\n{text}\n\n")

    def _safe(self, text: str) -> str:
        """Return a line without control characters if it goes to a terminal."""
        return printable(text.removesuffix("\r")) if self._is_terminal else text

    def _prefix(self, name: str) -> str:
        padded = f"{name:<{self._width}} | "
        if not self._coloured:
            return padded
        colour = COLOURS[self._names.index(name) % len(COLOURS)] if name in self._names else 1
        return f"\x1b[{colour}m{padded}\x1b[0m"

    def _write(self, text: str) -> None:
        if self._out is None:
            return
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            self._out = None
