"""The commands. Each imports what it needs when it runs, so that ``--help`` is fast."""
# ruff: noqa: PLC0415

import asyncio
import io
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from headrace import api_keys as keys
from shared.garbage import hold_garbage_collector
from shared.settings import Settings, SettingsError, check_exposure, load_settings
from shared.version import VERSION

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # a traceback with local variables shows keys and prompts
)

MAKE_A_SECRET = "\n".join(
    (
        "HEADRACE_SECRET is not set. It signs tickets, and every gateway needs the same one, of at least 32",
        "characters. Make one with",
        "  openssl rand -hex 32",
        "or",
        '  python3 -c "import secrets; print(secrets.token_hex(32))"',
        "(`headrace up` makes and keeps one by itself.)",
    )
)

app.add_typer(keys.app, name="keys")

Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: HEADRACE_HOST or 127.0.0.1]")]


def _presentable(key: str | None) -> str | None:
    if key is not None and not (key.isascii() and key.isprintable()):
        raise typer.BadParameter("has what no key has: a line break, or a letter beyond ASCII")  # and is not repeated
    return key


Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="[default: HEADRACE_PORT or 8000]")]


def _print_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"headrace {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    *,
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A resumable streaming gateway for LLM chat."""
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")  # a terminal that lacks a letter is no reason to stop


@app.command()
def up(
    *,
    host: Host = None,
    port: Port = None,
    gateways: Annotated[int, typer.Option(min=1, help="Gateway i listens on PORT + i, from 0.")] = 1,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    data_dir: Annotated[
        Path, typer.Option(envvar="HEADRACE_DATA_DIR", help="Where the broker keeps streams, and the secret.")
    ] = Path(".headrace"),
) -> None:
    """Everything on one machine: a broker (unless HEADRACE_REDIS_URL names one), gateways and workers."""
    settings = _exposed(_settings(host=host, port=port))
    from headrace.up import Plan, UpError
    from headrace.up import up as run

    plan = Plan(settings=settings, gateways=gateways, workers=workers, data_dir=data_dir)
    try:
        code = asyncio.run(run(plan))
    except UpError as error:
        _fail(str(error), code=1)
    raise typer.Exit(code)


@app.command()
def gateway(*, host: Host = None, port: Port = None) -> None:
    """One gateway process, for a Procfile or a container."""
    settings = _exposed(_settings(host=host, port=port))
    if settings.secret is None:
        _fail(MAKE_A_SECRET, code=2)
    hold_garbage_collector()
    from gateway.main import run

    run(settings)


@app.command()
def worker() -> None:
    """One worker process, for a Procfile or a container."""
    settings = _settings()
    hold_garbage_collector()
    from workers.main import run

    run(settings)


@app.command()
def chat(
    prompt: Annotated[str, typer.Argument(help='The question; "-" reads it from stdin.')],
    *,
    model: Annotated[str | None, typer.Option(help="As in /v1/models.  [default: demo]")] = None,
    provider: Annotated[str | None, typer.Option(help="[default: the one that offers the model]")] = None,
    url: Annotated[str, typer.Option(help="The gateway.")] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None,
        typer.Option(envvar="HEADRACE_API_KEY", callback=_presentable, help="Of a gateway that wants one."),
    ] = None,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to go on trying while nothing comes.")] = 60,
    as_json: Annotated[
        bool, typer.Option("--json", help="Ask for a JSON object, and print each value of it once it is complete.")
    ] = False,
    json_schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same, for JSON that follows the schema in this file.")
    ] = None,
) -> None:
    """Ask one question. The answer goes to stdout, everything else to stderr; Ctrl-C cancels it."""
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{url} must begin with http:// or https://", param_hint="--url")
    if provider is not None and model is None:
        raise typer.BadParameter("--provider needs --model too")
    response_format = _response_format(as_json=as_json, schema_file=json_schema)
    from headrace.chat import chat as run
    from headrace.resuming_reader import Question

    question = Question(
        url=url.rstrip("/"),
        prompt=sys.stdin.read() if prompt == "-" else prompt,
        model=model or "demo",
        provider=provider if model else "demo",
        patience_s=patience,
        key=key,
        response_format=response_format,
    )
    raise typer.Exit(asyncio.run(run(question)))


@app.command()
def top(
    *,
    url: Annotated[str, typer.Option(help="Any gateway.")] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None,
        typer.Option(
            envvar="HEADRACE_API_KEY", callback=_presentable, help="With the scope admin, where a key is wanted."
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print what there is now, and no more.")] = False,
) -> None:
    """Gateways, workers, queue and Redis, live."""
    from headrace.top import Watch, run

    raise typer.Exit(run(Watch(url.rstrip("/"), key, once)))


def _response_format(*, as_json: bool, schema_file: Path | None) -> dict[str, object] | None:
    if schema_file is None:
        return {"type": "json_object"} if as_json else None
    from headrace.schema_file import SchemaFileError, read_schema

    try:
        return read_schema(schema_file)
    except SchemaFileError as error:
        raise typer.BadParameter(str(error), param_hint="--json-schema") from error


def _settings(**options: str | int | None) -> Settings:
    """From the environment, overridden by the options that were given."""
    try:
        settings = load_settings()
    except SettingsError as error:
        _fail(str(error), code=2)
    return settings.model_copy(update={name: value for name, value in options.items() if value is not None})


def _exposed(settings: Settings) -> Settings:
    """The same, where it may be exposed to those who can reach it."""
    try:
        check_exposure(settings)
    except SettingsError as error:
        _fail(str(error), code=2)
    return settings


def _fail(message: str, *, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(code)
