"""Fields of a request that no target gets, and the client's own paths in errors."""

import re
from typing import Final

from shared.errors import InvalidRequest
from shared.schemas.original import MOST_PATHS

#: Longest name of the client's in a path. A client may send any name.
_LONGEST_NAME: Final = 64
_UNSAFE: Final = re.compile(r"[^\x21-\x2b\x2d-\x7e]")
#: Paths of canonical fields, with the paths that the client used.
_RENAMED: Final = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "tool_choice.function": "tool_choice",
}
_PATH: Final = re.compile(r"[a-z_]+(?:\.[A-Za-z0-9_$-]+)*")


class Notes:
    """Notes about one request. ``dropped``: paths of the fields that no canonical field holds. ``forced``: path of
    the first field that only a server of Responses can read and that is never left out."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.forced: str | None = None
        self._clients = dict(_RENAMED)

    def drop(self, path: str) -> None:
        """Note that a field is left out."""
        name = _UNSAFE.sub("?", path)[: 2 * _LONGEST_NAME]
        if len(self.dropped) < MOST_PATHS and name not in self.dropped:
            self.dropped.append(name)

    def force(self, path: str) -> None:
        """Note a field that only a server of Responses can read. Without it the answer would be another one."""
        self.forced = self.forced or path

    def place(self, canonical: str, client: str) -> None:
        """Note the client's path of a canonical field."""
        self._clients[canonical] = client

    def in_clients_terms(self, error: InvalidRequest) -> InvalidRequest:
        """Return a validation error with the client's own paths."""
        problems = str(error).split("; ")
        return InvalidRequest("; ".join(map(self._renamed, problems)))

    def _renamed(self, problem: str) -> str:
        found = _PATH.match(problem)
        if found is None:
            return problem
        names = found[0].split(".")
        for length in range(len(names), 0, -1):
            client = self._clients.get(".".join(names[:length]))
            if client is not None:
                return ".".join([client, *names[length:]]) + problem[found.end() :]
        return problem
