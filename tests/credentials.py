"""Credentials of tests: JWTs, API keys made by the command line, and requests that carry them."""

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.system import REPOSITORY, System, ask

JWT_SECRET = "a-secret-for-tests-" * 4
AUDIENCE = "headrace-tests"
#: Settings of a gateway that accepts the tokens of :func:`token`.
JWT_SETTINGS: dict[str, Any] = {"jwt_secret": JWT_SECRET, "jwt_audience": AUDIENCE}


def token(subject: str = "alice", *, key: Any = JWT_SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """Sign a JWT that is valid for longer than all tests take: modules make some when they are imported. A claim of
    None is left out."""
    standard = {"sub": subject, "aud": AUDIENCE, "exp": time.time() + 6 * 3600}
    given = {name: value for name, value in (standard | claims).items() if value is not None}
    return jwt.encode(given, key, algorithm=algorithm)


def bearer(credentials: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credentials}"}


def boot_credentials() -> dict[str, str]:
    """Headers for the calls with which a test starts its system."""
    return bearer(token("boot"))


def run_headrace(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line against the system's Redis."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    return subprocess.run(
        [sys.executable, "-m", "headrace", *arguments],
        env=environment | {"HEADRACE_REDIS_URL": system.broker.url},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def make_key(system: System, name: str, *options: str) -> str:
    """Create an API key and return it."""
    created = await asyncio.to_thread(run_headrace, system, "keys", "create", name, *options)
    assert created.returncode == 0, created.stderr
    return created.stdout.strip()


async def start_stream(system: System, credentials: str, model: str = "echo", **body: Any) -> dict[str, str]:
    """Call `POST /chat` with a JWT or API key, and return the response."""
    response = await system.http.post(f"{system.url}/chat", json=ask(model, **body), headers=bearer(credentials))
    assert response.status_code == 202, response.text
    started: dict[str, str] = response.json()
    return started


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
