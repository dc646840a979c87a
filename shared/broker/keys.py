"""Every Redis key, with its type, its writers and its lifetime.

key                          type    written by        lives
---------------------------  ------  ----------------  -----------------------------------------------
hr:{bbx}:<id>:state          hash    all scripts       with the stream: 24 h from the last renewal or the end
hr:{bbx}:<id>:log            list    pack, finish      with the stream; its first events, from the end on all,
                                                       in compressed chunks
hr:{bbx}:<id>:tail           stream  append, finish    with the stream, at most a minute after its end; the
                                                       events that follow those in chunks
hr:{bbx}:<id>:request        hash    store             with the stream, at most until its end or until it is archived;
                                                       pieces of a large request
hr:{bbx}:<id>:readers        zset    acknowledge       with the stream; gateway → end of its reader lease
hr:{bbx}:idem:<digest>       string  begin, restore    with the stream; "<id> <body hash>"
hr:{bbx}:<id>:tombstone      string  begin … drop      longer than the stream; "live|deleted|dropped <principal>"
hr:{bbx}:index               zset    begin … paid      as long as its longest stream; id → next look, ms
hr:{bbx}:pulse               hash    sweep             a day; when this Redis was last seen well
hr:{bbx}:answers             zset    finish            with its last stream; id → end, of streams that may be dropped
hr:{bbx}:dead_letters        zset    deliver           as retained; id → when the delivery of its webhook was given up
hr:data_version              string  sweep, start      no expiry; version of the data, see data_version.py
hr:{desk}:catalog            hash    workers           a day from the last publication by any worker
hr:{desk}:offered            zset    workers           as the catalog; provider → when it was first offered, s
hr:{desk}:sweep              string  one process       1.5 s; the process that sweeps
hr:owned:<account>           zset    gateways, delete  at least with its last stream; ids by creation
hr:recent:<account>:<hash>   string  gateways          two minutes; the stream that this request created
hr:chat:{<account>:<digest>}:latest  hash  join_chat   with the tombstone of its latest stream; that stream's id
hr:chat:{<account>:<digest>}:streams  zset  join_chat  the same; id → when it joined the chat, ms
hr:chats:<account>           zset    gateways          the same; digest of a chat's id → its last change, ms
hr:apikey:<id>               string  the CLI           as long as the key; JSON, with the hash of its secret
hr:revoked:<id>              string  the CLI           90 days, as long as any ticket made with the key
hr:revoked_links             zset    revoke_links      90 days from the last change; account → its last revocation
hr:{desk}:configurations     zset    each process      a day from the last publication; hash → when it was read, s
hr:{desk}:configuration:<h>  string  each process      a day from its last publication; JSON, limits by provider
hr:{desk}:breaker:<target>   string  workers           30 s; exists while the breaker is open
hr:{desk}:breaker:<target>:failures  counter  workers  a minute longer; consecutive failures
hr:{desk}:breakers           zset    workers           as the last count; target → its last failure, ms
hr:{desk}:of:<id>            hash    admit … settle    as long as its account may count the stream; the desk's part of
                                                       it, see _desk.lua
hr:{desk}:dropping           zset    may_drop          a minute; id → end of the time in which it is no source
hr:{desk}:queue              zset    admit … unpark    with its last stream; arq's id of a job → turn, the lowest is
                                                       taken first
arq:job:{desk}<id>           string  admit, requeue    until the stream's end; arq's
hr:{desk}:queue:health:<w>   string  arq               a minute; arq's
hr:{desk}:turns              hash    admit             with the queue; account → its last round (docs/adr/0010)
hr:{desk}:batch_turns        hash    admit             the same, for batch streams (docs/adr/0034)
hr:{desk}:waiting            zset    admit, take …     with the queue; id → admission, of streams not taken yet
hr:{desk}:waiting_accounts   zset    admit, take …     the same; "<account> <id>"
hr:{desk}:taken              counter take              a day; number of streams taken
hr:{desk}:used:<account>     hash    admit, settle     two days; r<second>, t<second>, d<day> → count
hr:{desk}:budget:<account>   hash    admit, settle     62 days; see _budgets.lua; of an API key's id, or `server`
hr:{desk}:streams:<account>  zset    admit … settle    with its longest stream; id → when it is forgotten
hr:{desk}:stored:<account>   hash    admit … settle    with its longest stream; id → bytes stored, and their `total`
hr:{desk}:kept:<account>     zset    admit … settle    with its longest stream; id → when its bytes are given back
hr:{desk}:sources:<account>  zset    admit … settle    with its longest stream; "<source> <id of a turn>"
hr:{desk}:removed:<account>  zset    settle            with its last tombstone; "<id> <idempotency digest>" → removal
hr:{desk}:above_limit        zset    hold              a minute; account → its limit of stored bytes
hr:{desk}:lane:<lane>:running  zset  take … settle     a day; id → end of its lease. A lane is a provider with
                                                       a limit, or a target of an alias with least_busy
hr:{desk}:lane:<provider>:parked  zset  take, unpark   with its last stream; id → turn
hr:{desk}:lane:<provider>:tokens  hash  take, unpark   as those parked; id → expected tokens
hr:{desk}:lane:<provider>:used  hash  take … settle    two days; r<second>, t<second> → count
hr:{desk}:paused:<h>:<provider>  zset  workers         with its longest pause; "<key id>[ <model>]" → its end, ms
hr:{desk}:endings:<minute>   hash    settle            an hour; status, tokens or failed:<reason> → count
hr:{desk}:usage:<day>[:<account>]  hash  settle        HEADRACE_USAGE_DAYS; sums of the ledger, see usage.py
hr:{desk}:ended, failed      zset    settle            with their last stream; id → end, of the last 100 and 50
hr:{desk}:deliveries         zset    settlement, take_due  two days; id → when its webhook is due, ms
hr:{desk}:unarchived         zset    settlement, take_due  two days; id → when it is due for the archive, ms
hr:{desk}:processes          zset    each process      a minute; process → its last report, ms
hr:{desk}:process:<process>  string  that process      15 s; JSON, its report
hr:{desk}:reload             string  the CLI           a minute; id of the latest request to read files again
hr:{desk}:audit              stream  record_act        400 days from its last entry; administrative acts, some
                                                       20,000 entries, see audit_log.py
hr:gateway:<gateway>         pub/sub append, finish    -, new events of streams (growth.py); on a cluster with the
                                                       suffix `:{bbx}`
hr:worker:<worker>           pub/sub cancel, room      -, the same

A tag in braces is a slot of Redis Cluster. ``bbx`` is the tag of the stream's bucket, in whose slot everything per
token is; ``desk`` has everything per request (docs/adr/0020). Only API keys and the data version may lack an expiry;
a test fixture checks it.
"""

