"""The conformance kit is built and installed elsewhere; Headrace's APIs pass it there, on two gateways."""

import asyncio
import re
from collections.abc import AsyncIterator
from html import escape
from pathlib import Path
from typing import Final

import httpx2
import pytest

import headrace_conformance.checks  # noqa: F401  (registers the checks)
from headrace_conformance.check import CHECKS
from tests.cases import upstream_cases
from tests.conformance_kit import CONFIGURATION, PROFILES, InstalledKit
from tests.ports import free_port
from tests.system import REPOSITORY, System
from tests.test_release import needs_hatchling

#: Checks that need what an API lacks.
NOT_APPLICABLE: Final = {
    "native": set(),
    "responses": {"reset"},
    "ag-ui": set(),
    "headrace-ai-sdk": {
        *("resume-after-end", "resume-live", "resume-at-last", "resume-oldest"),
        *("foreign-cursor", "foreign-cursor-live", "reset", "unknown-stream"),
    },
}
RULES: Final = REPOSITORY / "docs" / "protocol-rules.md"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> InstalledKit:
    needs_hatchling()
    return InstalledKit.build(tmp_path_factory.mktemp("kit"))


@pytest.fixture(scope="module")
async def provider_url(kit: InstalledKit) -> AsyncIterator[str]:
    """Yield the address of the kit's provider, run by its command."""
    port = free_port()
    async with kit.serving("provider", "--port", str(port)):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
async def kit_system(provider_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    configuration = CONFIGURATION.format(port=provider_url.rpartition(":")[2])
    system = System(
        tmp_path_factory.mktemp("kit-system"), providers=("kit",), configuration=configuration, provider_retries=0
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.mark.timeout(600)
async def test_headrace_conforms(kit: InstalledKit, kit_system: System, provider_url: str) -> None:
    options = ("--cuts", "80", "--header", "X-Trial: a-secret")
    found = [kit.check(kit_system, profile, provider_url, *options) for profile in PROFILES]
    for profile, finished in zip(PROFILES, await asyncio.gather(*found), strict=True):
        assert finished.code == 0, finished.output
        report = kit.report(profile)
        not_applicable = {check["id"] for check in report["checks"] if check["outcome"] == "not_applicable"}
        assert not_applicable - {"heartbeat"} == NOT_APPLICABLE[profile], finished.output  # seen in a silence only
        page = (kit.folder / f"{profile}.html").read_text()
        assert "X-Trial: …" in page
        assert "a-secret" not in page + str(report)
        assert all(check["id"] in page and escape(check["detail"]) in page for check in report["checks"])


def test_each_check_is_named_by_its_rule() -> None:
    section = RULES.read_text().partition("\n## C: ")[2].partition("\n## ")[0]
    rules = {words.split(" ")[0]: words for words in section.split("\n### ")[1:]}
    named = {rule: set(re.findall("`([^`]+)`", text.rpartition("\nCheck")[2])) for rule, text in rules.items()}
    assert list(rules) == [f"C{number + 1}" for number in range(len(rules))]
    for check in CHECKS:
        assert check.id in named[check.rule], f"{check.rule} does not name {check.id}"
    assert set().union(*named.values()) == {check.id for check in CHECKS}


async def test_each_recorded_response_is_served(provider_url: str) -> None:
    cases = upstream_cases()
    async with httpx2.AsyncClient(base_url=provider_url, trust_env=False, timeout=60) as http:
        models = {model["id"] for model in (await http.get("/v1/models")).json()["data"]}
        assert models >= {case.id for case in cases}
        for case in cases[:5]:
            path = "/v1/messages" if case.provider == "anthropic" else "/v1/chat/completions"
            reply = await http.post(path, json={"model": case.id})
            assert (reply.status_code, reply.content) == (case.status, case.body)


async def test_the_proxy_cuts_a_response(kit: InstalledKit, kit_system: System) -> None:
    port = free_port()
    cut = ("--to", kit_system.url, "--port", str(port), "--after-bytes", "40")
    async with kit.serving("proxy", *cut), httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get(f"http://127.0.0.1:{port}/healthz")


async def test_a_wrong_use_is_refused_with_its_reason(kit: InstalledKit, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for arguments, reason in (
        (("--profile", "nativ", "--url", nobody), "--profile: 'nativ' is unknown; use native, responses"),
        (("--profile", "native", "--url", nobody), f"--url {nobody}: no stream: POST /chat/stream: ConnectError"),
        (("--profile", "native", "--url", nobody, "--check", "x"), "--check: 'x' is unknown"),
        (("--profile", "json:JSONDecoder", "--url", nobody), "json:JSONDecoder is no subclass of"),
    ):
        refused = await kit.run("run", *arguments)
        assert refused.code == 2
        assert reason in refused.output
