"""Classifies errors of Redis: each becomes a :class:`BrokerUnavailable` with a reason, a cause and a remedy.

The rows are matched in order against the text of the error and of its causes. redis-py removes the code from most
error replies (``NOPERM …``), and scripts wrap them, so the words of Redis 7 to 8 and of Valkey are listed as well.
"""

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from shared.errors import BrokerAuth, BrokerFull, BrokerMisconfigured, BrokerUnavailable, BrokerUnfit


class Reason(StrEnum):
    """Names of the reasons, as logs, ``/readyz`` and metrics have them; docs/runbook.md has an entry for each."""

    REFUSED = "connection_refused"
    TIMEOUT = "timeout"
    NAME = "name_not_resolved"
    TLS_CERTIFICATE = "tls_certificate"
    TLS_MISSING = "tls_missing"
    TLS_REFUSED = "tls_refused"
    TLS = "tls_failed"
    NOT_REDIS = "not_redis"
    UNREACHABLE = "unreachable"
    NO_PASSWORD = "password_missing"  # noqa: S105
    WRONG_PASSWORD = "password_wrong"  # noqa: S105
    NO_PERMISSION = "permission_missing"
    FULL = "full"
    LOADING = "loading"
    BUSY = "busy"
    READ_ONLY = "read_only"
    WRITES_STOPPED = "writes_stopped"
    FAILOVER = "failover"
    NO_DATABASE = "no_database"
    TOO_OLD = "too_old"
    EVICTION = "eviction_policy"
    CLUSTER = "cluster"
    DATA_VERSION = "data_version"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class _Row:
    """One reason. ``kinds`` and ``words``: classes and texts of its errors; one match is enough."""

    reason: Reason
    problem: str
    remedy: str
    error: type[BrokerUnavailable] = BrokerUnavailable
    kinds: tuple[type[BaseException], ...] = ()
    words: str = r"(?!)"


_START: Final = "start Redis, or correct HEADRACE_REDIS_URL"
_ROWS: Final = (
    _Row(
        Reason.NO_PERMISSION,
        "NOPERM, the Redis user lacks {missing}",
        "grant it (docs/internals.md has the line of ACL)",
        BrokerUnfit,
        kinds=(NoPermissionError,),
        words=r"^NOPERM|ACL failure in script|The user executing the script can't",
    ),
    _Row(
        Reason.FULL,
        "OOM, its memory is full",
        "raise maxmemory, or shorten HEADRACE_RETENTION_S",
        BrokerFull,
        kinds=(OutOfMemoryError,),
        words=r"^OOM |command not allowed when used memory",
    ),
    _Row(
        Reason.NO_PASSWORD,
        "NOAUTH, it requires a password",
        "put the password into HEADRACE_REDIS_URL, redis://:PASSWORD@host",
        BrokerAuth,
        words=r"^NOAUTH|Authentication required",
    ),
    _Row(
        Reason.WRONG_PASSWORD,
        "WRONGPASS, it refuses the user or the password",
        "correct HEADRACE_REDIS_URL, or the user in Redis (ACL SETUSER)",
        BrokerAuth,
        kinds=(AuthenticationError,),
        words=r"^WRONGPASS|invalid password|AUTH <password> called without any password",
    ),
    _Row(
        Reason.LOADING,
        "LOADING, it is reading its data from disk",
        "wait until it has finished",
        kinds=(BusyLoadingError,),
        words=r"^LOADING",
    ),
    _Row(
        Reason.READ_ONLY,
        "READONLY, it is a replica",
        "use the address of the master, or sentinel://",
        kinds=(ReadOnlyError,),
        words=r"^READONLY|read only replica",
    ),
    _Row(
        Reason.WRITES_STOPPED,
        "it refuses writes ({cause})",
        "check its disk (MISCONF) or its replicas (NOREPLICAS)",
        words=r"^MISCONF|^NOREPLICAS|Not enough good replicas|configured to save RDB snapshots"
        r"|Errors writing to the AOF",
    ),
    _Row(
        Reason.BUSY,
        "BUSY, a script or function blocks it",
        "find it (SLOWLOG GET); SCRIPT KILL or FUNCTION KILL ends it",
        words=r"^BUSY |busy running a (script|function)",
    ),
    _Row(
        Reason.FAILOVER,
        "a failover is under way ({cause})",
        "wait; if it lasts, check the sentinels or the cluster",
        words=r"^UNBLOCKED|^(MASTERDOWN|CLUSTERDOWN|TRYAGAIN)|No master found|The cluster is down|"
        r"Link with MASTER is down|has no good slaves|instance state changed",
    ),
    _Row(
        Reason.CLUSTER,
        "it belongs to a cluster",
        "use redis+cluster://host:port,host:port (rediss+cluster:// with TLS) in HEADRACE_REDIS_URL",
        BrokerMisconfigured,
        words=r"^MOVED |^ASK |^CROSSSLOT|SELECT is not allowed in cluster mode|hash to the same slot|"
        r"access a non local key in a cluster",
    ),
    _Row(
        Reason.NO_DATABASE,
        "it has no database of this number",
        "correct the number at the end of HEADRACE_REDIS_URL",
        BrokerUnfit,
        words=r"DB index is out of range|invalid DB index",
    ),
    _Row(
        Reason.TLS_CERTIFICATE,
        "TLS, its certificate is not accepted ({cause})",
        "set ssl_ca_certs=FILE in HEADRACE_REDIS_URL, and use a host name of the certificate",
        kinds=(ssl.SSLCertVerificationError,),
        words=r"CERTIFICATE_VERIFY_FAILED",
    ),
    _Row(
        Reason.TLS_REFUSED,
        "TLS, the port does not speak it",
        "use redis:// in HEADRACE_REDIS_URL, or the TLS port",
        words=r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|the port does not speak TLS",
    ),
    _Row(
        Reason.TLS_MISSING,
        "the port speaks TLS only",
        "use rediss:// in HEADRACE_REDIS_URL",
        words=r"the port speaks TLS",
    ),
    _Row(
        Reason.TLS,
        "TLS, the handshake failed ({cause})",
        "check the certificates on both sides and the options ssl_… in HEADRACE_REDIS_URL",
        kinds=(ssl.SSLError,),
    ),
    _Row(
        Reason.NOT_REDIS,
        "another kind of server answers there",
        "correct the port in HEADRACE_REDIS_URL",
        kinds=(InvalidResponse,),
        words=r"Protocol error, got|unknown command 'SENTINEL'",
    ),
    _Row(
        Reason.NAME,
        "the name of its host is not resolved",
        "correct the host in HEADRACE_REDIS_URL, or the DNS",
        kinds=(socket.gaierror,),
    ),
    _Row(
        Reason.REFUSED,
        "connection refused, no server listens there",
        _START,
        kinds=(ConnectionRefusedError, FileNotFoundError),
    ),
    _Row(
        Reason.TIMEOUT,
        "timeout, it does not answer",
        "check the network, and whether a command blocks Redis (SLOWLOG GET)",
        kinds=(TimeoutError, RedisTimeoutError),
    ),
    _Row(Reason.UNREACHABLE, "the connection failed ({cause})", _START, kinds=(OSError, RedisConnectionError)),
)
_UNKNOWN: Final = _Row(Reason.ERROR, "it answered with an error ({cause})", "see the log of Redis")