from collections.abc import Sequence
from typing import Final

from shared.broker.cluster.slots import BUCKET_TAGS
from shared.protocol.ids import BUCKETS, bucket_of
from shared.rate_limits import account_of

#: Version of the data described here. Raise it with a change that an older process would misread.
DATA_VERSION: Final = 9
#: Prefix of the keys of the desk.
_DESK_TAG: Final = "{desk}"
DESK: Final = f"hr:{_DESK_TAG}:"
#: Older versions have it under the same name, so that they refuse our data too.
DATA_VERSION_KEY: Final = "hr:data_version"
QUEUE: Final = f"{DESK}queue"
TURNS: Final = f"{DESK}turns"
BATCH_TURNS: Final = f"{DESK}batch_turns"
WAITING: Final = f"{DESK}waiting"
WAITING_ACCOUNTS: Final = f"{DESK}waiting_accounts"
DROPPING: Final = f"{DESK}dropping"
TAKEN: Final = f"{DESK}taken"
CATALOG: Final = f"{DESK}catalog"
OFFERED: Final = f"{DESK}offered"
SWEEP: Final = f"{DESK}sweep"
ENDED: Final = f"{DESK}ended"
FAILED: Final = f"{DESK}failed"
ABOVE_LIMIT: Final = f"{DESK}above_limit"
DELIVERIES: Final = f"{DESK}deliveries"
UNARCHIVED: Final = f"{DESK}unarchived"
PROCESSES: Final = f"{DESK}processes"
RELOAD: Final = f"{DESK}reload"
AUDIT: Final = f"{DESK}audit"
REVOKED_LINKS: Final = "hr:revoked_links"
BREAKERS: Final = f"{DESK}breakers"
CONFIGURATIONS: Final = f"{DESK}configurations"


def stream_keys(stream_id: str, idempotency: str | None = None) -> list[str]:
    """Return the keys of one stream in the order of ``scripts.STREAM_KEYS``. The last, the idempotency entry, exists
    only if the stream was requested with a key; ``idempotency`` is its digest."""
    prefix = _bucket_prefix(bucket_of(stream_id))
    stream = prefix + stream_id
    keys = [
        *(f"{stream}:state", f"{stream}:log", f"{stream}:tail", f"{stream}:readers", f"{prefix}index"),
        *(f"{stream}:tombstone", f"{prefix}pulse", f"{stream}:request", f"{prefix}answers"),
    ]
    if idempotency:
        keys.append(idempotency_entry_key(idempotency))
    return keys


def stream_keys_and(stream_id: str, idempotency: str | None, more: Sequence[str]) -> list[str]:
    """Return the keys of one stream and then ``more``, from the eleventh on. If the stream has no idempotency entry,
    the tenth is its state again."""
    keys = stream_keys(stream_id, idempotency)
    return [*keys, *([] if idempotency else keys[:1]), *more]


