"""Every command line of the Procfile, the Compose files and the Kubernetes manifests runs with its environment, and
their timeouts fit together. The tests use no containers: the installed programs run."""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import yaml

from tests.deployment import (
    COMPOSE,
    COMPOSE_TOML,
    KUBERNETES,
    Running,
    compose_file,
    compose_services,
    kubernetes_objects,
    kubernetes_pod,
    kubernetes_secrets,
    on_port,
    rendered_objects,
    trial_services,
    with_addresses,
)
from tests.nginx import CONFIG, Nginx, need_nginx
from tests.ports import free_port
from tests.system import REPOSITORY, SECRET
from workers.main import _HANDOVER_S as HANDOVER_S

ASK = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
#: Added to the drain, for the rest of the shutdown.
LEAVE_S = 5
QUICK = {"HEADRACE_DEMO_TOKENS_PER_S": "500"}
#: honcho, which kills processes only when they had more time to stop than its five seconds.
PATIENT_HONCHO = "from honcho import command, manager; manager.KILL_WAIT = 60; command.main()"


async def answer_of(url: str, headers: dict[str, str] | None = None, http: httpx2.AsyncClient | None = None) -> str:
    """Return the whole text of an answer of the demo provider."""
    async with http or httpx2.AsyncClient(trust_env=False) as client:
        for _ in range(200):
            answer = await client.post(f"{url}/chat/stream", json=ASK, headers=headers, timeout=30)
            if answer.status_code != 503:  # no worker has published its models yet
                break
            await asyncio.sleep(0.1)
    assert answer.status_code == 200, answer.text
    assert "event: done" in answer.text
    return "".join(json.loads(data)["token"] for data in re.findall(r"event: token\ndata: (.*)", answer.text))


# --- Procfile


