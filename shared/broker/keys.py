"""Every Redis key, with its type, its writers and its lifetime.

key                          type    written by        lives
---------------------------  ------  ----------------  -----------------------------------------------
hr:{bb}:<id>:state           hash    all scripts       with the stream: 24 h from the last renewal or the end
hr:{bb}:<id>:log             list    pack, finish      with the stream; its first events, from the end on all,
                                                       in compressed chunks
hr:{bb}:<id>:tail            stream  append, finish    with the stream, at most a minute after its end; the
                                                       events that follow those in chunks
hr:{bb}:<id>:request         hash    store             with the stream, at most until its end; pieces of a large
                                                       request
hr:{bb}:<id>:readers         zset    acknowledge       with the stream; gateway → end of its reader lease
hr:{bb}:idem:<digest>        string  create, restore   with the stream; "<id> <body hash>"
hr:{bb}:<id>:tombstone       string  create … drop     longer than the stream; "live|deleted|dropped <principal>"
hr:{bb}:index                zset    create … finish   as long as its longest stream; id → next look, ms
hr:{bb}:pulse                hash    sweep             a day; when this Redis was last seen well
hr:data_version              string  sweep, start      no expiry; version of the data, see data_version.py
hr:catalog                   hash    workers           a day from the last publication by any worker
hr:offered                   zset    workers           as the catalog; provider → when it was first offered, s
hr:sweep                     string  one process       1.5 s; the process that sweeps
hr:owned:<account>           zset    create, delete    at least with its last stream; ids by creation
hr:recent:<account>:<hash>   string  gateways          two minutes; the stream that this request created
hr:chat:<account>:<digest>   hash    gateways          a day; the latest stream of an AI SDK's chat
hr:apikey:<id>               string  the CLI           as long as the key; JSON, with the hash of its secret
hr:revoked:<id>              string  the CLI           90 days, as long as any ticket made with the key
hr:revoked_links             zset    revoke_links      90 days from the last change; account → its last revocation
hr:configurations            zset    each process      a day from the last publication; hash → when it was read, s
hr:configuration:<hash>      string  each process      a day from its last publication; JSON, limits by provider
hr:breaker:<target>          string  workers           30 s; exists while the breaker is open
hr:breaker:<target>:failures  counter workers          a minute longer; consecutive failures
hr:breakers                  zset    workers           as the last count; target → its last failure, ms
hr:queue                     zset    create, enqueue   with its last stream; id → turn, the lowest is taken first
arq:job:<id>                 string  create, enqueue   until the stream's end; arq's, as arq:* and hr:queue:* are
hr:turns                     hash    create            with the queue; account → its last round (docs/adr/0010)
hr:waiting                   zset    create … restore  with the queue; id → creation, of streams not taken yet
hr:taken                     counter claim             a day; number of streams taken
hr:account:<account>:used    hash    create, finish    two days; r<second>, t<second>, d<day> → count
hr:account:<account>:streams zset    create … finish   with its longest stream; id → when it is forgotten
hr:account:<account>:stored  hash    create … finish   with its longest stream; id → bytes stored, and their `total`
hr:account:<account>:kept    zset    create … finish   with its longest stream; id → when its bytes are given back
hr:account:<account>:sources zset    create … finish   with its longest stream; "<source> <id of a turn>"
hr:account:<account>:waiting zset    create … delete   with the queue; id → creation, of its streams not taken yet
hr:account:<account>:removed zset    delete, drop      with its last tombstone; "<id> <idempotency digest>" → removal
hr:above_limit               zset    claim, renew      a minute; account → its limit of stored bytes
hr:answers                   zset    finish            with its last stream; id → end, of streams that may be dropped
hr:lane:<lane>:running       zset    claim … finish    a day; id → end of its lease. A lane is a provider with
                                                       a limit, or a target of an alias with least_busy
hr:lane:<provider>:parked    zset    claim, unpark     with its last stream; id → turn
hr:lane:<provider>:used      hash    claim … finish    two days; r<second>, t<second> → count
hr:paused:<hash>:<provider>  zset    workers           with its longest pause; "<key id>[ <model>]" → its end, ms
hr:endings:<minute>          hash    finish            an hour; status, tokens or failed:<reason> → count
hr:ended, hr:failed          zset    finish            with their last stream; id → end, of the last 100 and 50
hr:processes                 zset    each process      a minute; process → its last report, ms
hr:process:<process>         string  that process      15 s; JSON, its report
hr:reload                    string  the CLI           a minute; id of the latest request to read files again
hr:gateway:<gateway>         pub/sub append, finish    -, new events of streams (growth.py)
hr:worker:<worker>           pub/sub cancel, room      -

``bb`` is the stream's bucket, its hash tag on Redis Cluster. Only API keys and the data version
may lack an expiry; a test fixture checks it.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from shared.protocol.ids import BUCKETS, bucket_of
from shared.rate_limits import account_of

#: Version of the data described here. Raise it with a change that an older process would misread.
DATA_VERSION: Final = 6
DATA_VERSION_KEY: Final = "hr:data_version"
QUEUE: Final = "hr:queue"
TURNS: Final = "hr:turns"
WAITING: Final = "hr:waiting"
TAKEN: Final = "hr:taken"
CATALOG: Final = "hr:catalog"
OFFERED: Final = "hr:offered"
SWEEP: Final = "hr:sweep"
ENDED: Final = "hr:ended"
FAILED: Final = "hr:failed"
ANSWERS: Final = "hr:answers"
ABOVE_LIMIT: Final = "hr:above_limit"
PROCESSES: Final = "hr:processes"
RELOAD: Final = "hr:reload"
REVOKED_LINKS: Final = "hr:revoked_links"
BREAKERS: Final = "hr:breakers"
CONFIGURATIONS: Final = "hr:configurations"


def stream_keys(stream_id: str, idempotency: str | None = None) -> list[str]:
    """Return the keys of one stream in the order of ``scripts.STREAM_KEYS``. The last, the idempotency entry, exists
    only if the stream was requested with a key; ``idempotency`` is its digest."""
    prefix = _bucket_prefix(bucket_of(stream_id))
    stream = prefix + stream_id
    keys = [
        f"{stream}:state",
        f"{stream}:log",
        f"{stream}:tail",
        f"{stream}:readers",
        f"{prefix}index",
        f"{stream}:tombstone",
        f"{prefix}pulse",
    ]
    if idempotency:
        keys.append(idempotency_entry_key(idempotency))
    return keys


def stream_keys_and(stream_id: str, idempotency: str | None, more: Sequence[str]) -> list[str]:
    """Return the keys of one stream and then ``more``, from the ninth on. If the stream has no idempotency entry, the
    eighth is its state again."""
    keys = stream_keys(stream_id, idempotency)
    return [*keys, *([] if idempotency else keys[:1]), *more]


def idempotency_entry_key(digest: str) -> str:
    """Return the key in the bucket of its stream, which takes its bucket from the digest."""
    return f"{_bucket_prefix(digest[:2])}idem:{digest}"


def state_key(stream_id: str) -> str:
    return stream_keys(stream_id)[0]


def request_key(stream_id: str) -> str:
    """Return the key of the pieces of a large request. The scripts derive the same name from the state's."""
    return f"{_bucket_prefix(bucket_of(stream_id))}{stream_id}:request"


