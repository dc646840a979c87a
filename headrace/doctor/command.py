"""The options of ``headrace doctor``."""
# ruff: noqa: PLC0415

from typing import Annotated

import typer

from headrace.api_keys import HERE, DataDir
from headrace.cli_options import LOCAL_URL, Config, Key, Url, check_url, configured


def doctor(
    *,
    url: Url = LOCAL_URL,
    key: Key = None,
    model: Annotated[
        str | None, typer.Option(help="Stream with this model, which costs a call.  [default: demo/demo, if offered]")
    ] = None,
    direct: Annotated[
        str | None,
        typer.Option(
            metavar="URL", callback=check_url, help="A gateway without the proxy, to compare with.  [default: found]"
        ),
    ] = None,
    origin: Annotated[
        str | None, typer.Option(help="Origin of a page, such as https://app.example.com: test CORS for it.")
    ] = None,
    slow: Annotated[
        bool, typer.Option("--slow", help="Test timeouts with a silent model, and send the largest body.")
    ] = False,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = HERE,
) -> None:
    """Examine a running Headrace, and the proxies before it.

    Without Redis, the findings are those that the URL and the key allow. The exit code is 1 if something is wrong.
    """
    configuration = configured(config=config)
    from headrace.doctor.doctor import Options
    from headrace.doctor.doctor import run as run_doctor
    from headrace.printer import note

    options = Options(
        configuration=configuration,
        data_dir=data_dir,
        url=url,
        key=key,
        direct=direct,
        model=model,
        origin=origin,
        slow=slow,
        as_json=as_json,
    )
    raise typer.Exit(run_doctor(options, note))
