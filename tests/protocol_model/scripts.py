"""Write scripts of Redis as pure functions. Each returns a reply and the Redis that it leaves behind."""

from tests.protocol_model.states import (
    ENDED,
    LENGTH,
    PLAIN,
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
    log, tail = redis.log, redis.tail
    for seq in range(len(log) + 1, request.last + 1):
        if tail and (request.epoch, seq) <= tail[-1][:2]:
            return Reply("XADD REFUSED", 0), redis
        log += (Logged(request.attempt, PLAIN),)
        tail = capped((*tail, Entry(request.epoch, seq, request.attempt, PLAIN)))
    status = ENDED if len(log) >= LENGTH else RUNNING
    return Reply("OK", request.last), redis._replace(status=status, leased=True, log=log, tail=tail)


def _refusal(rules: Rules, redis: Redis, request: Request) -> Reply | None:
    if redis.epoch > request.epoch or (redis.epoch < request.epoch and rules.compare == "equality"):
        return Reply("SUPERSEDED", 0)
    if redis.epoch < request.epoch:
        return Reply("CLOSED" if redis.status == ENDED else "BEHIND", 0)
    if redis.status == ENDED:
        return Reply("CLOSED", len(redis.log))
    if request.first > len(redis.log) + 1:
        return Reply("GAP", len(redis.log))
    return None


def restore(rules: Rules, redis: Redis | None, request: Request) -> tuple[Reply, Redis | None]:
    """Write all events of an attempt into a Redis that has lost them (rule E3)."""
    if redis is not None and (refusal := _restore_refusal(rules, redis, request.epoch)) is not None:
        return refusal, redis
    log = (Logged(request.attempt, PLAIN),) * request.last
    tail = tuple(Entry(request.epoch, seq, request.attempt, PLAIN) for seq in range(1, request.last + 1))
    if rules.restore == "guarded" and redis is not None:
        tail = redis.tail + tail  # the older entries have lower ids, and may stay
    status = ENDED if request.last >= LENGTH else RUNNING
    attempts = redis.attempts if redis else 1
    return Reply("OK", request.last), Redis(status, request.epoch, True, attempts, log, capped(tail))


def _restore_refusal(rules: Rules, redis: Redis, epoch: int) -> Reply | None:
    if rules.restore == "blind":
        return None
    if rules.restore == "missing":
        return Reply("EXISTS", 0)
    if redis.epoch > epoch:
        return Reply("SUPERSEDED", 0)
    if redis.epoch == epoch:
        return Reply("CLOSED" if redis.status == ENDED else "GAP", len(redis.log))
    return Reply("CLOSED", 0) if redis.status == ENDED else None
