"""A whole Headrace on a cluster, whose servers a test may share with others."""

from pathlib import Path

from shared.broker.keys import DATA_VERSION_KEY, state_key
from tests.broker_cluster import Cluster
from tests.system import System


class ClusterSystem(System):
    """As :class:`System`, with the servers of ``cluster``, which the caller starts and stops."""

    def __init__(self, folder: Path, cluster: Cluster, **options: object) -> None:
        super().__init__(folder, **options)  # type: ignore[arg-type]
        self.cluster = cluster
        self.redis_url = cluster.url

    async def start(self) -> None:
        await self.start_processes()

    async def keys_without_expiry(self) -> list[str]:
        found = set[str]()
        for master in await self.cluster.masters():
            for key in await master.run_command("KEYS", "*"):
                if await master.run_command("TTL", key) == -1:
                    found.add(key.decode())
        return sorted(key for key in found - {DATA_VERSION_KEY} if not key.startswith("hr:apikey:"))

    async def field(self, stream_id: str, name: str) -> str | None:
        key = state_key(stream_id)
        value: bytes | None = await (await self.cluster.owner(key)).run_command("HGET", key, name)
        return value.decode() if value is not None else None
