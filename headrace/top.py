"""The command ``headrace top``: gateways, workers, queue and Redis, from ``/ops/overview`` of any gateway."""

import asyncio
import signal
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headrace.printer import note
from headrace.unreachable import OTHER_ADDRESS, reason_of
from shared.printable import one_line, printable_value

_REFRESH_S: Final = 2.0
_TIMEOUT: Final = httpx2.Timeout(10)
_HIGH_LAG_S: Final = 0.1
Overview = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Watch:
    """Options of the command. ``once``: print the current state and exit."""

    url: str
    key: str | None
    once: bool


class OverviewUnavailable(Exception):
    """The gateway returned no overview; the message has the reason."""


async def top(watch: Watch) -> int:
    """Show the overview. Return the exit code: 0, or 1 without an overview."""
    console = Console()
    headers = {"Authorization": f"Bearer {watch.key}"} if watch.key else {}
    async with httpx2.AsyncClient(timeout=_TIMEOUT, headers=headers) as client:
        try:
            seen = await _fetch(client, watch.url)
        except OverviewUnavailable as error:
            note(f"error: {error}")
            return 1
        if watch.once or not console.is_terminal:
            console.print(render(seen))
            return 0
        await _follow(client, watch.url, seen, console)
        return 0


async def _follow(client: httpx2.AsyncClient, url: str, seen: Overview, console: Console) -> None:
    """Refresh until Ctrl-C. While the gateway is unavailable, show the last overview with the problem."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopping.set)
    with Live(render(seen), console=console, screen=True, auto_refresh=False) as live:
        while not stopping.is_set():
            problem = ""
            try:
                seen = await _fetch(client, url)
            except OverviewUnavailable as error:
                problem = str(error)
            live.update(render(seen, problem), refresh=True)
            try:
                async with asyncio.timeout(_REFRESH_S):
                    await stopping.wait()
            except TimeoutError:
                continue


async def _fetch(client: httpx2.AsyncClient, url: str) -> Overview:
    try:
        answer = await client.get(f"{url}/ops/overview")
    except httpx2.HTTPError as error:
        raise OverviewUnavailable(f"{url}: {reason_of(error)}; {OTHER_ADDRESS}") from None
    try:
        body = answer.json()
    except ValueError:
        body = None
    match body:
        case {"workers": _, "gateways": _, "redis": _} if answer.status_code == 200:
            seen: Overview = printable_value(body)
            return seen
        case {"error": {"code": str(code), "message": str(message)}} if code.startswith("broker_"):
            raise OverviewUnavailable(f"{message} ({code}); the gateway's log and {url}/readyz have the reason")
        case {"error": {"code": "unauthenticated", "message": str(message)}}:
            raise OverviewUnavailable(one_line(f"{message}; check HEADRACE_API_KEY or --key"))
        case {"error": {"message": str(message)}}:
            raise OverviewUnavailable(one_line(message))
        case _:
            raise OverviewUnavailable(
                f"{url}: not a Headrace gateway (HTTP {answer.status_code}); check --url or HEADRACE_URL"
            )


def render(seen: Overview, problem: str = "") -> RenderableType:
    """Lay out one overview."""
    return Group(
        Text(problem or f"as of {seen['at']}", style="bold red" if problem else "dim"),
        _totals(seen),
        _processes("worker", seen["workers"]),
        _processes("gateway", seen["gateways"]),
        *_failures(seen),
    )


def _totals(seen: Overview) -> Table:
    used, slots = (sum(worker[name] for worker in seen["workers"]) for name in ("streams", "slots"))
    redis = seen["redis"]
    limit = f" of {_bytes(redis['limit_bytes'])}" if redis["limit_bytes"] else ""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    table.add_row("live streams", str(seen["live"]), "")
    table.add_row("waiting", str(seen["waiting"]), f"oldest: {seen['oldest_waiting_s']:.1f} s")
    if batch := seen.get("waiting_batch"):  # older gateways do not count them
        table.add_row("of these batch", str(batch), "")
    table.add_row("claimed per second", f"{seen['taken_per_s']:.1f}", "")
    table.add_row("slots in use", f"{used}/{slots}", f"{max(0, slots - used)} free")
    table.add_row("Redis", _bytes(redis["used_bytes"]) + limit, f"{_bytes(redis['stream_bytes'])} a stream")
    return table


def _processes(kind: str, processes: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    for name in (kind, "host"):
        table.add_column(name)
    for name in ("streams", "slots" if kind == "worker" else "readers", "loop lag"):
        table.add_column(name, justify="right")
    table.add_column("")
    for process in processes:
        table.add_row(
            Text(process["id"]),  # not str: rich would take [words] in it for markup
            Text(process["host"]),
            str(process["streams"]),
            str(process["slots" if kind == "worker" else "readers"]),
            Text(f"{process['lag_s'] * 1000:.0f} ms", style="red" if process["lag_s"] > _HIGH_LAG_S else ""),
            _marks(process),
        )
    if not processes:
        table.add_row(Text("none", style="bold red"))
    return table


def _marks(process: dict[str, Any]) -> Text:
    marks = {"draining": process["draining"], "other configuration": process.get("other_configuration", False)}
    return Text(", ".join(name for name, applies in marks.items() if applies), style="bold red")


def _failures(seen: Overview) -> list[Text]:
    lines = [
        Text(f"{count} failed with {reason} in {seen['counted_over_s'] // 60} minutes", style="red")
        for reason, count in sorted(seen["failures"].items(), key=lambda each: -each[1])
    ]
    return lines + [Text(f"{name}: circuit breaker open", style="red") for name in seen["left_alone"]]


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def run(watch: Watch) -> int:
    """Run the command. Return the exit code."""
    return asyncio.run(top(watch))
