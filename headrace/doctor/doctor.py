"""Runs all examinations and prints the result."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.archive_check import check_archive
from headrace.check_rows import WRONG
from headrace.doctor.findings import Finding, as_json, lines_of
from headrace.doctor.gateway_calls import GatewayCalls, shown
from headrace.doctor.gateways import examine_gateway
from headrace.doctor.proxies import Extent, examine_url
from headrace.doctor.requests import follow_redirect
from headrace.doctor.system import examine_system
from headrace.table import table
from shared.configuration.configuration import Configuration
from shared.version import VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the command. ``direct``: URL of a gateway without a proxy, to compare with. ``model``: a model to
    stream with if there is no demo. ``origin``: of a page that calls the gateway. ``slow``: wait for timeouts too."""

    configuration: Configuration
    data_dir: Path
    url: str
    key: str | None
    direct: str | None
    model: str | None
    origin: str | None
    slow: bool
    as_json: bool


def run(options: Options, progress: Callable[[str], None]) -> int:
    """Examine and print everything. Return the exit code: 0, or 1 if something is wrong."""
    findings = asyncio.run(_examine(options, progress))
    is_wrong = any(finding.state == WRONG for finding in findings)
    if options.as_json:
        checks = [as_json(finding) for finding in findings]
        print(
            json.dumps(
                {"ok": not is_wrong, "version": VERSION, "url": shown(options.url), "checks": checks}, indent=2
            )
        )
    else:
        print(table([row for finding in findings for row in lines_of(finding)]))
    return 1 if is_wrong else 0


async def _examine(options: Options, progress: Callable[[str], None]) -> Sequence[Finding]:
    system = await examine_system(options.configuration, options.data_dir)
    async with GatewayCalls(options.url, options.key) as given:
        gateway, redirected = await follow_redirect(given)
        async with gateway:
            seen = await examine_gateway(gateway, asks_for_overview=not system.was_reached)
            archive = await check_archive(options.configuration.settings)
            about_archive = [Finding(row.state, "archive", row.name, row.detail) for row in archive]
            findings = [*system.findings, *about_archive, *redirected, *seen.findings]
            if not seen.is_usable:
                return findings
            addresses = [options.direct] if options.direct else system.gateway_urls
            extent = Extent(options.model, options.origin, options.slow)
            return [*findings, *await examine_url(gateway, seen, addresses, extent, progress)]
