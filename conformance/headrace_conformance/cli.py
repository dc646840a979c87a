"""Command line: ``headrace-conformance run``."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from headrace_conformance import __version__, profiles
from headrace_conformance.client import Endpoint
from headrace_conformance.lab import Lab, Options
from headrace_conformance.profile import Profile
from headrace_conformance.report import text
from headrace_conformance.runner import run_checks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Exit codes of ``run``: 0 all that applied passed, 1 a check failed, 2 wrong usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        return asyncio.run(_COMMANDS[given.command](given))
    except profiles.UnknownProfile as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130


async def _run(given: argparse.Namespace) -> int:
    profile: Profile = profiles.load(given.profile)
    options = Options(given.model, given.prompt, cuts=given.cuts, seed=given.seed)
    async with Endpoint(given.url, headers=dict(given.header), patience_s=given.patience) as endpoint:
        outcomes = await run_checks(
            Lab(endpoint, profile, options), report=lambda outcome: print(text.line(outcome), flush=True)
        )
    print(text.summary(outcomes))
    return 1 if any(outcome.name == "failed" for outcome in outcomes) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headrace-conformance", description="Conformance kit for resumable SSE.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    run = commands.add_parser("run", help="check an endpoint")
    run.add_argument("--profile", required=True, help=f"{', '.join(profiles.OURS)} or module:Class")
    run.add_argument("--url", required=True, help="address of the endpoint, such as http://127.0.0.1:8000")
    run.add_argument("--header", action="append", default=[], type=_header, metavar="'NAME: VALUE'")
    run.add_argument("--model", default="demo/demo", help="model of the requests [default: demo/demo]")
    run.add_argument("--prompt", default="Tell me a short story.", help="prompt of the requests")
    run.add_argument("--cuts", type=int, default=400, help="most places at which one check cuts [default: 400]")
    run.add_argument("--seed", type=int, default=1, help="choice of those places [default: 1]")
    run.add_argument("--patience", type=float, default=30, help="longest silence in seconds [default: 30]")
    return parser


def _header(value: str) -> tuple[str, str]:
    name, colon, content = value.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{value!r}: a header is 'Name: value'")
    return name.strip(), content.strip()


_COMMANDS: Final = {"run": _run}

if __name__ == "__main__":
    sys.exit(main())