async def test_the_procfile_starts_a_working_system(tmp_path: Path) -> None:
    if shutil.which("redis-server") is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is needed")
        pytest.skip("needs redis-server")
    port, redis_port = free_port(), free_port()
    settings = {
        "PORT": str(port),
        "REDIS_PORT": str(redis_port),
        "HEADRACE_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "HEADRACE_DATA_DIR": str(tmp_path),
        "HEADRACE_SECRET": SECRET,
        **QUICK,
    }
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    bin_folder = Path(sys.executable).parent
    with (tmp_path / "honcho.log").open("wb") as log:
        honcho = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PATIENT_HONCHO),
            *("-f", str(REPOSITORY / "Procfile"), "-e", str(tmp_path / ".env"), "start"),
            env={"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(tmp_path)},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx2.AsyncClient(trust_env=False) as http, asyncio.timeout(100):
            while True:
                try:
                    if (await http.get(f"{url}/readyz")).status_code == 200:
                        break
                except httpx2.TransportError:
                    pass
                assert honcho.returncode is None
                await asyncio.sleep(0.1)
        assert await answer_of(url)
    finally:
        honcho.send_signal(signal.SIGTERM)
        await asyncio.wait_for(honcho.wait(), 90)
    stopped = (tmp_path / "honcho.log").read_text()
    for name in ("gateway.1", "worker.1", "redis.1"):
        assert re.search(rf"{re.escape(name)} stopped", stopped), name
    assert "SIGKILL" not in stopped


# --- the Compose files

#: Nothing but the gateway itself makes them.
SECRETS = {"HEADRACE_SECRET", "REDIS_PASSWORD"}
ENVIRONMENT = {
    "HEADRACE_SECRET": SECRET,
    "REDIS_PASSWORD": "0123456789abcdef",
    "TLS_CERTIFICATE": "/certificate.pem",
    "TLS_KEY": "/key.pem",
}


async def test_the_commands_of_compose_start_a_working_system(tmp_path: Path) -> None:
    """Runs all services on this machine, with their health checks, and reads an answer through all of them with a
    key."""
    need_nginx()
    services = compose_services(ENVIRONMENT)
    assert set(services) == {"nginx", "gateway-1", "gateway-2", "worker", "redis"}
    redis_port = free_port()
    ports = {"gateway-1": free_port(), "gateway-2": free_port()}
    redis = {"redis:6379": f"127.0.0.1:{redis_port}"}
    running = Running(tmp_path)
    nginx: Nginx | None = None
    try:
        await running.start(on_port(with_addresses(services["redis"], {"/data": str(tmp_path)}), redis_port))
        for _ in range(2):
            worker = with_addresses(services["worker"], {**redis, "0.0.0.0": "127.0.0.1", "9000": str(free_port())})
            worker.environment.update(QUICK)
            await running.start(worker)
        for name, port in ports.items():
            await running.start(with_addresses(services[name], {**redis, "0.0.0.0": "127.0.0.1", "8000": str(port)}))
        await running.healthy()

        gateways = (REPOSITORY / "deploy" / "compose" / "gateways.conf").read_text()
        for address, name in (("172.30.83.11:8000", "gateway-1"), ("172.30.83.12:8000", "gateway-2")):
            assert address in gateways
            gateways = gateways.replace(address, f"127.0.0.1:{ports[name]}")
        nginx = Nginx([gateways])
        await nginx.start()
        assert services["nginx"].command == ["nginx", "-g", "daemon off;"]  # the command of tests/nginx.py
        health = [word.replace("127.0.0.1/", f"127.0.0.1:{nginx.port}/") for word in services["nginx"].health]
        await running.ask(health, {})

        environment = with_addresses(services["gateway-1"], redis).environment
        output = await running.ask(["headrace", "keys", "create", "somebody"], environment)
        key = next(word for word in output.split() if word.startswith("hr-"))
        client = httpx2.AsyncClient(trust_env=False, verify=nginx.tls)
        assert await answer_of(nginx.url, {"Authorization": f"Bearer {key}"}, client)
        await running.stop()
    finally:
        if nginx is not None:
            nginx.stop()
        running.kill()


async def test_the_file_for_trying_starts_without_settings_and_keeps_its_secret(tmp_path: Path) -> None:
    services = trial_services({})
    assert set(services) == {"gateway", "worker", "redis"}
    redis_port, port = free_port(), free_port()
    data = {"/data": str(tmp_path), "redis:6379": f"127.0.0.1:{redis_port}"}
    redis = on_port(with_addresses(services["redis"], data), redis_port)
    gateway = with_addresses(services["gateway"], {**data, "0.0.0.0": "127.0.0.1", "8000": str(port)})
    worker = replace(services["worker"], health=[])
    worker = with_addresses(worker, data)
    worker.environment.update(QUICK)
    url, secrets = f"http://127.0.0.1:{port}", set[str]()
    for _ in range(2):
        running = Running(tmp_path)
        try:
            for described in (redis, worker, gateway):
                await running.start(described)
            await running.healthy()
            assert await answer_of(url)
            secrets.add((tmp_path / "secret").read_text())
            assert gateway.environment.keys() & SECRETS == set()
            await running.stop()
        finally:
            running.kill()
    (secret,) = secrets
    assert re.fullmatch("[0-9a-f]{64}", secret)
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0


def test_compose_passes_on_each_setting_of_the_example() -> None:
    example = (REPOSITORY / ".env.example").read_text()
    names = re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)
    assert "HEADRACE_CONTENT_KEYS" in names
    own = {"HEADRACE_REDIS_URL", "HEADRACE_DRAIN_S", "HEADRACE_TRUSTED_PROXIES", "REDIS_PASSWORD"}
    services = compose_services({**ENVIRONMENT, **{name: f"the {name}" for name in names}})
    for service in ("gateway-1", "gateway-2", "worker"):
        given = services[service].environment
        missing = {name for name in names if given.get(name) != f"the {name}" and name not in own}
        of_gateways = ("HEADRACE_SECRET", "HEADRACE_AUTH")
        of_workers = ("OPENAI_", "ANTHROPIC_", "OLLAMA_", "HEADRACE_WEBHOOK_SECRET")
        of_others = of_gateways if service == "worker" else of_workers
        assert [name for name in missing if not name.startswith(of_others)] == []


def test_prometheus_scrapes_every_process_of_compose() -> None:
    services = compose_services(ENVIRONMENT)
    jobs = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {name: str(found["port"]) for job in jobs for found in job["dns_sd_configs"] for name in found["names"]}
    assert set(targets) == set(services) - {"nginx", "redis"}
    for name, port in targets.items():
        _, kind, *options = services[name].command
        environment = services[name].environment
        of_worker = ["--host", environment.get("HEADRACE_HOST"), "--port", environment.get("HEADRACE_METRICS_PORT")]
        assert (options if kind == "gateway" else of_worker) == ["--host", "0.0.0.0", "--port", port], name


