"""Constants of the capacity model, from ``capacity.json``, which names the source of each."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("capacity.json")


@dataclass(frozen=True, slots=True)
class Roles:
    """The same figure for each kind of process."""

    gateway: float
    worker: float
    redis: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Resources of one process, or of one master on a machine of its own."""

    utilisation: float
    file_descriptors: int
    max_clients: int
    connections_per_process: int
    gateway_gib: float
    worker_gib: float
    redis_gib: float
    network_gbit_s: float


@dataclass(frozen=True, slots=True)
class AfterTheEnd:
    """Bytes that an ended answer takes in Redis: itself, each of its tokens, and each in the tail for a minute."""

    answer: float
    token: float
    tail_token: float


@dataclass(frozen=True, slots=True)
class Desk:
    """Costs of the desk, which is one slot: µs a request, µs to hold one stream, holds a second of each stream, and
    bytes for each kept answer."""

    us_per_request: float
    us_per_hold: float
    holds_per_s: float
    bytes_per_answer: float


@dataclass(frozen=True, slots=True)
class Constants:
    """Constants of ``capacity.json``, which names the source of each."""

    cpu_us_per_token: Roles
    cpu_us_per_request: Roles
    cpu_us_per_waiting_stream_s: Roles
    cpu_us_per_exchange: Roles
    gathered_s: Roles  # time over which tokens go into one exchange
    kib_per_stream: Roles
    desk: Desk
    redis_bytes_per_token: float
    after_the_end: AfterTheEnd
    to_client_bytes: float
    redis_network_bytes: float  # the busier direction
    buckets: int
    limits: Limits


def load(path: Path = FILE) -> Constants:
    values: dict[str, dict[str, Any]] = json.loads(path.read_text(), object_hook=_without_sources)
    bytes_per_token = values["network_bytes_per_token"]
    return Constants(
        cpu_us_per_token=Roles(**values["cpu_us_per_token"]),
        cpu_us_per_request=Roles(**values["cpu_us_per_request"]),
        cpu_us_per_waiting_stream_s=Roles(**values["cpu_us_per_waiting_stream_s"]),
        cpu_us_per_exchange=Roles(**values["cpu_us_per_exchange"]),
        gathered_s=Roles(**values["gathered_s"]),
        kib_per_stream=Roles(**values["kib_per_stream"]),
        desk=Desk(**values["desk"]),
        redis_bytes_per_token=values["redis_bytes_per_token"]["value"],
        after_the_end=AfterTheEnd(**values["redis_bytes_after_the_end"]),
        to_client_bytes=bytes_per_token["to_client"],
        redis_network_bytes=max(bytes_per_token["into_redis"], bytes_per_token["out_of_redis"]),
        buckets=values["buckets"]["value"],
        limits=Limits(**values["limits"]),
    )


def _without_sources(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in {"from", "comment"}}
