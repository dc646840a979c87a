"""The command ``headrace check``: tests settings, file, secrets, Redis, the archive and every provider, and prints
the result."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from headrace import data_dir
from headrace.archive_check import check_archive
from headrace.check_rows import NOTE, OK, WRONG, Row
from headrace.data_dir import DataDirError
from headrace.hook_check import check_hooks
from headrace.provider_checks import check_providers
from headrace.table import counted, table
from shared.broker.client import connect
from shared.broker.cluster.fitness import fitness_of
from shared.broker.redis_address import safe_address
from shared.broker.retention_fit import RetentionFit, read_retention_fit
from shared.broker.trouble import Reason
from shared.configuration.configuration import Configuration
from shared.errors import BrokerUnavailable

_VARIABLES: Final = {
    "openai": "OPENAI_API_KEY, OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL",
    "ollama": "OLLAMA_API_KEY, OLLAMA_HOST",
}
_RUNNING: Final = Row(
    NOTE,
    "settings",
    "",
    "headrace up runs, perhaps with other settings than this shell's; headrace doctor examines it",
)
_NOT_RUNNING: Final = Row(
    NOTE,
    "Redis",
    "",
    "not tested: HEADRACE_REDIS_URL is not set, and headrace up, which starts its own, is not running",
)


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the command. ``ask``: send a request to one model of each provider."""

    configuration: Configuration
    data_dir: Path
    ask: bool
    as_json: bool


def run(options: Options) -> int:
    """Check and print everything. Return the exit code: 0, or 1 if something is wrong."""
    rows = asyncio.run(_rows(options))
    is_wrong = any(row.state == WRONG for row in rows)
    if options.as_json:
        print(json.dumps({"ok": not is_wrong, "checks": [asdict(row) for row in rows]}, indent=2))
    else:
        print(table([(row.state, row.name, row.key, row.detail) for row in rows]))
    return 1 if is_wrong else 0


async def _rows(options: Options) -> list[Row]:
    redis = await _redis(options)  # before the SDKs are imported, which takes longer than its timeouts allow
    archive = await check_archive(options.configuration.settings)
    return [
        *_file(options.configuration),
        *redis,
        *archive,
        *check_hooks(options.configuration.settings),
        *await check_providers(options.configuration, asks=options.ask),
    ]


def _file(configuration: Configuration) -> Iterator[Row]:
    path = configuration.settings.config
    if path is None:
        yield Row(OK, "settings", "", "no file; set HEADRACE_CONFIG or --config for several providers of one kind")
        return
    document = configuration.document
    counts = (
        counted(len(document.providers), "provider"),
        counted(len(document.models), "alias", "aliases"),
        counted(len(document.prices), "price"),
    )
    yield Row(OK, str(path), "", f"{', '.join(counts)}; hash {configuration.hash}")
    for name in configuration.replaced:
        variables = _VARIABLES.get(name)
        detail = f"[providers.{name}] replaces the short form"
        yield Row(NOTE, name, "", f"{detail}; {variables} have no effect" if variables else detail)


async def _redis(options: Options) -> list[Row]:
    settings = options.configuration.settings
    url = settings.redis_url
    is_own = "redis_url" not in settings.model_fields_set
    if is_own:
        try:
            found = data_dir.broker_url(options.data_dir)
        except DataDirError as error:
            return [Row(WRONG, "Redis", "", str(error))]
        if found is None:
            return [_NOT_RUNNING]
        url = found
    client = connect(url)
    try:
        fitness = fitness_of(client)
        await fitness.check()
        fit = await read_retention_fit(client, settings.retention_s)
    except BrokerUnavailable as error:
        is_stopped = is_own and error.reason == Reason.REFUSED
        return [_NOT_RUNNING if is_stopped else Row(WRONG, "Redis", "", error.detail)]
    finally:
        await client.aclose()
    rows = [Row(OK, "Redis", "", "; ".join((safe_address(url), *fitness.warnings))), _memory(fit)]
    return [*rows, _RUNNING] if is_own else rows


def _memory(fit: RetentionFit | None) -> Row:
    if fit is None:
        return Row(NOTE, "memory", "", "no limit; set maxmemory of Redis below the machine's memory")
    return Row(NOTE, "memory", "", f"{fit}: {fit.advice}") if fit.is_small else Row(OK, "memory", "", str(fit))