def test_the_addresses_in_compose_match_nginx_and_the_gateways() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    front = {
        name: one["networks"]["front"]["ipv4_address"] for name, one in services.items() if "front" in one["networks"]
    }
    gateways = (REPOSITORY / "deploy" / "compose" / "gateways.conf").read_text()
    addresses = re.findall(r"^server ([\d.]+):8000 ", gateways, re.MULTILINE)
    assert addresses == [front["gateway-1"], front["gateway-2"]]
    for name in ("gateway-1", "gateway-2"):
        assert services[name]["environment"]["HEADRACE_TRUSTED_PROXIES"] == front["nginx"]
    mounted = {volume.split(":")[-2] for volume in services["nginx"]["volumes"]}
    files = {path.relative_to(CONFIG).as_posix() for path in CONFIG.rglob("*.conf")}
    own = {"certificate.pem", "key.pem"}
    assert mounted == {f"/etc/nginx/{name}" for name in files} | {f"/etc/nginx/headrace.d/{name}" for name in own}


# --- Kubernetes


async def test_the_commands_of_the_manifests_start_a_working_system(tmp_path: Path) -> None:
    """Runs Redis, a gateway and a worker with the commands and probes of their pods."""
    secrets = kubernetes_secrets() | {"headrace-worker": {}}  # no provider but the demo
    redis_port, port, metrics_port = free_port(), free_port(), free_port()
    addresses = {"headrace-redis:6379": f"127.0.0.1:{redis_port}", "0.0.0.0": "127.0.0.1", "/data": str(tmp_path)}
    running = Running(tmp_path)
    try:
        redis = on_port(with_addresses(kubernetes_pod("headrace-redis", secrets), addresses), redis_port)
        worker = with_addresses(kubernetes_pod("headrace-worker", secrets), {**addresses, "9000": str(metrics_port)})
        worker.environment.update(QUICK)
        gateway = with_addresses(kubernetes_pod("headrace-gateway", secrets), {**addresses, "8000": str(port)})
        for described in (redis, worker, gateway):
            await running.start(described)
        await running.healthy()
        (container,) = kubernetes_objects()["Deployment headrace-gateway"]["spec"]["template"]["spec"]["containers"]
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = container[probe]["httpGet"]["path"]
                assert (await http.get(f"http://127.0.0.1:{port}{path}")).status_code == 200
        program, _ = container["lifecycle"]["preStop"]["exec"]["command"]
        await running.ask([program, "0"], {})

        output = await running.ask(["headrace", "keys", "create", "somebody"], gateway.environment)
        headers = {"X-Api-Key": next(word for word in output.split() if word.startswith("hr-"))}
        assert await answer_of(f"http://127.0.0.1:{port}", headers)
        await running.stop()
    finally:
        running.kill()


def test_manifests_refer_to_each_other() -> None:
    objects = kubernetes_objects()
    for name in ("headrace-gateway", "headrace-worker"):
        labels = objects[f"Deployment {name}"]["spec"]["template"]["metadata"]["labels"]
        assert objects[f"Deployment {name}"]["spec"]["selector"]["matchLabels"] == labels
        assert objects[f"PodDisruptionBudget {name}"]["spec"]["selector"]["matchLabels"] == labels
    gateway = objects["Deployment headrace-gateway"]["spec"]["template"]
    assert objects["Service headrace"]["spec"]["selector"] == gateway["metadata"]["labels"]
    assert f"Deployment {objects['ScaledObject headrace-worker']['spec']['scaleTargetRef']['name']}" in objects
    redis = objects["StatefulSet headrace-redis"]
    assert objects["Service headrace-redis"]["spec"]["selector"] == redis["spec"]["template"]["metadata"]["labels"]
    assert "@headrace-redis:6379/0" in kubernetes_secrets()["headrace"]["HEADRACE_REDIS_URL"]


