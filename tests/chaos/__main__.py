"""Command ``python -m tests.chaos --seed 1 --streams 1000 --faults 200``. Exits with 1 if a promise was broken."""

import argparse
import secrets
import sys
import tempfile
from functools import partial
from pathlib import Path

import uvloop

from tests.chaos.campaign import Result, run_campaign

say = partial(print, flush=True)
#: A run with this many faults must meet every reply of the protocol.
FULL_RUN = 200


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="replays a run as far as timing allows")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--faults", type=int, default=FULL_RUN)
    parser.add_argument("--cluster", action="store_true", help="on three masters and their replicas")
    parser.add_argument("--postgres", action="store_true", help="archive in PostgreSQL instead of a file")
    parser.add_argument(
        "--upgrades",
        action="store_true",
        help="each restart swaps a process of the previous release and one of this tree",
    )
    parser.add_argument("--folder", type=Path, default=None, help="where logs go")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    folder = options.folder or Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    folder.mkdir(parents=True, exist_ok=True)
    say(f"seed {seed}, {options.streams} streams, {options.faults} faults; logs in {folder}")
    run = run_campaign(
        folder,
        seed=seed,
        streams=options.streams,
        faults=options.faults,
        say=say,
        on_cluster=options.cluster,
        on_postgres=options.postgres,
        upgrades=options.upgrades,
    )
    result = uvloop.run(run)
    report(result)
    # A cluster loses no data in these faults, so some replies cannot occur.
    missing = result.never if options.faults >= FULL_RUN and not options.cluster else []
    if missing:
        say(f"\nnever occurred in a full run: {', '.join(missing)}")
    if result.loud:
        say("\na process logged an error: see logs above")
    failed = bool(result.violations or missing or result.loud)
    say(f"\nseed {seed}: {'FAILED' if failed else 'clean'} in {result.took_s:.0f} s")
    return int(failed)


def report(result: Result) -> None:
    hits, misses = result.hits, result.misses
    say("\nfaults that hit a live stream (and others)")
    for kind in sorted({*hits, *misses}):
        say(f"  {hits[kind]:5d} ({misses[kind]})  {kind}")
    tables = {
        "readers": result.readers,
        "endings": result.endings,
        "replies": result.answers,
        "status changes": result.changes,
        "logs": result.loud,
    }
    for title, table in tables.items():
        say(f"\n{title}")
        for name, count in sorted(table.items()):
            say(f"  {count:7d}  {name}")
    say(f"\n{result.calls} provider calls, {result.webhooks} webhooks received")
    say(f"the test process stalled {result.lags} times")
    for where, complaints in result.violations.items():
        say(f"\nVIOLATION {where}")
        for complaint in complaints:
            say(f"  {complaint}")


if __name__ == "__main__":
    sys.exit(main())
