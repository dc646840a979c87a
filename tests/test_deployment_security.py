"""The containers of the Compose files and of the Kubernetes manifests have no more rights, secrets and connections
than they need."""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from shared.settings import Settings
from tests.deployment import (
    COMPOSE_TRY,
    KUBERNETES,
    Described,
    Running,
    compose_file,
    compose_services,
    kubernetes_objects,
    kubernetes_pod,
    kubernetes_pods,
    kubernetes_secrets,
    on_port,
    trial_services,
    with_addresses,
)
from tests.network_policies import Peer, is_allowed
from tests.ports import free_port
from tests.test_deployment import ENVIRONMENT, QUICK, answer_of

#: Secrets of Headrace, and the processes that use each.
SECRETS: Final = {
    "HEADRACE_SECRET": {"gateway"},
    "HEADRACE_JWT_SECRET": {"gateway"},
    "HEADRACE_CONTENT_KEYS": {"gateway", "worker"},
    "HEADRACE_REDIS_URL": {"gateway", "worker"},
    "OPENAI_API_KEY": {"worker"},
    "ANTHROPIC_API_KEY": {"worker"},
    "OLLAMA_API_KEY": {"worker"},
    "HEADRACE_WEBHOOK_SECRET": {"worker"},
    "HEADRACE_ARCHIVE_URL": {"gateway", "worker"},
}


KUSTOMIZATION: Final = "kustomize.config.k8s.io/v1beta1"


def kind_of(described: Described) -> str:
    """Return gateway or worker, or else the program."""
    return described.command[1] if described.command[0] == "headrace" else described.command[0]


# --- rights of containers


