"""The commands. Each imports its own modules when it runs, so that ``--help`` is fast."""
# ruff: noqa: PLC0415

import asyncio
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace import api_keys, audit, usage, webhooks
from headrace.cli_options import LOCAL_URL, Config, Host, Key, Port, Url, check_key, configured, fail
from headrace.doctor.command import doctor
from headrace.webhook_secret import secret_problem
from shared.exposure import check_exposure
from shared.garbage import hold_garbage_collector
from shared.hangup import Hangup
from shared.settings import Settings, SettingsError
from shared.version import VERSION

if TYPE_CHECKING:
    pass

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # a traceback with local variables shows keys and prompts
)
app.add_typer(api_keys.app, name="keys")
app.add_typer(webhooks.app, name="webhooks")

NO_SECRET = "\n".join(
    (
        "HEADRACE_SECRET: not set; set it to the same value for all gateways, at least 32 characters. Make one with",
        "  openssl rand -hex 32",
        "or",
        '  python3 -c "import secrets; print(secrets.token_hex(32))"',
        "It signs tickets. (`headrace up` creates and keeps one itself.)",
    )
)


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
            output.reconfigure(errors="replace")  # a terminal without some letters is no reason to stop


@app.command()
def up(
    *,
    host: Host = None,
    port: Port = None,
    config: Config = None,
    gateways: Annotated[
        int, typer.Option(min=1, help="Number of gateways; they listen on PORT, PORT + 1 and so on.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Number of workers.")] = 1,
    data_dir: Annotated[
        Path, typer.Option(envvar="HEADRACE_DATA_DIR", help="Directory for the broker's data and the secret.")
    ] = Path(".headrace"),
) -> None:
    """Run broker, gateways and workers on this machine. A broker is started unless HEADRACE_REDIS_URL is set."""
    configuration = configured(host=host, port=port, config=config)
    _stop_if(_exposure_problem(configuration.settings), secret_problem(configuration.settings))
    from headrace.up import Plan, UpError
    from headrace.up import up as run

    plan = Plan(configuration=configuration, gateways=gateways, workers=workers, data_dir=data_dir)
    try:
        code = asyncio.run(run(plan))
    except UpError as error:
        fail(str(error), code=1)
    raise typer.Exit(code)


@app.command()
def gateway(*, host: Host = None, port: Port = None, config: Config = None) -> None:
    """Run one gateway process. For a Procfile or a container. SIGHUP reads the file again."""
    hangup = Hangup()
    hold_garbage_collector()
    configuration = configured(host=host, port=port, config=config)
    settings = configuration.settings
    _stop_if(NO_SECRET if settings.secret is None else "", _exposure_problem(settings))
    from gateway.main import run

    run(configuration, hangup)


@app.command()
def worker(*, config: Config = None) -> None:
    """Run one worker process. For a Procfile or a container. SIGHUP reads the file again."""
    hangup = Hangup()
    hold_garbage_collector()
    configuration = configured(config=config)
    _stop_if(secret_problem(configuration.settings))
    from workers.main import run

    run(configuration, hangup)


@app.command()
def chat(
    prompt: Annotated[str, typer.Argument(help='The question; "-" reads it from stdin.')],
    *,
    model: Annotated[
        str | None, typer.Option(envvar="HEADRACE_MODEL", help="A model of /v1/models.  [default: demo]")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="[default: the provider that has the model]")] = None,
    url: Url = LOCAL_URL,
    key: Key = None,
    retry_timeout: Annotated[
        float,
        typer.Option(
            "--retry-timeout",
            "--patience",
            min=0,
            help="Give up after this many seconds without data; at once if nothing listens when the command starts.",
        ),
    ] = 60,
    as_json: Annotated[
        bool, typer.Option("--json", help="Request a JSON object and print each value as it completes.")
    ] = False,
    json_schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Like --json, with the JSON schema in this file.")
    ] = None,
) -> None:
    """Ask one question and print the answer. The answer goes to stdout, everything else to stderr; Ctrl-C cancels."""
    if provider is not None and model is None:
        raise typer.BadParameter("--provider needs --model too")
    response_format = _response_format(as_json=as_json, schema_file=json_schema)
    from headrace.chat import Question
    from headrace.chat import chat as run

    question = Question(
        url=url,
        prompt=sys.stdin.read() if prompt == "-" else prompt,
        model=model or "demo",
        provider=provider if model else "demo",
        retry_timeout_s=retry_timeout,
        key=key,
        response_format=response_format,
    )
    raise typer.Exit(asyncio.run(run(question)))


@app.command()
def listen(
    *, port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on, on 127.0.0.1.")] = 9000
) -> None:
    """Receive and print webhooks, for development.

    Each whose signature is right is a line of JSON.
    """
    from headrace.listen import listen as run
    from headrace.listen import secret_of_environment

    raise typer.Exit(run(port, secret_of_environment()))


@app.command()
def top(
    *,
    url: Url = LOCAL_URL,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="HEADRACE_API_KEY",
            callback=check_key,
            help="API key with the scope admin, if the gateway requires one.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the current state and exit.")] = False,
) -> None:
    """Show gateways, workers, queue and Redis, live."""
    from headrace.top import Watch, run

    raise typer.Exit(run(Watch(url, key, once)))


@app.command()
def schema() -> None:
    """Print the JSON schema of headrace.toml, for editors."""
    from shared.configuration.schema import schema_text

    typer.echo(schema_text(), nl=False)


@app.command()
def providers(*, config: Config = None, data_dir: api_keys.DataDir = Path(".headrace")) -> None:
    """List the providers with their keys (masked), limits and state."""
    configuration = configured(config=config)
    from functools import partial

    from headrace.providers import providers as run

    raise typer.Exit(api_keys.with_redis(partial(run, configuration), data_dir))


@app.command()
def reload(*, data_dir: api_keys.DataDir = Path(".headrace")) -> None:
    """Have all running processes read headrace.toml again. The exit code is 1 if one refuses it."""
    from headrace.reload import reload as run

    raise typer.Exit(api_keys.with_redis(run, data_dir))


@app.command()
def check(
    *,
    config: Config = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Send a request for one token to a model of each provider, with each key.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: api_keys.DataDir = Path(".headrace"),
) -> None:
    """Test settings, file, keys, Redis and providers. The exit code is 1 if something is wrong."""
    configuration = configured(config=config)
    from headrace.check import Options, run

    raise typer.Exit(run(Options(configuration, data_dir, ask, as_json)))


app.command()(doctor)
app.command()(usage.usage)
app.command()(audit.audit)


def _response_format(*, as_json: bool, schema_file: Path | None) -> dict[str, object] | None:
    if schema_file is None:
        return {"type": "json_object"} if as_json else None
    from headrace.schema_file import SchemaFileError, read_schema

    try:
        return read_schema(schema_file)
    except SchemaFileError as error:
        raise typer.BadParameter(str(error), param_hint="--json-schema") from error


def _exposure_problem(settings: Settings) -> str:
    try:
        check_exposure(settings)
    except SettingsError as error:
        return str(error)
    return ""


def _stop_if(*problems: str) -> None:
    if any(problems):
        fail("\n".join(filter(None, problems)), code=2)
