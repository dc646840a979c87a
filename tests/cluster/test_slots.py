"""Hash slots are those of the server, and the tags of the buckets are even."""

import pytest

from shared.broker.cluster.slots import BUCKET_TAGS, SLOTS, slot_of
from shared.protocol.ids import BUCKETS


def test_each_bucket_has_its_own_64_slots() -> None:
    assert [slot_of(f"hr:{{{tag}}}:index") * BUCKETS // SLOTS for tag in BUCKET_TAGS] == list(range(BUCKETS))
    assert [tag[:2] for tag in BUCKET_TAGS] == [f"{bucket:02x}" for bucket in range(BUCKETS)]
    assert max(len(tag) for tag in BUCKET_TAGS) <= 5


@pytest.mark.parametrize("nodes", [3, 6, 12, 17, 24])
def test_equal_runs_of_slots_have_equal_numbers_of_buckets(nodes: int) -> None:
    per_node = [0] * nodes
    for tag in BUCKET_TAGS:
        per_node[slot_of(tag) * nodes // SLOTS] += 1
    assert max(per_node) - min(per_node) <= 2
