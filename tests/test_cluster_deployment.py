"""Headrace on a cluster, as deploy/compose/cluster.yml and the Kubernetes manifests describe it. The tests use no
containers: the installed programs run."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from tests.broker_cluster import ENGINES, Cluster, until
from tests.deployment import (
    COMPOSE_CLUSTER,
    Described,
    Running,
    compose_file,
    compose_services,
    kubernetes_objects,
    kubernetes_pod,
    kubernetes_secrets,
    merged_files,
    node_on_port,
    rendered_objects,
    with_addresses,
)
from tests.ports import free_port
from tests.system import REPOSITORY
from tests.test_deployment import ENVIRONMENT, QUICK, answer_of
from tests.test_deployment_security import check_rights
from tests.test_redis_troubles import documented_rights
from tests.test_redis_urls import make_certificate

CLUSTER_ENVIRONMENT: Final = ENVIRONMENT | {"REDIS_CLUSTER_PASSWORD": "fedcba9876543210"}
NODES: Final = ("redis", *(f"redis-{number}" for number in range(2, 7)))
#: Makes the cluster.
INIT: Final = "redis-cluster"
CREATION_S: Final = 120


def cluster_services() -> dict[str, Described]:
    return compose_services(CLUSTER_ENVIRONMENT, COMPOSE_CLUSTER)


def cluster_file() -> dict[str, Any]:
    return merged_files(CLUSTER_ENVIRONMENT, COMPOSE_CLUSTER)


def address_of(name: str) -> str:
    address: str = cluster_file()["services"][name]["networks"]["back"]["ipv4_address"]
    return address


# --- deploy/compose/cluster.yml, as processes


@dataclass(frozen=True)
class Member:
    """One line of ``CLUSTER NODES``."""

    port: int
    is_master: bool
    master: str
    slots: tuple[str, ...]


class Nodes:
    """The six servers, and the command that makes them a cluster."""

    def __init__(self, folder: Path, binary: str, change: Callable[[str], str] = str) -> None:
        services = cluster_services()
        self.folder = folder
        self.ports = {name: free_port() for name in NODES}
        self.addresses = {f"{name}:6379": f"127.0.0.1:{port}" for name, port in self.ports.items()}
        self.addresses |= {f"{address_of(name)}:6379": f"127.0.0.1:{port}" for name, port in self.ports.items()}
        self.addresses["/create-cluster.sh"] = str(REPOSITORY / "deploy" / "compose" / "create-cluster.sh")
        self.init = with_addresses(services[INIT], self.addresses)
        self.described = {}
        for name, port in self.ports.items():
            node = with_addresses(services[name], {"/data": str(folder / name)})
            node = replace(node, command=[change(word) for word in node.command])
            self.described[name] = node_on_port(node, port, free_port(), binary)
        self.running: dict[str, Running] = {}

    async def start(self, *names: str) -> None:
        for name in names:
            (self.folder / name).mkdir()
            self.running[name] = Running(self.folder / name)
            await self.running[name].start(self.described[name])
            await until(partial(self._answers, name))

    async def lose(self, name: str) -> None:
        """Kill a server and delete its data."""
        await self.running[name].lose()
        shutil.rmtree(self.folder / name)

    async def create(self) -> None:
        await Running(self.folder).ask(self.init.command, self.init.environment, CREATION_S)

    async def is_healthy(self, name: str) -> bool:
        try:
            await Running(self.folder).ask(self.described[name].health, self.described[name].environment)
        except AssertionError:
            return False
        return True

    async def run_command(self, name: str, *command: str | int, user: str = "cluster") -> Any:
        variable = "REDIS_CLUSTER_PASSWORD" if user == "cluster" else "REDIS_PASSWORD"
        password = CLUSTER_ENVIRONMENT[variable]
        async with Redis(port=self.ports[name], username=user, password=password, socket_timeout=5) as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def members(self, name: str = "redis") -> dict[str, Member]:
        """Return the nodes as one sees them, without those that failed for good."""
        text = await self.run_command(name, "CLUSTER", "NODES")
        lines = (line.split() for line in (text if isinstance(text, str) else text.decode()).splitlines())
        return {
            node: Member(int(re.findall(r":(\d+)@", address)[0]), "master" in flags, master, tuple(slots))
            for node, address, flags, master, _, _, _, _, *slots in lines
            if "fail" not in flags
        }

    async def is_master(self, name: str, seen_by: str = "redis") -> bool:
        members = await self.members(seen_by)
        return any(each.is_master for each in members.values() if each.port == self.ports[name])

    async def replica_of(self, name: str) -> str:
        members = await self.members()
        master = next(node for node, each in members.items() if each.port == self.ports[name])
        port = next(each.port for each in members.values() if each.master == master)
        return next(other for other, own in self.ports.items() if own == port)

    async def kill(self) -> None:
        for running in self.running.values():
            await running.lose()

    async def _answers(self, name: str) -> bool:
        return bool(await self.run_command(name, "PING"))


def check_whole(members: dict[str, Member]) -> None:
    """Check that there are three masters with all slots, and a replica of each."""
    masters = {node: member for node, member in members.items() if member.is_master}
    ranges = sorted(tuple(map(int, slots.split("-"))) for each in masters.values() for slots in each.slots)
    assert ranges == [(0, 5460), (5461, 10921), (10922, 16383)]
    assert sorted(each.master for each in members.values() if not each.is_master) == sorted(masters)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put ``valkey-cli`` on the PATH."""
    found = shutil.which("valkey-cli") or shutil.which("redis-cli")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("redis-cli is needed")
        pytest.skip("needs redis-cli")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-cli").symlink_to(found)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


