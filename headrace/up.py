"""The command ``headrace up``: broker, gateways and workers on one machine, under one supervisor."""

import asyncio
import os
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from headrace import data_dir
from headrace.banner import banner
from headrace.child import ChildSpec
from headrace.child_environments import of_gateway, of_worker
from headrace.console import Console
from headrace.data_dir import DataDirError
from headrace.embedded_broker import BrokerError, EmbeddedBroker, embedded_broker
from headrace.provider_problems import read_problems
from headrace.readiness import wait_ready
from headrace.supervisor import Supervisor
from shared.configuration.configuration import Configuration
from shared.exit_codes import CONFIGURATION_ERROR
from shared.service_manager import READY, VARIABLES, notify, signs_of_life
from shared.settings import Settings

#: The variable of prometheus-client, which is not imported here because that is slow.
MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
LAST_PORT = 65_535
#: Default drain. On one's own machine, Ctrl-C should not take half a minute.
DRAIN_S = 8.0
#: From the end of the drain to SIGKILL.
EXIT_WITHIN_S = 2.0


class UpError(Exception):
    """The start failed and nothing runs; the message has the reason."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Options of the command. Gateway i of ``gateways`` (from 0) listens on ``settings.port`` + i."""

    configuration: Configuration
    gateways: int
    workers: int
    data_dir: Path

    @property
    def settings(self) -> Settings:
        return self.configuration.settings

    @property
    def ports(self) -> range:
        return range(self.settings.port, self.settings.port + self.gateways)

    @property
    def drain_s(self) -> float:
        return self.settings.drain_s if "drain_s" in self.settings.model_fields_set else DRAIN_S


async def up(plan: Plan) -> int:
    """Run until a signal. Return the exit code: 0, 130 if a second signal killed everything, or 2 if a child
    refused its configuration.

    Raises :class:`UpError` with nothing left running.
    """
    check_ports(plan)
    console = Console(sys.stdout)
    try:
        with ExitStack() as resources:
            broker = prepare_broker(plan, resources)
            environment = child_environment(plan, broker)
            return await supervise(plan, console, broker, environment)
    except (DataDirError, BrokerError) as error:
        raise UpError(str(error)) from error


def check_ports(plan: Plan) -> None:
    """Raise :class:`UpError` if a port is unavailable."""
    if plan.settings.port == 0 or plan.ports[-1] > LAST_PORT:
        last = LAST_PORT - plan.gateways + 1
        raise UpError(f"--port {plan.settings.port}: not a port for {plan.gateways} gateway(s); use 1 to {last}")
    for port in plan.ports:
        _check_port(plan.settings.host, port)


def _check_port(host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise UpError(f"--host {host}: {error.strerror}; use an address of this machine") from error
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise UpError(f"{host} port {port}: {reason}; choose another with --port") from error


def prepare_broker(plan: Plan, resources: ExitStack) -> EmbeddedBroker | None:
    """Prepare the embedded broker. Return None if HEADRACE_REDIS_URL is set."""
    directory = data_dir.prepare(plan.data_dir)
    if "redis_url" in plan.settings.model_fields_set:
        return None
    return resources.enter_context(embedded_broker(directory))


def child_environment(plan: Plan, broker: EmbeddedBroker | None) -> dict[str, str]:
    """Return the environment of gateways and workers together."""
    directory = data_dir.prepare(plan.data_dir)
    secret = plan.settings.secret
    return {
        **{name: value for name, value in os.environ.items() if name not in VARIABLES},
        **_shared_metrics(plan, directory),
        "PYTHONUNBUFFERED": "1",
        "HEADRACE_LOG_FORMAT": plan.settings.log_format or ("text" if sys.stdout.isatty() else "json"),
        "HEADRACE_DRAIN_S": str(plan.drain_s),
        **({"HEADRACE_CONFIG": str(plan.settings.config.resolve())} if plan.settings.config else {}),
        "HEADRACE_DATA_DIR": str(directory),
        "HEADRACE_REDIS_URL": broker.redis_url if broker else plan.settings.redis_url,
        "HEADRACE_SECRET": secret.get_secret_value() if secret else data_dir.secret(directory),
    }


def _shared_metrics(plan: Plan, directory: Path) -> dict[str, str]:
    """Return the setting for metrics in a shared folder, so that each gateway's page has the sum of all processes.

    Workers cannot all have the same port. The folder starts empty, because process ids of an earlier run could match
    new ones. Its name has the port, because with HEADRACE_REDIS_URL several ``headrace up`` may share a directory.
    """
    if plan.settings.metrics_port or MULTIPROCESS_DIR in os.environ:
        return {}
    return {MULTIPROCESS_DIR: str(data_dir.empty_folder(directory, f"metrics-{plan.settings.port}"))}


async def supervise(plan: Plan, console: Console, broker: EmbeddedBroker | None, environment: dict[str, str]) -> int:
    """Run all children until a signal. Return the exit code."""
    supervisor = Supervisor(console, stop_within_s=plan.drain_s + EXIT_WITHIN_S)
    try:
        async with signs_of_life(), supervisor:
            if broker is not None:
                supervisor.start_broker(broker.spec())
                await broker.wait_ready()
            for spec in child_specs(plan, environment):
                supervisor.start(spec)
            await wait_ready(plan.settings.host, plan.ports, console)
            problems = await read_problems(environment["HEADRACE_REDIS_URL"], plan.configuration.providers)
            console.block(banner(plan.settings, problems))
            notify(READY)
            await asyncio.Event().wait()
    except asyncio.CancelledError:  # the first signal or a wrong configuration; by now everything has been stopped
        if supervisor.killed:
            return 130
        return CONFIGURATION_ERROR if supervisor.misconfigured else 0
    raise AssertionError("unreachable")


def child_specs(plan: Plan, environment: dict[str, str]) -> list[ChildSpec]:
    """Return the commands of all gateways and workers."""
    headrace = (sys.executable, *_module_options(), "-m", "headrace")
    gateways = [
        ChildSpec(
            name=f"gateway.{number}",
            argv=(*headrace, "gateway", "--host", plan.settings.host, "--port", str(port)),
            env=of_gateway(environment, plan.configuration.secret_variables),
        )
        for number, port in enumerate(plan.ports, start=1)
    ]
    workers = [
        ChildSpec(
            name=f"worker.{number}",
            argv=(*headrace, "worker"),
            env=of_worker(environment) | _metrics_port(plan, number),
        )
        for number in range(1, plan.workers + 1)
    ]
    return gateways + workers


def _metrics_port(plan: Plan, number: int) -> dict[str, str]:
    """Return the port setting of a worker: consecutive ports from the configured one on, or none."""
    first = plan.settings.metrics_port
    return {"HEADRACE_METRICS_PORT": str(first + number - 1)} if first else {}


def _module_options() -> tuple[str, ...]:
    """Return ``-P``, so that a ``shared/`` in the user's directory is not imported; nothing in our own checkout."""
    return () if Path.cwd() == Path(__file__).resolve().parent.parent else ("-P",)
