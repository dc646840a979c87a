"""A whole Headrace on a cluster."""

from pathlib import Path

from shared.broker.keys import DATA_VERSION_KEY, state_key
from tests.broker_cluster import Cluster
from tests.system import System


class OnCluster(System):
    """Those parts of a system that its broker provides, with the servers of ``cluster`` instead."""

    cluster: Cluster

    async def start_broker(self) -> None:
        await self.cluster.start()

    async def stop_broker(self) -> None:
        await self.cluster.stop()

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


class ClusterSystem(OnCluster):
    """A :class:`System` on a cluster."""

    def __init__(self, folder: Path, cluster: Cluster, **options: object) -> None:
        super().__init__(folder, **options)  # type: ignore[arg-type]
        self.cluster = cluster
        self.redis_url = cluster.url