@pytest.mark.usefixtures("programs")
async def test_the_commands_of_the_cluster_file_start_a_working_system(tmp_path: Path) -> None:
    """Runs the nodes, their init container, a gateway and a worker. The init container runs again after a failover,
    and changes nothing."""
    services = cluster_services()
    nodes = Nodes(tmp_path, ENGINES["valkey"])
    running = Running(tmp_path)
    port = free_port()
    local = {**nodes.addresses, "0.0.0.0": "127.0.0.1"}
    gateway = with_addresses(services["gateway-1"], {**local, "8000": str(port)})
    worker = with_addresses(services["worker"], {**local, "9000": str(free_port())})
    worker.environment.update(QUICK)
    try:
        await nodes.start(*NODES)
        assert not any([await nodes.is_healthy(name) for name in NODES])
        await nodes.create()
        for name in NODES:
            await until(partial(nodes.is_healthy, name))
            info = await nodes.run_command(name, "INFO", user="headrace")
            assert (info["maxmemory_policy"], info["aof_enabled"]) == ("noeviction", 1)
        await until(lambda: _is_whole(nodes))

        await running.start(worker)
        await running.start(gateway)
        await running.healthy()
        output = await running.ask(["headrace", "keys", "create", "somebody"], gateway.environment)
        headers = {"X-Api-Key": next(word for word in output.split() if word.startswith("hr-"))}
        assert await answer_of(f"http://127.0.0.1:{port}", headers)

        await nodes.run_command("redis-4", "CLUSTER", "FAILOVER", "TAKEOVER")
        await until(partial(nodes.is_master, "redis-4"))
        await until(lambda: _is_whole(nodes))
        before = await nodes.members()
        await nodes.create()
        await until(lambda: _are_members(nodes, before))  # one that is slow to answer is left out meanwhile
        assert await answer_of(f"http://127.0.0.1:{port}", headers)

        lines = "\n".join(line for each in (running, *nodes.running.values()) for line in each.command_lines())
        assert not [word for word in (*_passwords(),) if word in lines]
        await running.stop()
        await check_users(nodes)
        for each in nodes.running.values():
            await each.stop()
    finally:
        running.kill()
        await nodes.kill()


async def _is_whole(nodes: Nodes) -> bool:
    try:
        check_whole(await nodes.members())
    except AssertionError:
        return False
    return True


async def _are_members(nodes: Nodes, expected: dict[str, Member]) -> bool:
    return await nodes.members() == expected


def _passwords() -> list[str]:
    return [value for name, value in CLUSTER_ENVIRONMENT.items() if name.startswith("REDIS_")]


async def check_users(nodes: Nodes) -> None:
    """Check that the user of Headrace cannot manage the cluster, and that the other one has no key."""
    refused = {
        "headrace": ("CLUSTER MEET 127.0.0.1 1", "CLUSTER RESET", "CONFIG GET *", "KEYS *", "GET other"),
        "cluster": ("GET hr:x", "SET hr:x 1", "CONFIG GET *", "ACL LIST", "PUBLISH hr:x 1", "FLUSHALL"),
    }
    for user, commands in refused.items():
        for command in commands:
            with pytest.raises(NoPermissionError):
                await nodes.run_command("redis", *command.split(), user=user)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("engine", sorted(ENGINES))
