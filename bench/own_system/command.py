"""The command: options, announcement of the cost, and the run."""

import argparse
import asyncio
import os
import random
import sys
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from bench.own_system.answer import ask
from bench.own_system.report import Report
from bench.own_system.shape import Shape
from bench.own_system.target import Target

_PROGRESS_EVERY_S: Final = 5.0
_PROMPT: Final = "Tell me a story about a mill, a lake and a channel. "
_CHARACTERS_A_TOKEN: Final = 4


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code: 0, 1 if an answer failed or was damaged, 2 if it did not begin."""
    options = _parser().parse_args(arguments)
    problem = _problem(options)
    if problem:
        print(problem, file=sys.stderr)
        return 2
    shape = Shape(options.shape, options.streams, options.rate, options.ramp, options.seconds, _most(options))
    print(_announcement(options, shape), file=sys.stderr)
    if not (options.yes or _agreed()):
        return 2
    target = Target(options.url.rstrip("/"), options.key, _body(options), options.ca)
    return asyncio.run(_run(options, shape, target))


async def _run(options: argparse.Namespace, shape: Shape, target: Target) -> int:
    report, trust = Report(), target.trust()

    async def one(number: int) -> bool:
        report.begin()
        cut = random.random() < options.cut
        answer = await ask(target, trust, number=number, cut=cut, check=not options.no_check)
        report.end(answer)
        return not answer.error

    async def show() -> None:
        while True:
            await asyncio.sleep(_PROGRESS_EVERY_S)
            print(report.progress(), file=sys.stderr, flush=True)

    progress = asyncio.create_task(show())
    with suppress(asyncio.CancelledError):  # Ctrl-C: report what there is
        await shape.run(one)
    progress.cancel()
    print(report.json() if options.json else report.text(), flush=True)
    return 0 if report.is_sound else 1


def _announcement(options: argparse.Namespace, shape: Shape) -> str:
    tokens_in = len(_body(options)["messages"][0]["content"]) // _CHARACTERS_A_TOKEN
    most_in, most_out = shape.planned * tokens_in, shape.planned * options.answer_tokens
    costs = "costs nothing" if options.model.startswith("demo/") else "COSTS MONEY unless the provider is free"
    reads = "" if options.no_check else ", and as many reads of stored answers"
    return (
        f"{urlsplit(options.url).netloc}: at most {shape.planned} requests to {options.model}{reads}; "
        f"about {most_in} input tokens and at most {most_out} output tokens. This {costs}, counts in limits and "
        "budgets of the key, and the streams stay for the retention."
    )


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print("--yes: needed, because there is no terminal to ask", file=sys.stderr)
        return False
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _body(options: argparse.Namespace) -> dict[str, Any]:
    provider, _, model = options.model.partition("/")
    times = max(1, options.prompt_characters // len(_PROMPT))
    message = {"role": "user", "content": _PROMPT * times}
    return {"provider": provider, "model": model, "max_tokens": options.answer_tokens, "messages": [message]}


def _most(options: argparse.Namespace) -> int:
    """Return the most requests: of the option, or ten for each user of a steady load."""
    if options.requests is not None:
        return int(options.requests)
    return options.streams * 10 if options.shape == "steady" else 1_000_000


def _problem(options: argparse.Namespace) -> str:
    parts = urlsplit(options.url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f"--url: {options.url} is no http:// or https:// address"
    if parts.username or parts.query:
        return "--url: has a user or a query; use --key for the API key"
    if "/" not in options.model:
        return "--model: write it as provider/model, such as demo/demo"
    if not options.key.isascii() or not options.key.isprintable():
        return "--key: API keys are printable ASCII; check it for line breaks"
    if options.ramp > options.seconds and options.shape != "burst":
        return "--ramp: longer than --seconds; the load would never be full"
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench --url URL", description="Load test of a running system (docs/load-testing.md)."
    )
    add = parser.add_argument
    add("--url", required=True, help="address of the gateway, or of the proxy before it")
    add("--key", default=os.environ.get("HEADRACE_API_KEY", ""), help="API key; better in HEADRACE_API_KEY")
    add("--ca", metavar="FILE", help="certificates to trust instead of the system's")
    add("--model", default="demo/demo", help="provider/model; the demo costs nothing (%(default)s)")
    add("--shape", choices=("steady", "arrivals", "burst"), default="steady", help="(%(default)s)")
    add("--streams", type=_positive(int), default=10, help="users, or requests of a burst (%(default)s)")
    add("--rate", type=_positive(float), default=1.0, help="arrivals a second (%(default)s)")
    add("--ramp", type=_positive(float), default=5.0, metavar="SECONDS", help="until the load is full (%(default)s)")
    add("--seconds", type=_positive(float), default=30.0, help="no request begins later (%(default)s)")
    add("--requests", type=_positive(int), help="most requests in all (10 for each user of a steady load)")
    add("--answer-tokens", type=_positive(int), default=300, help="max_tokens of each request (%(default)s)")
    add("--prompt-characters", type=_positive(int), default=200, help="(%(default)s)")
    add("--cut", type=_share, default=0.0, help="share of connections to cut in the middle and resume (%(default)s)")
    add("--no-check", action="store_true", help="do not compare each text with the stored answer")
    add("--json", action="store_true", help="print the report as JSON")
    add("--yes", action="store_true", help="do not ask")
    return parser


def _positive(kind: type[int] | type[float]) -> Any:
    def parse(text: str) -> float:
        number = kind(text)
        if not 0 < number < 1e9:
            raise argparse.ArgumentTypeError("use a number above 0")
        return number

    return parse


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("use a number from 0 to 1")
    return share
