"""Invariants of every state, and the goal that must stay in reach."""

from tests.protocol_model.states import CAP, ENDED, FAILURE, FINISHED, TOLD_LOST, Redis, State, Violation


def broken_invariant(now: State) -> Violation | None:
    if now.redis is None:
        return None
    redis = now.redis
    return _broken_tail(redis) or _broken_log(now, redis)


def _broken_tail(redis: Redis) -> Violation | None:
    tail, log = redis.tail, redis.log
    if len(tail) > CAP:
        return Violation("I5", f"tail of {len(tail)} is over its cap")
    if any(tail[i][:2] >= tail[i + 1][:2] for i in range(len(tail) - 1)):
        return Violation("I5b", "ids of the tail do not rise")
    for epoch, seq, attempt, kind in tail:
        if log and epoch == log[-1].epoch and (seq > len(log) or log[seq - 1] != (epoch, attempt, kind)):
            return Violation("I5c", "tail and log disagree")
    return None


def _broken_log(now: State, redis: Redis) -> Violation | None:
    attempts = attempts_of(redis)
    if attempts and attempts != now.answer(attempts[-1], len(attempts)):
        return Violation("I1", "log mixes attempts")
    for epoch, seq, attempt, failed in now.seen:
        if seq <= len(redis.log) and epoch == redis.log[seq - 1].epoch:
            event = redis.log[seq - 1]
            if (event.attempt, event.kind == FAILURE) != (attempt, failed):
                return Violation("I6", f"id {epoch}-{seq} was shown as u{attempt}, now is u{event.attempt}")
    return None


def attempts_of(redis: Redis) -> tuple[int, ...]:
    return tuple(event.attempt for event in redis.log)


def is_goal(now: State) -> bool:
    """True if every reader and the stream have an ending, or if Redis and all holders have lost the stream."""
    if any(reader.phase not in (FINISHED, TOLD_LOST) and not reader.finished for reader in now.readers):
        return False
    if now.redis is not None:
        return now.redis.status == ENDED
    return all(worker.is_idle for worker in now.workers)


def has_one_answer(now: State) -> bool:
    """True if every reader that has finished has the answer that Redis keeps."""
    redis = now.redis
    if redis is None or redis.status != ENDED or any(not worker.is_idle for worker in now.workers):
        return True
    return not any(reader.finished and reader.shown != attempts_of(redis) for reader in now.readers)
