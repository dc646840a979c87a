"""Data and the cancel action of the operators' page. No content of any stream: ids, states, models, owners, counts,
times and reasons.
"""

import time
from typing import Any

import msgspec
from fastapi import APIRouter, Request

from gateway.api.descriptions import OPERATORS, either_answers, native_answers
from gateway.api.ops_audit import act_of
from gateway.api.response_models import CancelAnswer
from gateway.api.streams import stop
from gateway.auth.operator import Operator
from gateway.state import Gateway, GatewayState
from shared.broker.audit_log import recorded
from shared.broker.overview import MINUTES, MOST_LIVE, Overview
from shared.broker.processes import Process
from shared.broker.queue import queue_positions
from shared.broker.status import time_of
from shared.broker.timeline import StreamTimeline, read_timeline
from shared.errors import StreamNotFound
from shared.protocol.ids import is_stream_id
from shared.protocol.lifecycle import TERMINAL

router = APIRouter(prefix="/ops", tags=[OPERATORS])

_FAILED = "failed:"


@router.get(
    "/overview",
    operation_id="get_overview",
    summary="Overview of the system",
    responses=native_answers("OperatorData"),
)
async def overview(gateway: Gateway, _: Operator) -> dict[str, Any]:
    """Return the overview, at most one second old. It lists a selection of the streams; ``live`` is their number."""
    seen = await gateway.overview.get(None)
    reasons: dict[str, int] = {}
    for _minute, counts in seen.minutes:
        for name, n in counts.items():
            if name.startswith(_FAILED):
                reason = name.removeprefix(_FAILED)
                reasons[reason] = reasons.get(reason, 0) + n
    return {
        "at": _time(seen.at_ms),
        "live": seen.live,
        "waiting": seen.waiting,
        "waiting_batch": seen.waiting_batch,
        "oldest_waiting_s": max(0, seen.at_ms - seen.oldest_ms) / 1000 if seen.oldest_ms else 0,
        "taken_per_s": round(gateway.backlog.drain_rate, 2),
        "streams_at_most": MOST_LIVE,
        "streams": [_row(each, seen.at_ms) for each in seen.streams],
        "ended": [_row(each, seen.at_ms) for each in seen.ended],
        "failed": [_row(each, seen.at_ms) for each in seen.failed],
        "gateways": [_process(each, seen) for each in seen.processes if each.kind == "gateway"],
        "workers": [_process(each, seen) for each in seen.processes if each.kind == "worker"],
        "minutes": [
            {"at": _time(minute * 60_000), **{name: counts.get(name, 0) for name in (*sorted(TERMINAL), "tokens")}}
            for minute, counts in seen.minutes
        ],
        "failures": reasons,
        "left_alone": seen.open_breakers,
        "configuration": seen.configuration,
        "redis": {
            "used_bytes": seen.memory.used,
            "limit_bytes": seen.memory.limit,
            "stream_bytes": seen.memory.stream,
        },
        "counted_over_s": MINUTES * 60,
        "cost_today": msgspec.to_builtins(await gateway.cost_today.get(None)),
    }


@router.get(
    "/streams/{stream_id}",
    operation_id="get_stream_history",
    summary="History of a stream",
    responses=native_answers("OperatorData"),
)
async def stream(stream_id: str, gateway: Gateway, _: Operator) -> dict[str, Any]:
    """Return the history of one stream of any owner, until its retention ends. ``place``: its queue position, 1 is
    next."""
    known, now_ms = await _find(gateway, stream_id), time.time_ns() // 1_000_000
    (queue_position,) = await queue_positions(gateway.client, [stream_id], gateway.scripts.target_limits)
    return {
        **_row(known, now_ms),
        "at": _time(now_ms),
        "place": queue_position if known.is_active else None,
        "on_disconnect": known.fields["on_disconnect"],
        "usage": known.usage,
        "error": known.error,
        "timeline": [
            {"at": _time(each.at_ms), "what": each.what, "detail": each.detail, "attempt": each.attempt}
            for each in known.timeline()
        ],
    }


@router.post(
    "/streams/{stream_id}/cancel",
    operation_id="cancel_any_stream",
    summary="Cancel a stream of any owner",
    status_code=202,
    responses=either_answers(),
)
async def cancel(stream_id: str, gateway: Gateway, operator: Operator, request: Request) -> CancelAnswer:
    """Stop a stream of any owner. Repeated, or after the end, it has no effect."""
    found = await _find(gateway, stream_id)
    async with recorded(gateway.client, act_of(operator, request, "stream.cancel", found.stream_id)):
        return await stop(gateway, stream_id)


async def _find(gateway: GatewayState, stream_id: str) -> StreamTimeline:
    found = await read_timeline(gateway.client, [stream_id]) if is_stream_id(stream_id) else []
    if not found:
        raise StreamNotFound("stream: not found, or its retention has ended; check its id")
    return found[0]


def _row(known: StreamTimeline, now_ms: int) -> dict[str, Any]:
    fields = known.fields
    return {
        "stream_id": known.stream_id,
        "status": fields["status"],
        "owner": fields["principal"],
        "provider": fields["provider"],
        "model": fields["model"],
        "attempt": int(fields["attempt"] or 0),
        "priority": fields["priority"] or "interactive",
        "worker": known.worker,
        "events": known.events,
        "read_now": known.is_active and (known.at("live_until") or 0) > now_ms,
        "resumes": int(fields["resumes"] or 0),
        "is_cancelled": known.is_active and fields["cancel"] is not None,
        "finish_reason": fields["finish_reason"],
        "reason": fields["reason"],
        "created_at": time_of(fields["created"]),
        "started_at": time_of(fields["started"]),
        "first_token_at": _time(known.first_token_ms()),
        "ended_at": time_of(fields["ended"]),
    }


def _process(process: Process, seen: Overview) -> dict[str, Any]:
    own = process.load.configuration
    return {
        "id": process.id,
        "host": process.host,
        "pid": process.pid,
        "since": _time(round(process.since * 1000)),
        "version": process.version,
        "files": process.files,
        **msgspec.structs.asdict(process.load),
        "other_configuration": bool(own and seen.configuration) and own != seen.configuration,
    }


def _time(ms: int | None) -> str | None:
    return time_of(None if ms is None else str(ms))