async def test_a_cluster_that_is_half_made_or_has_lost_a_volume_is_completed(tmp_path: Path, engine: str) -> None:
    def fail_over_soon(script: str) -> str:
        return script.replace("cluster-node-timeout 5000", "cluster-node-timeout 2000")

    nodes = Nodes(tmp_path, ENGINES[engine], fail_over_soon)
    try:
        await nodes.start(*NODES)
        bus_port = re.findall(r"@(\d+)", str(await nodes.run_command("redis-2", "CLUSTER", "NODES")))[0]
        await nodes.run_command("redis", "CLUSTER", "MEET", "127.0.0.1", nodes.ports["redis-2"], bus_port)
        await nodes.run_command("redis", "CLUSTER", "ADDSLOTSRANGE", 0, 5460)
        await nodes.create()
        await until(lambda: _is_whole(nodes))

        lost = nodes.ports["redis"]
        replica = await nodes.replica_of("redis")
        await nodes.lose("redis")
        await until(partial(nodes.is_master, replica, "redis-2"))
        await nodes.start("redis")
        await nodes.create()
        await until(lambda: _is_whole(nodes))
        member = next(each for each in (await nodes.members()).values() if each.port == lost)
        assert not member.is_master
        assert await nodes.is_healthy("redis")
    finally:
        await nodes.kill()


@pytest.mark.parametrize("name", ["REDIS_PASSWORD", "REDIS_CLUSTER_PASSWORD"])
def test_a_node_does_not_start_with_a_password_that_changes_its_configuration(name: str) -> None:
    environment = CLUSTER_ENVIRONMENT | {name: "two words"}
    node = compose_services(environment, COMPOSE_CLUSTER)["redis-2"]
    run = subprocess.run(
        node.command, env={"PATH": os.environ["PATH"], **node.environment}, capture_output=True, check=False
    )
    assert run.returncode == 2
    assert f"{name}: use letters and digits only" in run.stderr.decode()


# --- deploy/compose/cluster.yml, as a file


def settings_of(described: Described) -> dict[str, str]:
    """Return the configuration that a node reads, without its users."""
    lines = described.command[-1].partition("<<END\n")[2].partition("END")[0].splitlines()
    return dict(line.split(" ", 1) for line in lines if not line.startswith("user "))


@pytest.mark.parametrize("name", NODES)
def test_every_node_has_the_settings_that_headrace_needs(name: str) -> None:
    services = cluster_services()
    settings = settings_of(services[name])
    assert services[name].command == services["redis"].command
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["cluster-require-full-coverage"] == "no"
    assert 2000 <= int(settings["cluster-node-timeout"]) <= 5000  # docs/scaling.md
    service = cluster_file()["services"][name]
    assert int(service["mem_limit"].removesuffix("g")) == 2 * int(settings["maxmemory"].removesuffix("gb"))


def test_nodes_have_volumes_and_addresses_of_their_own_and_every_process_knows_them() -> None:
    file, services = cluster_file(), cluster_services()
    volumes = {name: file["services"][name]["volumes"] for name in NODES}
    assert len({volume for of_node in volumes.values() for volume in of_node}) == len(NODES)
    assert {volume.split(":")[0] for of_node in volumes.values() for volume in of_node} <= file["volumes"].keys()

    (pool,) = file["networks"]["back"]["ipam"]["config"]
    assert file["networks"]["back"]["internal"] is True
    for name in NODES:
        assert ip_address(address_of(name)) in ip_network(pool["subnet"])
        assert ip_address(address_of(name)) not in ip_network(pool["ip_range"])  # other containers get one of those
    program, script, *addresses = services[INIT].command
    assert addresses == [f"{address_of(name)}:6379" for name in NODES]
    assert [program, script] == ["sh", "/create-cluster.sh"]
    (mount,) = file["services"][INIT]["volumes"]
    source, *target = mount.split(":")
    assert (REPOSITORY / source).is_file()
    assert target == [script, "ro"]

    hosts = ",".join(f"{name}:6379" for name in NODES)
    for name in ("gateway-1", "gateway-2", "worker"):
        url = f"redis+cluster://headrace:{CLUSTER_ENVIRONMENT['REDIS_PASSWORD']}@{hosts}"
        assert services[name].environment["HEADRACE_REDIS_URL"] == url
        assert file["services"][name]["depends_on"] == {
            "redis": {"condition": "service_healthy"},
            INIT: {"condition": "service_completed_successfully"},
        }
    assert sorted(file["services"][INIT]["depends_on"]) == sorted(NODES)