_COMMAND: Final = re.compile(r"permissions to run the '([^']+)' command")
_LONGEST_CAUSE: Final = 200


def classify(error: BaseException, target: str) -> BrokerUnavailable:
    """Return the error to raise for an error of Redis or the network. ``target``: the address, without password."""
    if isinstance(error, BrokerUnavailable):
        return error
    chain = list(_causes(error))
    row = next((row for row in _ROWS if any(_is_of(row, each) for each in chain)), _UNKNOWN)
    cause = _short(chain[-1])
    problem = row.problem.format(cause=cause, missing=_missing(" ".join(map(str, chain))))
    return row.error(detail=f"Redis at {target}: {problem}; {row.remedy}", reason=row.reason)


def cluster_refused(target: str) -> BrokerUnavailable:
    """Return the error for a server that belongs to a cluster."""
    return classify(ResponseError("CROSSSLOT"), target)


def missing_rights(names: str, target: str) -> BrokerUnfit:
    """Return the error for rights that the test of a start found missing."""
    row = _ROWS[0]
    problem = row.problem.format(missing=names)
    return BrokerUnfit(detail=f"Redis at {target}: {problem}; {row.remedy}", reason=row.reason)


def _is_of(row: _Row, error: BaseException) -> bool:
    return isinstance(error, row.kinds) or re.search(row.words, str(error)) is not None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes. A cancellation is no cause: it is how a timeout works."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if isinstance(each, Exception):
            yield each
        each = each.__cause__ or each.__context__


def _missing(text: str) -> str:
    """Name the missing right: Redis names only commands."""
    if (command := _COMMAND.search(text)) is not None:
        return f"the command {command[1].upper().replace('|', ' ')}"
    if "channel" in text:
        return "the channels hr:* (&hr:*)"
    if "key" in text:
        return "the keys hr:* or arq:* (~hr:* ~arq:*)"
    return "a command"


def _short(error: BaseException) -> str:
    """Return the cause in a few words. Redis' words may quote arguments of a command after a colon; they are cut."""
    text = re.split(r", with args beginning with| : <", str(error))[0].splitlines()
    return (text[0] if text else type(error).__name__)[:_LONGEST_CAUSE]
