"""Commands and environments of the files under ``deploy`` and of their neighbours, and processes that run them with
addresses of the test."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.broker import Broker
from tests.system import REPOSITORY

#: For trying.
COMPOSE_TRY: Final = REPOSITORY / "docker-compose.yml"
COMPOSE: Final = REPOSITORY / "deploy" / "compose" / "production.yml"
#: Adds headrace.toml to it.
COMPOSE_TOML: Final = REPOSITORY / "deploy" / "compose" / "headrace-toml.yml"
#: Replaces its Redis by a cluster.
COMPOSE_CLUSTER: Final = REPOSITORY / "deploy" / "compose" / "cluster.yml"
KUBERNETES: Final = REPOSITORY / "deploy" / "k8s"
#: Where ``headrace`` and ``python`` are, as in the image.
_BIN: Final = str(Path(sys.executable).parent)
_RENDERERS: Final = (("kustomize", "build"), ("kubectl", "kustomize"))
#: ``$$`` is an escaped dollar.
_VARIABLE: Final = re.compile(r"\$\$|\$\{(\w+)(?::([-?])([^}]*))?\}")
_OURS: Final = ("HEADRACE_", "OPENAI_", "ANTHROPIC_", "OLLAMA_", "PORT", "REDISCLI_AUTH", "CLUSTER_PASSWORD")
#: Compose's default time from SIGTERM to SIGKILL.
_GRACE: Final = "10s"
#: The part of docs/deploy.md whose Secret replaces the one of the part before.
_ON_CLUSTER: Final = "### On a cluster that exists already\n"


@dataclass(frozen=True)
class Described:
    """A container as described. ``health``: a command that exits with 0 once it is healthy. ``grace_s``: from SIGTERM
    to SIGKILL."""

    command: list[str]
    environment: dict[str, str]
    health: list[str]
    grace_s: float


def trial_services(environment: Mapping[str, str]) -> dict[str, Described]:
    """Return the services of docker-compose.yml, as :func:`compose_services` does."""
    services = compose_file(environment, COMPOSE_TRY)["services"]
    return {name: _described(service, environment) for name, service in services.items()}


def compose_services(environment: Mapping[str, str], *further: Path) -> dict[str, Described]:
    """Return the services with ``environment`` as their ``.env``: for the variables in the files, and for each
    service that loads it. ``further``: files that are merged into the first one."""
    services = merged_files(environment, *further)["services"]
    return {name: _described(service, environment) for name, service in services.items()}


def merged_files(environment: Mapping[str, str], *further: Path) -> dict[str, Any]:
    """Return production.yml and further files as one, as ``docker compose -f … -f …`` reads them."""
    file = compose_file(environment)
    for path in further:
        file = _merged(file, compose_file(environment, path))
    return file


def compose_file(environment: Mapping[str, str], path: Path = COMPOSE) -> dict[str, Any]:
    """Return the file with its variables replaced."""
    file: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(lambda found: _value(found, environment), path.read_text()))
    return file


def kubernetes_objects() -> dict[str, dict[str, Any]]:
    """Return the objects by kind and name: ``"Deployment headrace-worker"``."""
    paths = [path for path in sorted(KUBERNETES.rglob("*.yaml")) if path.name != "kustomization.yaml"]
    documents = [one for path in paths for one in yaml.safe_load_all(path.read_text())]
    return {f"{one['kind']} {one['metadata']['name']}": one for one in documents}


def rendered_objects(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the objects of a folder with a kustomization, by kind and name, as kustomize renders them."""
    renderer = next((words for words in _RENDERERS if shutil.which(words[0])), None)
    if renderer is None:
        pytest.skip("needs kubectl or kustomize")
    text = subprocess.run([*renderer, str(folder)], capture_output=True, text=True, check=True).stdout
    return {f"{one['kind']} {one['metadata']['name']}": one for one in yaml.safe_load_all(text)}


