"""Line numbers of the keys of a TOML document; tomllib returns values without them."""

import tomllib
from collections.abc import Iterator
from typing import Any, Final

Path = tuple[str, ...]
_LONGEST_STATEMENT: Final = 2000  # lines


def lines_of(text: str) -> dict[Path, int]:
    """Return the line, from 1, at which the statement of each key begins. ``text`` is valid TOML."""
    lines, table, found = text.split("\n"), Path(), dict[Path, int]()
    at = 0
    while at < len(lines):
        statement, size = _statement(lines, at)
        if statement:
            inner = list(_paths(tomllib.loads(statement)))
            if statement.lstrip().startswith("["):
                table = max(inner, key=len)
                inner = [table]
            else:
                inner = [(*table, *path) for path in inner]
            for path in inner:
                found.setdefault(path, at + 1)
        at += size
    return found


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """Return the line of a key, else that of the nearest table around it."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _statement(lines: list[str], at: int) -> tuple[str, int]:
    """Return the statement that begins at a line, and its number of lines: arrays and texts may have several."""
    if not lines[at].strip() or lines[at].lstrip().startswith("#"):
        return "", 1
    for size in range(1, min(len(lines) - at, _LONGEST_STATEMENT) + 1):
        statement = "\n".join(lines[at : at + size])
        try:
            tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        return statement, size
    return "", 1


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    if path:
        yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _paths(inner, (*path, name))
    elif isinstance(value, list):
        for item in value:  # an array of tables has one line for each header
            if isinstance(item, dict):
                yield from _paths(item, path)
