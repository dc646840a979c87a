"""The command ``headrace audit``: administrative acts, from the audit log in Redis."""

import asyncio
import re
import time
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
import typer

from headrace.api_keys import HERE, DataDir, with_redis
from headrace.interrupts import raise_on_interrupt
from headrace.table import table
from shared.broker.audit_follower import Follower
from shared.broker.audit_log import MOST_ENTRIES, RecordedAct, read_acts
from shared.broker.client import Client
from shared.errors import BrokerUnavailable
from shared.printable import escaped_json

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FOLLOW_EVERY_S: Final = 1.0
#: Time in which an act should have its outcome; ``--follow`` waits so long for it.
_OUTCOME_WITHIN_S: Final = 10.0


def audit(
    *,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Such as 90d, 12h or 2026-11-30T08:00.  [default: all]")
    ] = None,
    most: Annotated[int, typer.Option("--limit", min=1, max=MOST_ENTRIES, help="Acts to print.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one act a line.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print acts as they end, oldest first, until Ctrl-C.")
    ] = False,
    data_dir: DataDir = HERE,
) -> None:
    """Print administrative acts: keys, links, cancels, reloads.

    The latest comes first. Each has who, when, from where, and its outcome.
    """
    since_ms = 0 if since is None else _since_ms(since)

    async def work(client: Client) -> None:
        if follow:
            await _follow(client, since_ms or round(time.time() * 1000), as_json=as_json)
        acts = await read_acts(client, most=most, since_ms=since_ms)
        if not acts:
            typer.echo("no acts", err=True)
        _print(acts, as_json=as_json)

    raise_on_interrupt()
    try:
        with_redis(work, data_dir)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _follow(client: Client, since_ms: int, *, as_json: bool) -> None:
    """Run until cancelled: print each act once it has its outcome, or has had time for it. While Redis is
    unavailable, nothing is lost: the log is read on from the last entry."""
    follower, is_away = Follower(client, since_ms, outcome_within_s=_OUTCOME_WITHIN_S), False
    _print(await follower.poll(), as_json=as_json)  # a wrong address ends the command
    while True:
        await asyncio.sleep(_FOLLOW_EVERY_S)
        try:
            _print(await follower.poll(), as_json=as_json)
            is_away = False
        except BrokerUnavailable as error:
            if not is_away:
                typer.echo(f"{error.detail}; still trying", err=True)
            is_away = True


def _print(acts: list[RecordedAct], *, as_json: bool) -> None:
    if as_json:
        for act in acts:
            print(escaped_json(msgspec.json.encode(act).decode()), flush=True)
    elif acts:
        print(table([_row(act) for act in acts]), flush=True)


def _row(act: RecordedAct) -> tuple[str, ...]:
    details = " ".join(f"{name}={text}" for name, text in act.details.items())
    outcome = f"{act.outcome}: {act.reason}" if act.reason else act.outcome
    at = act.at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return at, act.what, act.target, outcome, act.who, act.origin, details


def _since_ms(text: str) -> int:
    if match := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return max(0, round((time.time() - int(match[1]) * _SECONDS[match[2]]) * 1000))
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        problem = "use a number with s, m, h or d, such as 90d, or a time such as 2026-11-30T08:00"
        raise typer.BadParameter(problem, param_hint="--since") from None
    return max(0, round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000))
