"""A gateway whose configuration is invalid."""

import asyncio
import os
import subprocess
import sys

from tests.system import REPOSITORY, SECRET


async def gateway_refuses_to_start(environment: dict[str, str], *arguments: str, message: str) -> None:
    """Start `headrace gateway` and check that it exits at once with ``message`` and without a traceback."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "headrace", "gateway", "--port", "0", *arguments],
        env=inherited | {"HEADRACE_SECRET": SECRET} | environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode in {1, 2}
    assert message in output
    assert "Traceback" not in output
