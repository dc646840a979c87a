"""Acts of the command line in the audit log."""

import os
import pwd
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import typer

from shared.broker.audit_log import Act, ActRefused, recorded
from shared.broker.client import Client
from shared.printable import printable


@asynccontextmanager
async def act(client: Client, what: str, target: str, **details: str) -> AsyncIterator[None]:
    """Record the body as an act of the user who runs this command. If the body raises :class:`ActRefused`, print its
    message and exit with 1."""
    origin = f"{socket.gethostname()}, pid {os.getpid()}"
    named = {name: text for name, text in details.items() if text}
    try:
        async with recorded(client, Act(what, _user(), origin, target, named)):
            yield
    except ActRefused as error:
        typer.echo(printable(str(error)), err=True)
        raise typer.Exit(1) from None


def _user() -> str:
    """Return the user of the operating system, and the one that became it by sudo."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run under a number without a name
        name = str(uid)
    # Only root's value is sudo's: any other user can set the variable to anything.
    before = os.environ.get("SUDO_USER", "") if uid == 0 else ""
    return f"user:{name}" + (f" (sudo by {before})" if before else "")