@pytest.mark.parametrize("name", sorted(merged_files(CLUSTER_ENVIRONMENT, COMPOSE_CLUSTER)["services"]))
def test_every_service_of_the_cluster_file_has_as_few_rights_and_secrets_as_possible(name: str) -> None:
    service, described = cluster_file()["services"][name], cluster_services()[name]
    check_rights(service)
    assert "ports" not in service or name == "nginx"
    given = "\n".join(described.environment.values())
    assert (CLUSTER_ENVIRONMENT["REDIS_CLUSTER_PASSWORD"] in given) == (name in {*NODES, INIT})
    assert (CLUSTER_ENVIRONMENT["REDIS_PASSWORD"] in given) == (name not in {"nginx", INIT})
    assert not [word for word in _passwords() if word in "\n".join(described.command)]


def test_the_first_node_repeats_no_list_of_the_single_server() -> None:
    """Compose would append it."""
    own = compose_file(CLUSTER_ENVIRONMENT, COMPOSE_CLUSTER)["services"]["redis"]
    first = compose_file(CLUSTER_ENVIRONMENT)["services"]["redis"]
    lists = {name for name, value in first.items() if isinstance(value, list)}
    assert lists & own.keys() == {"command", "volumes"}


# --- Kubernetes


@pytest.mark.skipif("redis" not in ENGINES, reason="needs a redis-server with TLS")
async def test_pods_use_a_cluster_with_a_certificate_of_their_own_authority(tmp_path: Path) -> None:
    """Runs a gateway and a worker with the commands of their pods and the Secret of docs/deploy.md."""
    certificate, key = await asyncio.to_thread(make_certificate, tmp_path, "DNS:localhost")
    tls = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate)
    cluster = Cluster(
        tmp_path,
        *(*tls, "--tls-auth-clients", "no", "--tls-cluster", "yes", "--cluster-announce-hostname", "localhost"),
        *("--user", "headrace", "on", ">word", *documented_rights(), "+cluster|slots", "+cluster|info"),
        masters=1,
        binary=ENGINES["redis"],
        has_tls=True,
    )
    secrets = kubernetes_secrets(on_cluster=True) | {"headrace-worker": {}}
    port = free_port()
    running = Running(tmp_path)
    try:
        await cluster.start()
        addresses = {
            "node-1.example:6379,node-2.example:6379": f"localhost:{cluster.nodes[0].tls_port}",
            "PASSWORD": "word",
            "/etc/headrace-redis/ca.crt": certificate,
            "0.0.0.0": "127.0.0.1",
        }
        gateway = with_addresses(kubernetes_pod("headrace-gateway", secrets), {**addresses, "8000": str(port)})
        worker = with_addresses(kubernetes_pod("headrace-worker", secrets), {**addresses, "9000": str(free_port())})
        worker.environment.update(QUICK)
        assert gateway.environment["HEADRACE_REDIS_URL"].startswith("rediss+cluster://headrace:word@localhost:")
        await running.start(worker)
        await running.start(gateway)
        await running.healthy()
        output = await running.ask(["headrace", "keys", "create", "somebody"], gateway.environment)
        headers = {"X-Api-Key": next(word for word in output.split() if word.startswith("hr-"))}
        assert await answer_of(f"http://127.0.0.1:{port}", headers)
        await running.stop()
    finally:
        running.kill()
        await cluster.stop()


@pytest.mark.parametrize("name", ["headrace-gateway", "headrace-worker"])
def test_pods_have_the_authority_of_a_cluster_if_its_config_map_exists(name: str) -> None:
    pod = kubernetes_objects()[f"Deployment {name}"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    mounts = {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}
    url = kubernetes_secrets(on_cluster=True)["headrace"]["HEADRACE_REDIS_URL"]
    path = Path(url.partition("?ssl_ca_certs=")[2])
    source = mounts[path.parent.as_posix()]["configMap"]
    assert source["optional"] is True
    documented = (REPOSITORY / "docs" / "deploy.md").read_text()
    assert f"kubectl create configmap {source['name']} --from-file={path.name}" in documented


def test_the_documented_command_applies_everything_but_the_redis_of_the_manifests() -> None:
    documented = (REPOSITORY / "docs" / "deploy.md").read_text()
    (folder,) = re.findall(r"(?m)^kubectl apply -k (deploy/k8s/overlays/redis-cluster)$", documented)
    rendered = rendered_objects(REPOSITORY / folder)
    assert "NetworkPolicy headrace-cluster-clients" in rendered
    assert not {"StatefulSet headrace-redis", "Service headrace-redis"} & rendered.keys()
