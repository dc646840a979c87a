"""Command line: ``headrace-conformance run``, ``proxy``, ``provider``, ``checks``."""

import argparse
import asyncio
import json
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, get_args
from urllib.parse import urlsplit, urlunsplit

from headrace_conformance import __version__, profiles
from headrace_conformance.check import CHECKS, Check, Violation
from headrace_conformance.client import Endpoint, Stalled, Unreachable
from headrace_conformance.lab import Lab, Options, Script
from headrace_conformance.profile import Profile, Refused
from headrace_conformance.provider.recorded import recorded
from headrace_conformance.provider.scripts import ANSWERS
from headrace_conformance.provider.server import Provider
from headrace_conformance.proxy import Fault, FaultProxy
from headrace_conformance.report import text
from headrace_conformance.report.data import About, as_data
from headrace_conformance.report.page import as_page
from headrace_conformance.runner import in_order, run_checks


class WrongUsage(Exception):
    """An option has a value that cannot be used; the message names both."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Exit codes of ``run``: 0 all that applied passed, 1 a check failed, 2 wrong usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        return _COMMANDS[given.command](given)
    except (WrongUsage, profiles.UnknownProfile) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130


def _run(given: argparse.Namespace) -> int:
    return asyncio.run(_run_checks(given))


async def _run_checks(given: argparse.Namespace) -> int:
    profile, checks = profiles.load(given.profile), _chosen(given.check)
    began_at, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    async with Endpoint(given.url, headers=dict(given.header), patience_s=given.patience) as endpoint:
        lab = Lab(endpoint, profile, _options(given, profile))
        await _expect_a_stream(lab)
        outcomes = await run_checks(lab, checks, report=lambda outcome: print(text.line(outcome), flush=True))
    print(text.summary(outcomes))
    about = About(given.subject or profile.title, _command(given), began_at, time.monotonic() - began, __version__)
    data = as_data(profile, about, outcomes)
    if given.report is not None:
        given.report.write_text(as_page(data), "utf-8")
    if given.json is not None:
        given.json.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 1 if data["counts"]["failed"] else 0


async def _expect_a_stream(lab: Lab) -> None:
    """Raise :class:`WrongUsage` if the endpoint starts no stream: then no check says anything. A stream that does not
    end is left to the checks."""
    with suppress(Violation, Stalled, TimeoutError):
        try:
            async with asyncio.timeout(lab.options.check_timeout_s):
                await lab.whole("short")
        except Unreachable as error:
            raise WrongUsage(f"--url {lab.endpoint.url}: no stream: {error}") from error
        except Refused as error:
            body = error.body[:500].decode(errors="replace")
            raise WrongUsage(f"--url {lab.endpoint.url}: no stream: {error}\n{body}") from error


def _chosen(ids: Sequence[str]) -> list[Check]:
    known = {check.id for check in CHECKS}
    if unknown := [id for id in ids if id not in known]:
        raise WrongUsage(f"--check: {unknown[0]!r} is unknown; headrace-conformance checks lists all")
    return [check for check in in_order(CHECKS) if not ids or check.id in ids]


def _options(given: argparse.Namespace, profile: Profile) -> Options:
    scripts: dict[Script, str] = {}
    prefix = given.scripts if given.scripts is not None or not profile.makes_answers else ""
    if prefix is not None:
        scripts = {script: prefix + script for script in get_args(Script)}
    return Options(
        given.model,
        given.prompt,
        scripts,
        provider_url=given.provider,
        attach_url=given.attach_url,
        cuts=given.cuts,
        seed=given.seed,
        check_timeout_s=given.timeout,
        at_once=given.at_once,
    )


def _command(given: argparse.Namespace) -> str:
    """Return the command without credentials: values of headers, and those in addresses."""
    words = ["headrace-conformance", "run", "--profile", given.profile, "--url", _public(given.url)]
    words += ["--attach-url", _public(given.attach_url)] if given.attach_url is not None else []
    words += [word for name, _ in given.header for word in ("--header", f"{name}: …")]
    words += ["--scripts", given.scripts] if given.scripts is not None else ["--model", given.model]
    words += ["--provider", _public(given.provider)] if given.provider is not None else []
    words += [word for id in given.check for word in ("--check", id)]
    return shlex.join([*words, "--cuts", str(given.cuts), "--seed", str(given.seed)])


def _public(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _checks(given: argparse.Namespace) -> int:
    for check in in_order(CHECKS):
        print(f"{check.rule:<4} {check.id:<22} {check.title}")
    return 0


def _provider(given: argparse.Namespace) -> int:
    with Provider(host=given.host, port=given.port) as provider:
        print(f"provider at {provider.url}/v1, with {len(ANSWERS)} scripts and {len(recorded())} recorded responses")
        print(f"scripts: {', '.join(ANSWERS)}", flush=True)
        while True:
            time.sleep(3600)


def _proxy(given: argparse.Namespace) -> int:
    async def serve() -> None:
        fault = Fault(given.after_bytes, given.then, given.delay, given.bytes_per_s)
        async with FaultProxy(given.to, fault, host=given.host, port=given.port) as proxy:
            print(f"proxy at {proxy.url}, to {given.to}", flush=True)
            await proxy.serve_forever()

    asyncio.run(serve())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headrace-conformance", description="Conformance kit for resumable SSE.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_run(commands.add_parser("run", help="check an endpoint"))
    commands.add_parser("checks", help="list the checks with their rules")
    provider = commands.add_parser("provider", help="run the fake provider")
    proxy = commands.add_parser("proxy", help="run a TCP proxy that injects faults into responses")
    for listening in (provider, proxy):
        listening.add_argument("--host", default="127.0.0.1", help="address to listen on [default: 127.0.0.1]")
        listening.add_argument("--port", type=int, default=0, help="port to listen on [default: any]")
    proxy.add_argument("--to", required=True, help="URL of the server")
    proxy.add_argument("--after-bytes", type=int, help="cut each response after so many bytes")
    proxy.add_argument("--then", choices=("close", "reset", "hang"), default="close", help="how it is cut")
    proxy.add_argument("--delay", type=float, default=0, help="seconds before each piece")
    proxy.add_argument("--bytes-per-s", type=float, help="rate of each response")
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("--profile", required=True, help=f"{', '.join(profiles.OURS)} or module:Class")
    run.add_argument("--url", required=True, help="address of the endpoint, such as http://127.0.0.1:8000")
    run.add_argument("--attach-url", metavar="URL", help="another server with the same streams, for all attaches")
    run.add_argument("--header", action="append", default=[], type=_header, metavar="'NAME: VALUE'")
    run.add_argument("--model", default="demo/demo", help="model of all requests [default: demo/demo]")
    run.add_argument("--scripts", metavar="PREFIX", help="PREFIX + script is a model of the kit's provider: openai/")
    run.add_argument("--provider", metavar="URL", help="address of the kit's provider, to count its calls")
    run.add_argument("--prompt", default="Tell me a short story.", help="prompt of all requests")
    run.add_argument(
        "--check", action="append", default=[], metavar="ID", help="run this check only; may be repeated"
    )
    run.add_argument(
        "--cuts", type=_at_least_one, default=400, help="most places at which one check cuts [default: 400]"
    )
    run.add_argument("--seed", type=int, default=1, help="choice of those places [default: 1]")
    run.add_argument("--at-once", type=_at_least_one, default=4, help="checks that run at once [default: 4]")
    run.add_argument("--patience", type=float, default=30, help="longest silence in seconds [default: 30]")
    run.add_argument("--timeout", type=float, default=300, help="longest time of a check in seconds [default: 300]")
    run.add_argument("--subject", help="name and version of the endpoint, for the report")
    run.add_argument("--report", type=Path, metavar="FILE", help="write the report as a page")
    run.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")


def _header(value: str) -> tuple[str, str]:
    name, colon, content = value.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{value!r}: a header is 'Name: value'")
    return name.strip(), content.strip()


def _at_least_one(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r}: must be a whole number from 1")
    return int(value)


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "run": _run,
    "checks": _checks,
    "provider": _provider,
    "proxy": _proxy,
}
