"""The conformance kit is not about Headrace: it judges reference servers of other projects too.

The outcomes are those of conformance/README.md, "What it found": a new version of a package may change them.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.reference_servers import DURABLE_STREAMS, POLLED_STREAMS, REFERENCES, RESUMABLE_STREAM, Reference, check

pytestmark = [
    pytest.mark.skipif(not os.environ.get("HEADRACE_NIGHTLY"), reason="nightly: make conformance-references"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(autouse=True)
def all_installed() -> None:
    if missing := [reference.name for reference in REFERENCES if not reference.is_installed]:
        pytest.fail(f"{', '.join(missing)}: not installed; make conformance-references does it")


@pytest.mark.parametrize("reference", [DURABLE_STREAMS, POLLED_STREAMS], ids=["sse", "polls"])
async def test_durable_streams_resumes_at_every_offset(reference: Reference, tmp_path: Path) -> None:
    found = await outcomes(reference, tmp_path, "--cuts", "200")
    assert found["failed"] == set()
    assert found["not_applicable"] - {"heartbeat", "retry"} == {
        "reset",
        "failure",
        "idempotent-submit",
        "idempotent-concurrent",
    }


async def test_resumable_stream_gives_every_live_reader_the_whole_answer(tmp_path: Path) -> None:
    found = await outcomes(RESUMABLE_STREAM, tmp_path)
    # The package waits one second for an attach: on a busy machine, `slow-reader` may fail too. Others do not apply
    # there, if the answer ends before they attach.
    assert found["failed"] - {"slow-reader"} == {"failure"}
    assert {"content-type", "double-attach", "one-ending", "cancel"} <= found["passed"]
    assert "cut-every-byte" in found["not_applicable"], "an answer that has ended cannot be read again"


async def outcomes(reference: Reference, folder: Path, *arguments: str) -> dict[str, set[str]]:
    """Return the ids of the checks by outcome."""
    report: Any = await check(reference, folder, *arguments)
    found: dict[str, set[str]] = {"passed": set(), "failed": set(), "not_applicable": set()}
    for each in report["checks"]:
        found[each["outcome"]].add(each["id"])
    return found
