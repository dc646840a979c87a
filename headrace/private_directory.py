"""Checks that a directory and its contents are under the control of this user alone."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Rights of the group and of all others.
OF_OTHERS: Final = 0o077
#: The server reads its append-only files from here.
_FOLDERS: Final = ("", "appendonlydir")


def problem_of(directory: Path) -> str | None:
    """Return the reason why others could read or change the contents, with a remedy, or None."""
    found = directory.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"a symbolic link, which others may change; use its target {directory.resolve()}"
    if not stat.S_ISDIR(found.st_mode):
        return "not a directory; choose another with --data-dir"
    if found.st_uid != os.geteuid():
        return f"belongs to another user (uid {found.st_uid}); choose another with --data-dir"
    if found.st_mode & OF_OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        return f"open to other users (mode {mode:03o}); run chmod 700 {directory}, or choose another with --data-dir"
    return next(_problems_around(directory.resolve()), None)


def _problems_around(directory: Path) -> Iterator[str]:
    for parent in directory.parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield f"every user can replace it, because {parent} is writable by all; choose another with --data-dir"
    for folder in _FOLDERS:
        if (directory / folder).is_dir():
            yield from _problems_in(directory / folder)


def _problems_in(folder: Path) -> Iterator[str]:
    """Yield entries from a time when others could write here."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield f"{entry.name} is a symbolic link; delete it"
            elif (owner := entry.stat(follow_symlinks=False).st_uid) != os.geteuid():
                yield f"{entry.name} belongs to another user (uid {owner}); delete it"