def kubernetes_pods() -> dict[str, dict[str, Any]]:
    """Return the pod templates by the names of their Deployments and StatefulSets."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]
        for one in kubernetes_objects().values()
        if "template" in one.get("spec", {})
    }


def kubernetes_secrets(*, on_cluster: bool = False) -> dict[str, dict[str, str]]:
    """Return the Secrets that the commands of docs/deploy.md create. ``on_cluster``: those for a Redis Cluster."""
    before, heading, rest = (REPOSITORY / "docs" / "deploy.md").read_text().partition(_ON_CLUSTER)
    assert heading
    section, _, after = rest.partition("\n### ")
    text = before + (section if on_cluster else "") + after
    commands = re.findall(r"(?m)^(?:password=|kubectl create secret ).*$", text)
    shell = 'kubectl() { echo "$@"; }; openssl() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d " \\n"; }\n'
    output = subprocess.run(["sh", "-euc", shell + "\n".join(commands)], capture_output=True, text=True, check=True)
    secrets = {}
    for line in output.stdout.splitlines():
        _, _, _, name, *literals = line.split()
        assert all(word.startswith("--from-literal=") for word in literals), line
        secrets[name] = dict(word.removeprefix("--from-literal=").split("=", 1) for word in literals)
    return secrets


def kubernetes_pod(name: str, secrets: Mapping[str, Mapping[str, str]]) -> Described:
    """Return the one container of a Deployment or StatefulSet, with those of the Secrets that it refers to."""
    objects = kubernetes_objects()
    pod = (objects.get(f"Deployment {name}") or objects[f"StatefulSet {name}"])["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if "secretRef" in source:
            environment.update(secrets.get(source["secretRef"]["name"], {}))
        else:
            environment.update(objects[f"ConfigMap {source['configMapRef']['name']}"]["data"])
    for variable in container.get("env", ()):
        if not variable.get("valueFrom", {}).get("configMapKeyRef", {}).get("optional"):
            environment[variable["name"]] = _value_of(variable, secrets)
    command = container.get("command", []) + container.get("args", [])
    return Described(command, environment, _probe(container), pod["terminationGracePeriodSeconds"])


def with_addresses(described: Described, addresses: Mapping[str, str]) -> Described:
    """Return a copy with each of ``addresses`` replaced everywhere."""

    def replaced(text: str) -> str:
        for old, new in addresses.items():
            text = re.sub(rf"(?<![\d.]){re.escape(old)}(?!\d)", new, text)
        return text

    return Described(
        [replaced(word) for word in described.command],
        {name: replaced(value) for name, value in described.environment.items()},
        [replaced(word) for word in described.health],
        described.grace_s,
    )


class Running:
    """Processes of descriptions, in a folder of their own. Foreign programs are taken from the PATH; Redis may have
    its other name. ``wrapper`` is a command that runs another one."""

    def __init__(self, folder: Path, wrapper: Sequence[str] = ()) -> None:
        self._folder = folder
        self._wrapper = wrapper
        self._processes: list[tuple[Described, asyncio.subprocess.Process]] = []

    async def start(self, described: Described) -> None:
        self._processes.append((described, await self._run(described.command, described.environment)))

    async def ask(self, command: Sequence[str], environment: Mapping[str, str], within_s: float = 60) -> str:
        """Run a command and return its output. It must exit with 0."""
        process = await self._run(list(command), environment, output=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(process.communicate(), within_s)
        assert process.returncode == 0, (command, self._logs())
        return output.decode()

    async def healthy(self) -> None:
        """Wait until all processes are healthy."""
        async with asyncio.timeout(60):
            for described, process in self._processes:
                while described.health:
                    assert process.returncode is None, (described.command, self._logs())
                    if await (await self._run(described.health, described.environment)).wait() == 0:
                        break
                    await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Send SIGTERM to every process, and check that each exits with 0 within its grace period."""
        for described, process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), described.grace_s) == 0, (described.command, self._logs())

    def command_lines(self) -> list[str]:
        """Return the arguments of every process, as other users of a machine can read them."""
        return [Path(f"/proc/{process.pid}/cmdline").read_text() for _, process in self._processes]

    def kill(self) -> None:
        for _, process in self._processes:
            if process.returncode is None:
                process.kill()

    async def lose(self) -> None:
        """Kill all processes, and wait until they are gone."""
        self.kill()
        await asyncio.gather(*(process.wait() for _, process in self._processes))

    async def _run(
        self, command: list[str], environment: Mapping[str, str], output: int | None = None
    ) -> asyncio.subprocess.Process:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        path = f"{_BIN}:{os.environ.get('PATH', '')}"
        with (self._folder / "processes.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *[*self._wrapper, _program(command[0]), *command[1:]],
                env={**inherited, **environment, "PATH": path},
                cwd=self._folder,
                stdout=output or log,
                stderr=log,
            )

    def _logs(self) -> str:
        return (self._folder / "processes.log").read_text()[-2000:]


