"""No token is lost in a short chaos run (`make chaos`): a few faults of different kinds, with a fixed seed."""

from pathlib import Path

import pytest

from tests.chaos.campaign import run_campaign


@pytest.mark.timeout(400)  # a stream may take its bound of two minutes; some thirty seconds are usual
@pytest.mark.parametrize("seed", [1])
async def test_nothing_is_lost_in_chaos(seed: int, tmp_path: Path) -> None:
    result = await run_campaign(tmp_path, seed=seed, streams=30, faults=6, say=print)
    assert result.violations == {}
    assert result.loud == {}
    assert result.hits.total() > 3
