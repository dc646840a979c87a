"""The systemd units: systemd finds them valid and closed, and their processes notify it as Type=notify wants."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from shared.service_manager import notify
from tests.broker import Broker
from tests.ports import free_port
from tests.service_manager import INSTALLED, UNITS, Service, Unit
from tests.system import SECRET
from tests.test_deployment import QUICK, answer_of
from workers.main import _HANDOVER_S as HANDOVER_S

INSTANCES = {
    "headrace.service": "headrace.service",
    "headrace-gateway@.service": "headrace-gateway@8000.service",
    "headrace-worker@.service": "headrace-worker@9001.service",
}


def analyze(*arguments: str) -> str:
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is needed")
        pytest.skip("needs systemd-analyze")
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> list[Path]:
    """The units as for a program and a user of this machine."""
    paths = []
    for name, instance in INSTANCES.items():
        program = str(Path(sys.executable).with_name("headrace"))
        text = (UNITS / name).read_text().replace(INSTALLED, program).replace("User=headrace", "User=daemon")
        (tmp_path / name).write_text(text)
        paths.append(tmp_path / instance)
    return paths


def test_systemd_finds_nothing_wrong_with_the_units(installed: list[Path]) -> None:
    assert {path.name for path in UNITS.glob("*.service")} == INSTANCES.keys()
    assert analyze("verify", "--man=no", *map(str, installed)) == ""


def test_the_units_take_all_rights_that_the_processes_do_not_need(installed: list[Path]) -> None:
    for path in installed:
        analyze("security", "--offline=true", "--threshold=25", str(path))


def test_a_unit_that_stops_is_given_longer_than_it_needs() -> None:
    for name in INSTANCES:
        unit = Unit(name)
        drain_s = float(unit.environment["HEADRACE_DRAIN_S"])
        # headrace up gives gateways and workers the drain and two seconds, and then the broker as much.
        needed = 2 * (drain_s + 2) if name == "headrace.service" else drain_s + HANDOVER_S
        assert float(unit.value("TimeoutStopSec")) > needed, name
        assert unit.value("RestartPreventExitStatus") == "2"


async def test_gateway_and_worker_notify_systemd(tmp_path: Path) -> None:
    """The worker starts before Redis does: a start of the machine does not wait for it, and its status says so."""
    broker = Broker(tmp_path / "redis")
    port, metrics_port = free_port(), free_port()
    settings = {"HEADRACE_REDIS_URL": broker.url, "HEADRACE_SECRET": SECRET, **QUICK}
    worker = Service(Unit("headrace-worker@.service", str(metrics_port)), tmp_path / "worker")
    gateway = Service(Unit("headrace-gateway@.service", str(port)), tmp_path / "gateway")
    try:
        await worker.start({}, settings)
        await worker.has_sent("READY=1")
        await worker.heard(lambda states: any(f"STATUS=Redis at {broker.url}" in each for each in states))
        await broker.start()
        await worker.has_sent("STATUS=Redis is usable again")
        await gateway.start({}, settings)
        await gateway.has_sent("READY=1")
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:  # the socket listens already
            assert (await http.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
            assert (await http.get(f"http://127.0.0.1:{metrics_port}/metrics")).status_code == 200
        assert await answer_of(f"http://127.0.0.1:{port}")
        for service in (worker, gateway):
            await service.heard(lambda states: states.count("WATCHDOG=1") >= 3)
            assert "STOPPING=1" not in service.states
            assert await service.stop() == 0, service.log
            assert service.states.count("READY=1") == 1
            assert service.states.count("STOPPING=1") == 1
    finally:
        worker.close()
        gateway.close()
        broker.kill()


async def test_a_process_with_a_hanging_event_loop_gives_no_sign_of_life(tmp_path: Path) -> None:
    program = (
        "import asyncio, time\n"
        "from shared.service_manager import notify, signs_of_life\n"
        "async def main():\n"
        "    async with signs_of_life():\n"
        "        await asyncio.sleep(1)\n"
        "        time.sleep(2)\n"  # four intervals
        "        notify('STATUS=it hung')\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    (tmp_path / "hang.py").write_text(program)
    service = Service(Unit("headrace-worker@.service", "0"), tmp_path / "service")
    try:
        await service.start({f"{sys.executable} -m headrace worker": f"{sys.executable} {tmp_path}/hang.py"}, {})
        await service.has_sent("STATUS=it hung")
        before = service.states[: service.states.index("STATUS=it hung")]
        assert 1 <= before.count("WATCHDOG=1") <= 2
    finally:
        service.close()


def test_an_abstract_address_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"headrace-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("READY=1", "STATUS=all well")
        manager.settimeout(10)
        assert manager.recv(100) == b"READY=1\nSTATUS=all well"


def test_a_service_manager_that_is_gone_disturbs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (str(tmp_path / "nobody"), "@nobody-listens-here", "vsock:2:1", ""):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1")