def _described(service: Mapping[str, Any], env_file: Mapping[str, str]) -> Described:
    environment = dict(env_file) if {"path": ".env", "required": False} in service.get("env_file", ()) else {}
    # Compose substitutes variables after parsing, so an empty one stays an empty string.
    environment |= {
        name: "" if value is None else str(value) for name, value in service.get("environment", {}).items()
    }
    _, *health = service.get("healthcheck", {}).get("test", [""])
    return Described(service["command"], environment, health, _seconds(service.get("stop_grace_period", _GRACE)))


def _merged(file: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings by their keys, and volumes by their targets. Other lists than commands are never repeated here,
    since Compose appends them."""
    merged = dict(file)
    for name, value in further.items():
        old = merged.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[name] = _merged(old, value)
        elif name == "volumes" and isinstance(old, list):
            merged[name] = list({volume.split(":")[1]: volume for volume in (*old, *value)}.values())
        else:
            assert old is None or isinstance(value, str | int) or name in {"command", "test"}, name
            merged[name] = value
    return merged


def _value_of(variable: Mapping[str, Any], secrets: Mapping[str, Mapping[str, str]]) -> str:
    if "value" in variable:
        return str(variable["value"])
    reference = variable["valueFrom"]["secretKeyRef"]
    return secrets[reference["name"]][reference["key"]]


def _probe(container: Mapping[str, Any]) -> list[str]:
    """Return the readiness probe, or else the liveness probe, as a command."""
    probe = container.get("readinessProbe") or container["livenessProbe"]
    if "exec" in probe:
        command: list[str] = probe["exec"]["command"]
        return command
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    url = f"http://127.0.0.1:{ports[probe['httpGet']['port']]}{probe['httpGet']['path']}"
    return ["python", "-c", f"import urllib.request as u; u.urlopen('{url}', timeout=3)"]


def on_port(redis: Described, port: int) -> Described:
    """Return the server on this port of loopback; a container has an address of its own."""
    program, *words = redis.health
    return replace(_server_on_port(redis, port), health=[program, "-p", str(port), *words])


def node_on_port(node: Described, port: int, bus_port: int, binary: str) -> Described:
    """Return a node of a cluster on these ports of loopback, as this server."""
    health = [word.replace("valkey-cli", f"valkey-cli -p {port}") for word in node.health]
    return replace(_server_on_port(node, port, f"--cluster-port {bus_port}", binary), health=health)


def _server_on_port(redis: Described, port: int, options: str = "", binary: str | None = None) -> Described:
    shell, option, script = redis.command
    program = binary or shutil.which("valkey-server") or Broker(Path()).binary
    server = f"exec {program} - --port {port} --bind 127.0.0.1 {options}"
    return replace(redis, command=[shell, option, script.replace("exec valkey-server -", server)])


def _program(name: str) -> str:
    if name == "valkey-cli":
        return shutil.which(name) or shutil.which("redis-cli") or name
    return shutil.which(name, path=f"{_BIN}:{os.environ.get('PATH', '')}") or name


def _value(found: re.Match[str], environment: Mapping[str, str]) -> str:
    if found[0] == "$$":
        return "$"
    name, kind, rest = found.groups()
    value = environment.get(name, "")
    assert value or kind == "-", f"{name} is needed: {rest}"
    return value or rest


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))
