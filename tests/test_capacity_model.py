"""Capacity model: a plan fits its limits, and one cluster ends where its desk does."""

from dataclasses import replace

import pytest

from bench.capacity_constants import load
from bench.capacity_limits import clusters, limits, share_of
from bench.capacity_model import Demand, plan

DEMAND = Demand(1_000, tokens_per_s=30, duty=1, answer_tokens=500, retention_s=600)


@pytest.mark.parametrize("streams", [1_000, 10_000, 100_000, 1_000_000])
def test_no_cluster_of_a_plan_is_beyond_a_limit(streams: int) -> None:
    c, demand = load(), replace(DEMAND, streams=streams)
    part = share_of(demand, clusters(c, demand))
    planned = plan(c, part)
    assert all(limit.share <= 1 for limit in limits(c, part, planned))
    assert planned.cores.redis <= planned.masters * c.limits.utilisation
    assert planned.cores.worker <= planned.workers * c.limits.utilisation
    assert planned.cores.gateway <= planned.gateways * c.limits.utilisation


def test_a_slower_desk_needs_more_clusters() -> None:
    c, demand = load(), replace(DEMAND, streams=100_000)
    slower = replace(c, desk=replace(c.desk, us_per_request=2 * c.desk.us_per_request))
    assert clusters(slower, demand) > clusters(c, demand)


def test_a_longer_lease_relieves_the_desk() -> None:
    c = load()
    longer = replace(c, desk=replace(c.desk, holds_per_s=c.desk.holds_per_s / 3))
    assert plan(longer, DEMAND).desk_cores < plan(c, DEMAND).desk_cores