def index_key(stream_id: str) -> str:
    """Return the index of the stream's bucket."""
    return stream_keys(stream_id)[4]


def tail_key(stream_id: str) -> str:
    return f"{_bucket_prefix(bucket_of(stream_id))}{stream_id}:tail"


def sweep_keys() -> list[tuple[str, str]]:
    """Return index and pulse of every bucket."""
    prefixes = [_bucket_prefix(f"{bucket:02x}") for bucket in range(BUCKETS)]
    return [(f"{prefix}index", f"{prefix}pulse") for prefix in prefixes]


def gateway_channel(gateway_id: str, route: str = "") -> str:
    """Return the channel of a gateway and a route. The scripts derive the same name from the stream's readers."""
    return f"hr:gateway:{gateway_id}{route}"


def worker_channel(worker_id: str) -> str:
    """Return the channel of a worker. The scripts derive the same name from the holder, ``<worker>.<random>``."""
    return f"hr:worker:{worker_id}"


def principal_streams_key(principal: str) -> str:
    return f"hr:owned:{account_of(principal)}"


def retry_key(account: str, body_hash: str) -> str:
    return f"hr:recent:{account}:{body_hash[:32]}"


def stored_key(account: str) -> str:
    """Return the key of the bytes that an account's streams take, and their total."""
    return f"hr:account:{account}:stored"


def kept_key(account: str) -> str:
    """Return the key of an account's streams, those that expire first in front."""
    return f"hr:account:{account}:kept"


def chat_key(account: str, chat_id: str) -> str:
    """Return the key of a chat. The client chooses the chat's id freely, so it is hashed."""
    return f"hr:chat:{account}:{hashlib.sha256(chat_id.encode()).hexdigest()[:32]}"


def job_key(stream_id: str) -> str:
    """Return the key under which arq looks for a job."""
    return f"arq:job:{stream_id}"


def provider_limit_keys(provider: str) -> list[str]:
    """Return the keys of running and of parked streams, and of the counts of a minute. The scripts derive the same
    names from the state."""
    return [f"hr:lane:{provider}:{kind}" for kind in ("running", "parked", "used")]


def api_key_key(key_id: str) -> str:
    return f"hr:apikey:{key_id}"


def revoked_key(key_id: str) -> str:
    return f"hr:revoked:{key_id}"


def endings_key(minute: int) -> str:
    """Return the key for a minute since 1970. The script derives the same name from Redis' clock."""
    return f"hr:endings:{minute}"


def process_key(process_id: str) -> str:
    return f"hr:process:{process_id}"


def configuration_key(configuration_hash: str) -> str:
    return f"hr:configuration:{configuration_hash}"


def paused_key(configuration_hash: str, provider: str) -> str:
    return f"hr:paused:{configuration_hash}:{provider}"


def breaker_key(target: str) -> str:
    return f"hr:breaker:{target}"


def breaker_failures_key(target: str) -> str:
    return f"{breaker_key(target)}:failures"


def _bucket_prefix(bucket: str) -> str:
    return f"hr:{{{bucket}}}:"
