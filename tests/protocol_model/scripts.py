"""Write scripts of Redis as pure functions. Each returns a reply and the Redis that it leaves behind."""

from tests.protocol_model.states import (
    ENDED,
    LENGTH,
    RUNNING,
    Entry,
    Logged,
    Redis,
    Reply,
    Request,
    Rules,
    capped,
)


def append(rules: Rules, redis: Redis | None, request: Request) -> tuple[Reply, Redis | None]:
    """Append events (rules A1 to A7)."""
    if redis is None:
        return Reply("MISSING", 0), None
    refusal = _refusal(rules, redis, request)
    if refusal is not None:
        return refusal, redis
    n = _log_length(redis, request)
    log = (*redis.log[:n], *(request.event(seq) for seq in range(n + 1, request.last + 1)))
    status = ENDED if len(log) >= LENGTH else RUNNING
    return Reply("OK", request.last), redis._replace(status=status, leased=True, log=log, tail=_tail_of(log))


def _tail_of(log: tuple[Logged, ...]) -> tuple[Entry, ...]:
    """Return the events of the log that are not in chunks, under their ids."""
    return capped(tuple(Entry(event.epoch, seq, event.attempt, event.kind) for seq, event in enumerate(log, 1)))


def _log_length(redis: Redis, request: Request) -> int:
    """Number of events of the log that are the caller's own, or that it continues (rule E13)."""
    epoch, n = (redis.log[-1].epoch, len(redis.log)) if redis.log else (0, 0)
    continues = bool(request.base) and (epoch, n) == (request.base[-1].epoch, len(request.base))
    return n if epoch == request.epoch or continues else 0


def _refusal(rules: Rules, redis: Redis, request: Request) -> Reply | None:
    if redis.epoch > request.epoch or (redis.epoch < request.epoch and rules.compare == "equality"):
        return Reply("SUPERSEDED", 0)
    if redis.epoch < request.epoch:
        return Reply("CLOSED" if redis.status == ENDED else "BEHIND", 0)
    if redis.status == ENDED:
        return Reply("CLOSED", len(redis.log))
    if request.first > (n := _log_length(redis, request)) + 1:
        return Reply("GAP", n)
    return None


def restore(rules: Rules, redis: Redis | None, request: Request) -> tuple[Reply, Redis | None]:
    """Write all events of an attempt into a Redis that has lost them (rule E3)."""
    if redis is not None and (refusal := _restore_refusal(rules, redis, request)) is not None:
        return refusal, redis
    log = tuple(request.event(seq) for seq in range(1, request.last + 1))
    status = ENDED if request.last >= LENGTH else RUNNING
    attempts = redis.attempts if redis else 1
    return Reply("OK", request.last), Redis(status, request.epoch, True, attempts, log, _tail_of(log))


def _restore_refusal(rules: Rules, redis: Redis, request: Request) -> Reply | None:
    epoch = request.epoch
    if rules.restore == "blind":
        return None
    if rules.restore == "missing":
        return Reply("EXISTS", 0)
    if redis.epoch > epoch:
        return Reply("SUPERSEDED", 0)
    if redis.epoch == epoch:
        if redis.status == ENDED:
            return Reply("CLOSED", len(redis.log))
        return Reply("GAP", _log_length(redis, request))
    return Reply("CLOSED", 0) if redis.status == ENDED else None