@pytest.mark.parametrize("name", sorted(kubernetes_pods()))
def test_every_pod_has_as_few_rights_as_possible(name: str) -> None:
    pod = kubernetes_pods()[name]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["runAsGroup"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, container["name"]
        assert container["resources"]["limits"]["memory"]


def test_every_object_with_pods_is_checked() -> None:
    """The kinds of the manifests are known. A CronJob, for example, has its pod deeper."""
    kinds = {name.split()[0] for name in kubernetes_objects()}
    assert kinds == {
        *(
            "ConfigMap",
            "Deployment",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "ScaledObject",
            "Service",
            "StatefulSet",
        ),
        *("Ingress", "Gateway", "HTTPRoute"),
    }


@pytest.mark.parametrize("name", sorted(compose_file(ENVIRONMENT)["services"]))
def test_every_service_of_compose_has_as_few_rights_as_possible(name: str) -> None:
    check_rights(compose_file(ENVIRONMENT)["services"][name])


@pytest.mark.parametrize("name", sorted(trial_services({})))
def test_the_file_for_trying_needs_no_settings_and_serves_this_machine_only(name: str) -> None:
    file = compose_file({}, COMPOSE_TRY)
    check_rights(file["services"][name])
    ports = file["services"][name].get("ports", [])
    assert ports == (["127.0.0.1:8000:8000"] if name == "gateway" else [])
    assert (set(file["services"][name]["networks"]) == {"back"}) == (name == "redis")
    assert file["networks"]["back"] == {"internal": True}


def check_rights(service: dict[str, Any]) -> None:
    """Check that a service of Compose has no right that it does not need."""
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()
    user = service.get("user") or re.findall(r"(?m)^USER (\S+)$", (KUBERNETES.parent / "Dockerfile").read_text())[-1]
    assert "build" in service or "user" in service
    assert all(int(part) > 0 for part in user.split(":"))
    assert not any("docker.sock" in volume for volume in service.get("volumes", ()))


def test_only_nginx_has_ports_of_the_host_and_redis_is_on_an_internal_network_alone() -> None:
    file = compose_file(ENVIRONMENT)
    assert [name for name, service in file["services"].items() if "ports" in service] == ["nginx"]
    assert file["networks"]["back"] == {"internal": True}
    assert file["services"]["redis"]["networks"].keys() == {"back"}
    assert "back" not in file["services"]["nginx"]["networks"]


def test_the_directory_can_be_applied_to_a_cluster_without_extensions() -> None:
    text = "\n".join(path.read_text() for path in (KUBERNETES / "base").glob("*.yaml"))
    versions = set(re.findall(r"(?m)^apiVersion: (\S+)$", text))
    assert versions == {"v1", "apps/v1", "policy/v1", "networking.k8s.io/v1", KUSTOMIZATION}


@pytest.mark.parametrize("name", ["gateway-1", "gateway-2"])
def test_no_whole_private_network_is_trusted_as_a_proxy(name: str) -> None:
    for environment in (
        compose_services(ENVIRONMENT)[name].environment,
        kubernetes_pod("headrace-gateway", kubernetes_secrets()).environment,
    ):
        trusted = Settings(trusted_proxies=environment["HEADRACE_TRUSTED_PROXIES"]).trusted_proxies
        assert sum(ip_network(network).num_addresses for network in trusted) <= 16


# --- secrets


def test_the_table_has_every_secret_setting() -> None:
    secret = {
        name if isinstance(name := field.validation_alias or f"HEADRACE_{key.upper()}", str) else ""
        for key, field in Settings.model_fields.items()
        if "SecretStr" in f"{field.annotation} {field.metadata}"
    }
    assert secret == SECRETS.keys() - {"HEADRACE_REDIS_URL"}


def check_secrets(described: Described, given: dict[str, str]) -> None:
    """Check that a process gets its own secrets and, under any name, no other."""
    expected = {name for name, users in SECRETS.items() if kind_of(described) in users}
    text = "\n".join([*described.command, *described.environment.values()])
    assert {name for name, value in given.items() if name in SECRETS and value in text} == expected & given.keys()


@pytest.mark.parametrize("name", sorted(compose_services(ENVIRONMENT)))
def test_each_service_of_compose_gets_its_own_secrets_only(name: str) -> None:
    """All secrets are in .env."""
    given = ENVIRONMENT | {secret: f"the value of {secret}" for secret in SECRETS}
    described = compose_services(given)[name]
    check_secrets(described, {secret: given[secret] for secret in SECRETS.keys() - {"HEADRACE_REDIS_URL"}})
    has_password = ENVIRONMENT["REDIS_PASSWORD"] in "\n".join(described.environment.values())
    assert has_password == (name != "nginx")
    assert ENVIRONMENT["REDIS_PASSWORD"] not in "\n".join(described.command)


@pytest.mark.parametrize("name", sorted(kubernetes_pods()))
def test_each_pod_gets_its_own_secrets_only(name: str) -> None:
    secrets = kubernetes_secrets()
    secrets["headrace"] |= {"HEADRACE_CONTENT_KEYS": "the keys"}
    secrets["headrace-gateway"] |= {"HEADRACE_JWT_SECRET": "the jwt secret"}
    secrets["headrace-worker"] = {f"{name}_API_KEY": f"a {name} key" for name in ("OPENAI", "ANTHROPIC", "OLLAMA")}
    secrets["headrace-worker"]["HEADRACE_WEBHOOK_SECRET"] = "the secret of webhooks"
    described = kubernetes_pod(name, secrets)
    check_secrets(described, {key: value for secret in secrets.values() for key, value in secret.items()})
    assert secrets["headrace-redis"]["password"] not in "\n".join(described.command)


def test_the_documented_commands_create_every_secret_that_pods_refer_to() -> None:
    secrets = kubernetes_secrets()
    named = set(re.findall(r"(?:secretRef|secretKeyRef|secret):\s+(?:name|secretName): (\S+)", all_manifests()))
    assert named == secrets.keys()
    assert f":{secrets['headrace-redis']['password']}@" in secrets["headrace"]["HEADRACE_REDIS_URL"]


def all_manifests() -> str:
    return "\n".join(path.read_text() for path in KUBERNETES.rglob("*.yaml"))


async def test_a_worker_of_compose_starts_beside_gateways_that_check_tokens(tmp_path: Path) -> None:
    """The settings of authentication that .env has for gateways are no conflict for a worker without their secret."""
    settings = {"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_SECRET": "j" * 32, "HEADRACE_JWT_AUDIENCE": "us"}
    services = compose_services(ENVIRONMENT | settings | {"OPENAI_API_KEY": "sk-1"})
    code = (
        "from shared.environment import load_settings\n"
        "settings = load_settings()\n"
        "print(*(name for name in ('secret', 'jwt_secret', 'openai_api_key') if getattr(settings, name)))\n"
    )
    for name, expected in (("gateway-1", "secret jwt_secret"), ("worker", "openai_api_key")):
        output = await Running(tmp_path).ask(["python", "-c", code], services[name].environment)
        assert output.strip() == expected


# --- connections


def pod(component: str, namespace: str = "default") -> Peer:
    return Peer({"app.kubernetes.io/name": "headrace", "app.kubernetes.io/component": component}, namespace)


PEERS: Final = {
    "gateway": pod("gateway"),
    "worker": pod("worker"),
    "redis": pod("redis"),
    "keys": pod("keys"),
    "new component": pod("new"),
    "other pod": Peer({"app": "other"}),
    "look-alike": pod("gateway", "other"),
    "ingress": Peer({"app": "ingress"}, "ingress-nginx"),
    "gateway api": Peer({"app": "envoy"}, "envoy-gateway-system"),
    "prometheus": Peer({"app": "prometheus"}, "monitoring"),
    "dns": Peer({"k8s-app": "kube-dns"}, "kube-system"),
    "internet": Peer(address="203.0.113.7"),
    "internet, IPv6": Peer(address="2001:db8::7"),
    "metadata service": Peer(address="169.254.169.254"),
    "private network": Peer(address="10.96.0.1"),
    "cluster in pods": Peer({"app": "valkey"}, "valkey"),
    "cluster outside": Peer(address="192.0.2.7"),
    "redis outside": Peer(address="198.51.100.7"),
    "private network, IPv6": Peer(address="fd00::1"),
}
REACHED: Final = {
    *(("gateway api", "gateway", 8000), ("worker", "redis outside", 443)),
    *((client, "redis outside", 6379) for client in ("gateway", "worker", "keys")),
    *(("ingress", "gateway", 8000), ("prometheus", "gateway", 8000)),
    *(("prometheus", "gateway", 9000), ("prometheus", "worker", 8000), ("prometheus", "worker", 9000)),
    *((client, "redis", 6379) for client in ("gateway", "worker", "keys")),
    *((client, "dns", 53) for client in ("gateway", "worker", "keys")),
    *(("worker", "internet", 443), ("worker", "internet, IPv6", 443), ("worker", "cluster outside", 443)),
    *((client, "cluster in pods", 6379) for client in ("gateway", "worker", "keys")),
    *((client, "cluster outside", 6379) for client in ("gateway", "worker", "keys")),
}
OURS: Final = {"gateway", "worker", "redis", "keys", "new component"}


def test_the_network_policies_allow_the_needed_connections_and_no_others() -> None:
    policies = [one for name, one in kubernetes_objects().items() if name.startswith("NetworkPolicy ")]
    assert {one["metadata"].get("namespace", "default") for one in policies} == {"default"}
    ports = (22, 53, 80, 443, 6379, 8000, 9000)
    allowed = {
        (source, target, port)
        for source in PEERS
        for target in PEERS
        for port in ports
        if {source, target} & OURS and is_allowed(policies, PEERS[source], PEERS[target], port, "TCP")
    }
    assert allowed == REACHED
    assert is_allowed(policies, PEERS["worker"], PEERS["dns"], 53, "UDP")
    assert not is_allowed(policies, PEERS["worker"], PEERS["internet"], 53, "UDP")


def test_the_policies_select_the_pods_by_their_labels_and_ports() -> None:
    for name, template in kubernetes_pods().items():
        component = name.removeprefix("headrace-")
        assert template["metadata"]["labels"] == PEERS[component].labels
        (container,) = template["spec"]["containers"]
        ports = {port["containerPort"] for port in container["ports"]}
        assert ports <= {port for _, target, port in REACHED if target == component}


# --- behaviour


@dataclass(frozen=True)
class System:
    """Redis, a worker and a gateway as described by the manifests."""

    running: Running
    redis: Described
    gateway: Described
    url: str
    redis_url: str
    password: str
    redis_health: list[str]


def hardened(data: Path) -> list[str]:
    """Return a command that runs another one with a read-only root, a writable ``data``, and no capability."""
    script = (
        'mount --bind "$1" "$1" && mount -o remount,bind,ro / || exit 90\n'
        "while read -r _ target _; do\n"
        '  case $target in "$1"|/|/proc|/proc/*|/sys|/sys/*|/dev|/dev/*) ;; '
        '*) mount -o remount,bind,ro "$target" || exit 91;; esac\n'
        "done </proc/self/mounts\n"
        'cd "$1"; shift\n'
        'exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs "$@"\n'
    )
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(data)]


