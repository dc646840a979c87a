"""Reports of usage: each caller sees its own, by API key."""

from typing import Any

from tests.credentials import bearer, make_key
from tests.fakes.answer import Answer, Counts
from tests.system import System


async def test_each_caller_sees_its_own_usage(guarded: System) -> None:
    """Two keys of one owner share it; the report shows each. Another owner sees nothing of it."""
    keys = [await make_key(guarded, "payer"), await make_key(guarded, "payer"), await make_key(guarded, "other")]
    guarded.fake.play("own", Answer(deltas=["a"], usage=Counts(5, 1)))
    for key in keys[:2]:
        async with await guarded.stream("own", headers=bearer(key)) as connection:
            await connection.rest()

    async def report(key: str) -> list[dict[str, Any]]:
        answer = await guarded.http.get(f"{guarded.url}/v1/usage", params={"by": "key,model"}, headers=bearer(key))
        return list(answer.json()["usage"])

    async def both() -> list[dict[str, Any]] | None:
        groups = await report(keys[0])
        return groups if len(groups) == 2 else None

    groups = await guarded.eventually(both)
    assert {group["key_id"] for group in groups} == {key.split("-")[1] for key in keys[:2]}
    assert [group["input_tokens"] for group in groups] == [5, 5]
    assert await report(keys[2]) == []
