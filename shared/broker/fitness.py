"""Checks that Redis can be used: it answers, takes writes, is new enough, evicts nothing, and grants all rights."""

import time
from collections.abc import Sequence
from typing import Any, Final

from shared.broker.client import REDIS_ERRORS, Client, parse_info, refused
from shared.broker.data_version import describe_refusal
from shared.broker.pipeline_connection import Command
from shared.broker.rights import check_rights
from shared.broker.tls_diagnosis import diagnose
from shared.broker.trouble import Reason, classify, cluster_refused
from shared.broker.trouble_log import TROUBLE
from shared.errors import BrokerFull, BrokerMisconfigured, BrokerUnavailable, BrokerUnfit

_OLDEST: Final = 7
#: Writes nothing, and is refused whenever Redis refuses writes: it is full, a replica, or without its disk.
WRITE_PROBE: Final[Command] = ("SETRANGE", "hr:probe", 0, b"")


#: Time between two looks at version and policy, which only a change of the server or its configuration changes.
_LOOK_AT_SERVER_S: Final = 5.0


class Fitness:
    """The check for a client of one server. The rights are tested at the start and after each trouble, version and
    policy also every few seconds. ``warnings``: none, as of a cluster."""

    warnings: Sequence[str] = ()

    def __init__(self, client: Client) -> None:
        self._client = client
        self._has_rights = False
        self._server_seen_at = -_LOOK_AT_SERVER_S  # when version and policy were last found right

    async def check(self) -> None:
        """Raise :class:`BrokerUnavailable` if Redis cannot be used; :class:`BrokerMisconfigured` if waiting does not
        help; :class:`BrokerFull` if it is usable but full."""
        current = TROUBLE.current
        if current is not None and current.reason == Reason.NO_PERMISSION:  # a command met it since the last test
            self._has_rights = False
        try:
            await self._check()
        except BrokerFull:
            raise
        except BrokerUnavailable as error:
            self._has_rights = False
            self._server_seen_at = -_LOOK_AT_SERVER_S
            raise await diagnose(self._client, error) from error

    async def _check(self) -> None:
        now = time.monotonic()
        looks: list[Command] = []
        if now - self._server_seen_at >= _LOOK_AT_SERVER_S:
            looks = [("INFO", "server"), ("INFO", "memory")]
        probe, *infos = await self._exchange([WRITE_PROBE, *looks])
        if infos:
            server, memory = [await self._info(info) for info in infos]
            info = {**server, **memory}
            if is_in_cluster(info):
                raise cluster_refused(self._client.target)
            check_server(info, self._client.target)
            self._server_seen_at = now
        if not self._has_rights:
            await check_rights(self._client.servers)
            self._has_rights = True
        await adopt_version(self._client)
        if isinstance(probe, Exception):
            raise refused(probe, self._client.target, str(WRITE_PROBE[0])) from None

    async def _exchange(self, commands: list[Command]) -> list[Any]:
        try:
            return await self._client.servers.exchange(commands)
        except REDIS_ERRORS as error:
            raise classify(error, self._client.target) from error

    async def _info(self, reply: bytes | Exception) -> dict[str, str]:
        if not isinstance(reply, Exception):
            return parse_info(reply)
        error = refused(reply, self._client.target, "INFO")
        if isinstance(error, BrokerUnfit):
            await check_rights(self._client.servers)  # names all rights that are missing, not only this one
        raise error from None


async def adopt_version(client: Client) -> None:
    """Adopt the version of the data, unless the client has or needs none. Raises :class:`BrokerUnavailable`;
    :class:`BrokerMisconfigured` if there is data of another version."""
    version = client.data_version
    if version is None or version.is_adopted:
        return
    try:
        await version.adopt()
    except REDIS_ERRORS as error:
        raise classify(error, client.target) from error
    if version.is_refused:
        raise BrokerMisconfigured(detail=describe_refusal(version.found), reason=Reason.DATA_VERSION)
    if not version.is_adopted:
        detail = f"Redis at {client.target}: it has data of another version"
        raise BrokerUnfit(detail=detail, reason=Reason.DATA_VERSION)


def is_in_cluster(info: dict[str, str]) -> bool:
    """Return True for ``INFO server`` of a node of a cluster."""
    return "cluster" in {info.get("redis_mode"), info.get("server_mode")}


def check_server(info: dict[str, str], target: str) -> None:
    """Raise :class:`BrokerMisconfigured` if a server with this ``INFO`` is too old, or would lose data."""
    version = info.get("valkey_version") or info.get("redis_version", "0")
    if int(version.split(".", maxsplit=1)[0]) < _OLDEST:
        detail = f"Redis at {target}: version {version} is too old; use Redis 7 or later, or Valkey"
        raise BrokerMisconfigured(detail=detail, reason=Reason.TOO_OLD)
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        detail = f"Redis at {target}: maxmemory-policy {policy} would silently drop answers; set it to noeviction"
        raise BrokerMisconfigured(detail=detail, reason=Reason.EVICTION)
