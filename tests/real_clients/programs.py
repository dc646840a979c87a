"""All programs, in the order of the table."""

from typing import Final

from tests.real_clients.claude_code import ClaudeCode
from tests.real_clients.codex import Codex
from tests.real_clients.program import Program

PROGRAMS: Final[tuple[Program, ...]] = (ClaudeCode(), Codex())