def test_every_overlay_is_rendered_and_adds_one_thing() -> None:
    base = rendered_objects(KUBERNETES / "base").keys()
    found = {path.name: rendered_objects(path).keys() for path in sorted((KUBERNETES / "overlays").iterdir())}
    redis = {"StatefulSet headrace-redis", "Service headrace-redis"}
    added = {name: objects - base for name, objects in found.items()}
    assert added == {
        "external-redis": {"NetworkPolicy headrace-external-redis"},
        "gateway-api": {"Gateway headrace", "HTTPRoute headrace", "NetworkPolicy headrace-gateway-api"},
        "ingress-nginx": {"Ingress headrace", "Ingress headrace-v1", "Ingress headrace-internal"},
        "keda": {"ScaledObject headrace-worker"},
        "redis-cluster": {"NetworkPolicy headrace-cluster-clients"},
    }
    assert {name for name, objects in found.items() if base - objects == redis} == {"external-redis", "redis-cluster"}


def test_the_documented_kustomization_is_rendered_with_its_image(tmp_path: Path) -> None:
    documented = (REPOSITORY / "docs" / "deploy.md").read_text()
    (text,) = re.findall(r"```yaml\n(apiVersion: kustomize.*?)```", documented, re.DOTALL)
    shutil.copytree(KUBERNETES, tmp_path / "deploy" / "k8s")
    own = tmp_path / "my-headrace"
    own.mkdir()
    (own / "kustomization.yaml").write_text(text)
    rendered = rendered_objects(own)
    assert {"Ingress headrace", "ScaledObject headrace-worker"} <= rendered.keys()
    for name in ("headrace-gateway", "headrace-worker"):
        (container,) = rendered[f"Deployment {name}"]["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "registry.example.com/headrace:0.3.0"


# --- time to leave


def test_no_process_is_killed_while_it_drains() -> None:
    """Every grace period is longer than the drain."""
    described = {
        **compose_services(ENVIRONMENT),
        **{name: kubernetes_pod(name, {}) for name in ("headrace-gateway", "headrace-worker")},
    }
    for name, one in described.items():
        if one.command[0] != "headrace":
            continue
        drain_s = float(one.environment["HEADRACE_DRAIN_S"])
        wait_s = 8.0 if name == "headrace-gateway" else 0.0
        assert one.grace_s >= wait_s + drain_s + HANDOVER_S + LEAVE_S, name
    (container,) = kubernetes_objects()["Deployment headrace-gateway"]["spec"]["template"]["spec"]["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "8"]
    config = (CONFIG / "nginx.conf").read_text()
    (shutdown_s,) = re.findall(r"^worker_shutdown_timeout (\d+)s;", config, re.MULTILINE)
    assert described["nginx"].grace_s >= float(shutdown_s) + LEAVE_S


# --- headrace.toml


def test_compose_mounts_the_file_for_all_processes_and_keys_for_workers_only() -> None:
    services = compose_file(ENVIRONMENT, COMPOSE_TOML)["services"]
    processes = {name for name, service in compose_services(ENVIRONMENT).items() if service.command[0] == "headrace"}
    assert services.keys() == processes
    mounts = {name: {each["target"]: each for each in service["volumes"]} for name, service in services.items()}
    for name, service in services.items():
        assert Path(service["environment"]["HEADRACE_CONFIG"]).parent.as_posix() in mounts[name]
        assert all(each["read_only"] and not each["bind"]["create_host_path"] for each in mounts[name].values())
    assert {name for name, targets in mounts.items() if "/run/secrets" in targets} == {"worker"}


@pytest.mark.parametrize("name", ["headrace-gateway", "headrace-worker"])
def test_pods_of_kubernetes_have_the_file_if_its_config_map_exists(name: str) -> None:
    pod = kubernetes_objects()[f"Deployment {name}"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (variable,) = (each for each in container["env"] if each["name"] == "HEADRACE_CONFIG")
    reference = variable["valueFrom"]["configMapKeyRef"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    mounts = {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}
    command = re.search(rf"create configmap {reference['name']} (.*)", (REPOSITORY / "docs/deploy.md").read_text())
    assert command is not None
    path = re.search(rf"--from-literal={reference['key']}=(\S+)", command[1])
    assert path is not None
    assert mounts[Path(path[1]).parent.as_posix()]["configMap"] == {"name": reference["name"], "optional": True}
    assert f"--from-file={Path(path[1]).name}" in command[1]
    assert reference["optional"]
    assert "HEADRACE_CONFIG" not in kubernetes_pod(name, kubernetes_secrets()).environment
    keys = mounts.pop("/run/secrets", None)
    assert (keys is None) == (name == "headrace-gateway")
    assert keys is None or keys["secret"]["optional"]