def can_harden(folder: Path) -> bool:
    tried = "touch inside && ! touch /tmp/headrace-outside 2>/dev/null && ! chown 1 inside 2>/dev/null"
    try:
        return subprocess.run([*hardened(folder), "sh", "-c", tried], timeout=60, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Run the commands of the manifests, if the machine allows it on a read-only root and without capabilities."""
    folder = tmp_path_factory.mktemp("data")
    secrets = kubernetes_secrets() | {"headrace-worker": {}}
    redis_port, port, metrics_port = free_port(), free_port(), free_port()
    addresses = {"headrace-redis:6379": f"127.0.0.1:{redis_port}", "0.0.0.0": "127.0.0.1", "/data": str(folder)}
    running = Running(folder, hardened(folder) if can_harden(folder) else ())
    redis = on_port(with_addresses(kubernetes_pod("headrace-redis", secrets), addresses), redis_port)
    worker = with_addresses(kubernetes_pod("headrace-worker", secrets), {**addresses, "9000": str(metrics_port)})
    worker.environment.update(QUICK)
    gateway = with_addresses(kubernetes_pod("headrace-gateway", secrets), {**addresses, "8000": str(port)})
    try:
        for described in (redis, worker, gateway):
            await running.start(described)
        await running.healthy()
        yield System(
            running,
            redis,
            gateway,
            f"http://127.0.0.1:{port}",
            gateway.environment["HEADRACE_REDIS_URL"],
            secrets["headrace-redis"]["password"],
            redis.health,
        )
        await running.stop()
    finally:
        running.kill()


async def test_the_system_works_on_a_read_only_root_without_capabilities(system: System) -> None:
    output = await system.running.ask(["headrace", "keys", "create", "somebody"], system.gateway.environment)
    headers = {"X-Api-Key": next(word for word in output.split() if word.startswith("hr-"))}
    assert await answer_of(system.url, headers)
    assert system.password not in "\n".join(system.running.command_lines())


@pytest.mark.parametrize("credentials", ["", "headrace:wrong@", ":{password}@", "default:{password}@", "other:x@"])
async def test_redis_refuses_everything_without_its_user_and_password(system: System, credentials: str) -> None:
    address = system.redis_url.partition("@")[2]
    url = f"redis://{credentials.format(password=system.password)}{address}"
    async with Redis.from_url(url) as client:
        for command in ("PING", "GET hr:x", "INFO"):
            with pytest.raises(AuthenticationError):
                await client.execute_command(*command.split())


async def test_no_key_is_listed_without_the_password(system: System) -> None:
    wrong = {"HEADRACE_REDIS_URL": system.redis_url.replace(system.password, "wrong")}
    with pytest.raises(AssertionError):
        await system.running.ask(["headrace", "keys", "list"], system.gateway.environment | wrong)
    await system.running.ask(["headrace", "keys", "list"], system.gateway.environment)


async def test_the_user_of_redis_has_its_own_keys_and_channels_only(system: System) -> None:
    refused = (
        *("FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET dir /tmp", "SHUTDOWN", "KEYS *", "ACL LIST"),
        *(
            "REPLICAOF 127.0.0.1 1",
            "MODULE LIST",
            "MONITOR",
            "CLIENT LIST",
            "SET other 1",
            "GET other",
            "PUBLISH other x",
        ),
    )
    async with Redis.from_url(system.redis_url) as client:
        assert await client.ping()
        for command in refused:
            with pytest.raises(NoPermissionError):
                await client.execute_command(*command.split())


async def test_a_gateway_without_the_password_is_not_ready(system: System, tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://{system.redis_url.partition('@')[2]}"
    command = [word.replace(system.url.rpartition(":")[2], str(port)) for word in system.gateway.command]
    gateway = replace(
        system.gateway, command=command, environment=system.gateway.environment | {"HEADRACE_REDIS_URL": url}
    )
    running = Running(tmp_path)
    try:
        await running.start(gateway)
        async with httpx2.AsyncClient(trust_env=False) as http, asyncio.timeout(60):
            while True:
                try:
                    assert (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 503
                    break
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
    finally:
        running.kill()


@pytest.mark.parametrize("password", ["", "two words", "x\nuser default on nopass +@all ~*"])
async def test_redis_does_not_start_with_a_password_that_changes_its_configuration(
    system: System, tmp_path: Path, password: str
) -> None:
    program, *words = system.redis.command
    run = await asyncio.create_subprocess_exec(
        *(program, *words), env={"PATH": os.environ["PATH"], "REDISCLI_AUTH": password}, cwd=tmp_path, stderr=-1
    )
    _, errors = await asyncio.wait_for(run.communicate(), 30)
    assert run.returncode == 2
    assert b"use letters and digits only" in errors


async def test_the_probe_of_redis_fails_with_a_wrong_password(system: System, tmp_path: Path) -> None:
    running = Running(tmp_path)
    await running.ask(system.redis_health, system.redis.environment)
    for wrong in ("", "wrong"):
        with pytest.raises(AssertionError):
            await running.ask(system.redis_health, {"REDISCLI_AUTH": wrong})
