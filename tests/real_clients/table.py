"""The table of programs in ``docs/compatibility.md``. Every ✓ of it was run at the version that it names."""

import re
from collections.abc import Collection, Sequence
from typing import Final

from tests.conformance.table import DOCUMENT
from tests.real_clients.matrix import COLUMNS, Matrix, lacks
from tests.real_clients.program import Program

__all__ = ["DOCUMENT", "REASONS", "written"]

#: By letter, for the cells without a result.
REASONS: Final = {
    "a": "a library: its caller decides about a retry",
    "b": "the program has no such function",
    "c": "the program's interface for scripts does not show it",
    "i": "not the pairs over Chat Completions (AI SDK 7: only `@ai-sdk/openai`): a tool's image is sent as text, "
    "or left out",
    "d": "the library leaves an image of a tool's result out of Chat Completions, by design",
    "z": "not run yet at this version",
}
_NOT_RUN: Final = "z"
_LETTER: Final = re.compile(r"\b[a-z]\b")
_BEGIN: Final = "<!-- written by make real-clients -->\n"
_END: Final = "<!-- until here, by make real-clients -->\n"


def written(document: str, programs: Sequence[Program], ran: Collection[Program], matrix: Matrix) -> str:
    """Return ``document`` with the lines of the programs that ``ran``. The other lines stay, if they are of the same
    version; else their cells are not run."""
    before, _, rest = document.partition(_BEGIN)
    old, _, after = rest.partition(_END)
    lines = [f"| program | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for program in programs:
        kept = next((line for line in old.splitlines() if line.startswith(f"| {_title(program)} |")), None)
        lines.append(_line(program, matrix) if program in ran else kept or _line(program, Matrix()))
    cells = [cell for line in lines[2:] for cell in line.split("|")[2:]]
    letters = {letter for cell in cells for letter in _LETTER.findall(cell)}
    reasons = [f"- {letter} {REASONS[letter]}" for letter in sorted(letters)]
    return "".join((before, _BEGIN, "\n".join([*lines, "", *reasons, ""]), _END, after))


def _title(program: Program) -> str:
    packages = ", ".join(f"`{package.replace('==', ' ').strip()}`" for package in program.packages[:1])
    return f"{packages}: {', '.join(str(way) for way in program.ways)}"


def _line(program: Program, matrix: Matrix) -> str:
    return f"| {_title(program)} | " + " | ".join(_cell(program, matrix, column) for column in COLUMNS) + " |"


def _cell(program: Program, matrix: Matrix, column: str) -> str:
    """Return the result of the ways that have this column, and the letter of each API that lacks it."""
    missing = {way: lacks(program, way, column) for way in program.ways}
    names = [(program.name, str(way), column) for way, letter in missing.items() if letter is None]
    if not names:
        return ", ".join(sorted({letter for letter in missing.values() if letter}))
    letters = {f"{way.api}: {letter}": None for way, letter in missing.items() if letter}
    return ", ".join([_result(names, matrix), *letters])


def _result(names: Sequence[tuple[str, str, str]], matrix: Matrix) -> str:
    if any(name in matrix.failed for name in names):
        return "✗"
    return "✓" if all(name in matrix.passed for name in names) else _NOT_RUN
