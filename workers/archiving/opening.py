"""Opens the archive for a worker, if there is one."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from shared.broker.client import Client
from shared.broker.scripts import StreamScripts
from shared.settings import Settings

if TYPE_CHECKING:
    from workers.archiving.loop import Archiving

StartArchiving = Callable[[Client, StreamScripts], "Archiving"]


@asynccontextmanager
async def open_for_worker(settings: Settings) -> AsyncIterator[StartArchiving | None]:
    """Provide a function that returns the part of the worker that archives; None without an archive. Raises
    :class:`SettingsError`."""
    if settings.archive_url is None:
        yield None
        return
    from shared.archive.archive import open_archive  # noqa: PLC0415  slow to load, as the next one
    from workers.archiving.loop import Archiving  # noqa: PLC0415

    async with open_archive(settings, migrates=True) as archive:
        yield lambda client, scripts: Archiving(client, scripts, archive)
