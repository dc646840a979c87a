"""The command ``headrace listen`` prints webhooks whose signature is right."""

import asyncio
import json
import re
import sys
from datetime import UTC, datetime

import httpx2
from standardwebhooks import Webhook

from tests.cli import ROOT, environment
from tests.webhook_receiver import SECRET

BODY = '{"type":"stream.completed","data":{"stream_id":"s1","text":"é"}}'


def signed(secret: str) -> dict[str, str]:
    now = datetime.now(UTC)
    signature = Webhook(secret).sign("evt_1", now, BODY)
    return {"webhook-id": "evt_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}


async def test_webhooks_are_printed_once_they_are_verified() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace", "listen", "--port", "0"),
        cwd=ROOT,
        env=environment(HEADRACE_WEBHOOK_SECRET=f" {SECRET} , whsec_other"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        said = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
        (url,) = re.findall(r"listening on (\S+);", said)
        async with httpx2.AsyncClient(timeout=60, trust_env=False) as client:
            forged = await client.post(url, content=BODY, headers=signed("whsec_" + "QUJD" * 10))
            assert forged.status_code == 401
            accepted = await client.post(url, content=BODY, headers=signed(SECRET))
            assert accepted.status_code == 204
        line = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert line == {"webhook-id": "evt_1", **json.loads(BODY)}
    finally:
        process.terminate()
        _, errors = await process.communicate()
    assert b"not accepted" in errors


async def test_a_port_that_is_taken_is_named() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace", "listen", "--port", str(port)),
        cwd=ROOT,
        env=environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    server.close()
    await server.wait_closed()
    assert process.returncode == 1
    assert f"port {port}: Address already in use; use another --port" in errors.decode()
