"""A system with an archive, whose Redis forgets a stream a second after its end."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from shared.broker.keys import state_key
from tests.archive_databases import SqliteFile
from tests.credentials import JWT_SETTINGS, bearer, token
from tests.sse_client import SseConnection, open_sse
from tests.system import System, ask

#: They live longer than a run of all tests.
ALICE, BOB = (bearer(token(name, exp=time.time() + 86_400)) for name in ("alice", "bob"))


class ArchivedSystem(System):
    """The first gateway marks its streams for the archive, the second one for the archive with all events. A third
    one finds another database, which no worker has migrated."""

    def __init__(self, folder: Path, database: SqliteFile, **settings: object) -> None:
        self.database = database
        options: dict[str, Any] = {"retention_s": 1, "retention_min_s": 0, **JWT_SETTINGS, **settings}
        super().__init__(
            folder,
            gateways=3,
            workers=1,
            providers=("openai",),
            credentials=ALICE,
            archive_url=database.url,
            auth="jwt",
            **options,
        )

    async def start(self) -> None:
        await self.database.start()
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self.database.stop()

    async def forgotten(self, stream_id: str) -> None:
        """Wait until Redis has no state of the stream, which it keeps until the archive has it."""

        async def is_gone() -> bool:
            async with self.broker.client() as client:
                return not await client.exists(state_key(stream_id))

        await self.eventually(is_gone, timeout_s=60)

    async def post_as(
        self, headers: Mapping[str, str], model: str, prompt: str = "hi", *, gateway: int = 0, **body: object
    ) -> str:
        url = f"{self.gateways[gateway].url}/chat"
        answer = await self.http.post(url, json=ask(model, prompt, **body), headers=headers)
        assert answer.status_code == 202, answer.text
        stream_id: str = answer.json()["stream_id"]
        return stream_id

    async def archived(
        self, model: str, prompt: str = "hi", *, gateway: int = 0, headers: Mapping[str, str] = ALICE, **body: object
    ) -> str:
        """Run a stream to its end, and wait until only the archive has it."""
        stream_id = await self.post_as(headers, model, prompt, gateway=gateway, **body)
        await self.forgotten(stream_id)
        return stream_id

    async def get(
        self, path: str, *, gateway: int = 0, as_: Mapping[str, str] = ALICE, **query: Any
    ) -> httpx2.Response:
        return await self.http.get(f"{self.gateways[gateway].url}{path}", headers=as_, params=query or None)

    async def events(
        self, stream_id: str, cursor: str | None = None, *, gateway: int = 0, headers: Mapping[str, str] = ALICE
    ) -> SseConnection:
        """Call `GET /chat/stream/{id}`."""
        url = f"{self.gateways[gateway].url}/chat/stream/{stream_id}"
        return await open_sse("GET", url, headers={**headers} | ({} if cursor is None else {"Last-Event-ID": cursor}))

    def _environment(self, name: str) -> dict[str, str]:
        environment = super()._environment(name)
        if name == "gateway.2":
            environment["HEADRACE_ARCHIVE_EVENTS"] = "true"
        if name == "gateway.3":
            environment["HEADRACE_ARCHIVE_URL"] = f"sqlite:///{self.folder}/empty.db"
        return environment


def wants_postgres() -> bool:
    """Return True at night, when the tests run on PostgreSQL too."""
    return bool(os.environ.get("HEADRACE_NIGHTLY"))


__all__ = ["ALICE", "BOB", "ArchivedSystem", "ask", "wants_postgres"]
