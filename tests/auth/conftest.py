"""One system that requires an API key or a JWT, for all tests of this folder."""

from collections.abc import AsyncIterator

import pytest

from tests.credentials import JWT_SETTINGS, boot_credentials
from tests.system import System

GUARDED = JWT_SETTINGS | {"auth": "keys,jwt", "jwt_leeway_s": 0}


@pytest.fixture(scope="package")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Two gateways that require an API key or a JWT."""
    system = System(tmp_path_factory.mktemp("guarded"), gateways=2, workers=1, providers=("openai",), **GUARDED)
    try:
        system.http.headers.update(boot_credentials())
        await system.start()
        del system.http.headers["Authorization"]
        yield system
    finally:
        await system.stop()