def idempotency_entry_key(digest: str) -> str:
    """Return the key in the bucket of its stream, which takes its bucket from the digest."""
    return f"{_bucket_prefix(digest[:2])}idem:{digest}"


def state_key(stream_id: str) -> str:
    return stream_keys(stream_id)[0]


def request_key(stream_id: str) -> str:
    """Return the key of the pieces of a large request."""
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


def answers_keys() -> list[str]:
    """Return the index of the answers of every bucket."""
    return [f"{_bucket_prefix(f'{bucket:02x}')}answers" for bucket in range(BUCKETS)]


def answers_key(stream_id: str) -> str:
    """Return the index of the answers of the stream's bucket."""
    return stream_keys(stream_id)[8]


def dead_letters_key(stream_id: str) -> str:
    """Return the key of the streams of the stream's bucket whose webhooks were given up."""
    return f"{_bucket_prefix(bucket_of(stream_id))}dead_letters"


def dead_letters_keys() -> list[str]:
    """Return the key of every bucket."""
    return [f"{_bucket_prefix(f'{bucket:02x}')}dead_letters" for bucket in range(BUCKETS)]


def tombstone_key(stream_id: str) -> str:
    return stream_keys(stream_id)[5]


def gateway_channel(gateway_id: str, route: str = "") -> str:
    """Return the channel of a gateway and a route. The scripts derive the same name from the stream's readers."""
    return f"hr:gateway:{gateway_id}{route}"


def worker_channel(worker_id: str, route: str = "") -> str:
    """Return the channel of a worker and a route. The scripts derive the same name from the holder,
    ``<worker><route>.<random>``."""
    return f"hr:worker:{worker_id}{route}"


def principal_streams_key(principal: str) -> str:
    return owned_key(account_of(principal))


def owned_key(account: str) -> str:
    """Return the key of the list of an account's streams."""
    return f"hr:owned:{account}"


def retry_key(account: str, body_hash: str) -> str:
    return f"hr:recent:{account}:{body_hash[:32]}"


def of_key(stream_id: str) -> str:
    """Return the key of the desk's part of a stream."""
    return f"{DESK}of:{stream_id}"


def job_id_of(stream_id: str) -> str:
    """Return arq's id of a stream's job, with the tag of the desk, so that its keys are in the queue's slot."""
    return f"{_DESK_TAG}{stream_id}"


def stream_of_job(job_id: str) -> str:
    """Return the stream of a job."""
    return job_id.removeprefix(_DESK_TAG)


def job_key(stream_id: str) -> str:
    """Return arq's key of a stream's job."""
    return f"arq:job:{job_id_of(stream_id)}"


def account_keys(account: str) -> dict[str, str]:
    """Return the keys of an account at the desk, by their names in the declarations."""
    return {kind: f"{DESK}{kind}:{account}" for kind in ("used", "streams", "stored", "kept", "sources")}


def budget_key(account: str) -> str:
    """Return the key of what was spent and reserved in the budgets of an account."""
    return f"{DESK}budget:{account}"


def removed_key(account: str) -> str:
    """Return the key of an account's streams that were deleted or dropped."""
    return f"{DESK}removed:{account}"


def kept_key(account: str) -> str:
    """Return the key of an account's streams, those that expire first in front."""
    return f"{DESK}kept:{account}"


def provider_limit_keys(provider: str) -> list[str]:
    """Return the keys of running and of parked streams, of the tokens of those, and of the counts of a minute. The
    scripts derive the same names from the state."""
    return [f"{DESK}lane:{provider}:{kind}" for kind in ("running", "parked", "tokens", "used")]


def api_key_key(key_id: str) -> str:
    return f"hr:apikey:{key_id}"


def revoked_key(key_id: str) -> str:
    return f"hr:revoked:{key_id}"


def endings_key(minute: int) -> str:
    """Return the key for a minute since 1970, by Redis' clock."""
    return f"{DESK}endings:{minute}"


def usage_key(day: int, account: str | None) -> str:
    """Return the key of the sums of a day since 1970: of an account, or of all streams."""
    return f"{DESK}usage:{day}" if account is None else f"{DESK}usage:{day}:{account}"


def process_key(process_id: str) -> str:
    return f"{DESK}process:{process_id}"


def configuration_key(configuration_hash: str) -> str:
    return f"{DESK}configuration:{configuration_hash}"


def paused_key(configuration_hash: str, provider: str) -> str:
    return f"{DESK}paused:{configuration_hash}:{provider}"


def breaker_key(target: str) -> str:
    return f"{DESK}breaker:{target}"


def breaker_failures_key(target: str) -> str:
    return f"{breaker_key(target)}:failures"


def _bucket_prefix(bucket: str) -> str:
    return _PREFIXES.get(bucket) or f"hr:{{{bucket}}}:"  # no stream has an id of another form


_PREFIXES: Final = {tag[:2]: f"hr:{{{tag}}}:" for tag in BUCKET_TAGS}
