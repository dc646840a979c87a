"""An epoch that continues the log of an earlier one (rule E13), and the place in the provider's stored answer."""

from shared.broker.client import Client, run_script
from shared.broker.replies import Code, Refused
from shared.broker.scripts import Holder
from shared.protocol.chunks import compress
from shared.protocol.ids import EventId
from shared.protocol.lifecycle import Status
from shared.protocol.lineage import Lineage
from tests.scripts.stream import DONE, ENDING, SCRIPTS, WINDOW, Stream, be_well, event, some


async def taken_over(client: Client, events: int = 3) -> tuple[Stream, Holder, Holder, Lineage]:
    """Return a stream with events of a first holder, its second holder, and the lineage of that one."""
    stream = await Stream(client).create()
    first = await stream.claim()
    await stream.append(first, 1, some(1, events))
    second = await stream.take_over()
    return stream, first, second, Lineage(f"{first.epoch}:{events}")


async def append(stream: Stream, holder: Holder, first: int, lineage: Lineage, count: int = 1) -> None:
    reply = await run_script(
        stream.client, SCRIPTS.append(holder, first, some(first, first + count - 1), lineage=lineage)
    )
    assert (reply.code, reply.last_seq) == (Code.OK, first + count - 1)


async def test_a_continuing_epoch_keeps_the_log_and_the_ids(client: Client) -> None:
    stream, first, second, lineage = await taken_over(client)
    await append(stream, second, 4, lineage)
    assert await stream.log() == some(1, 4)
    page = await stream.page()
    assert [page.id_of(seq) for seq in range(1, 5)] == [
        *(EventId(first.epoch, seq) for seq in (1, 2, 3)),
        EventId(second.epoch, 4),
    ]
    assert [at for at, _ in await stream.tail()] == [f"{first.epoch}-{n}" for n in (1, 2, 3)] + [f"{second.epoch}-4"]
    assert (await stream.append(first, 4, [event(4, "late")])).code is Code.SUPERSEDED


async def test_cursors_before_and_behind_the_takeover(client: Client) -> None:
    stream, first, second, lineage = await taken_over(client)
    await append(stream, second, 4, lineage, 2)
    for seq in (1, 2, 3):
        page = await stream.page(EventId(first.epoch, seq))
        assert (page.first, page.follows(EventId(first.epoch, seq))) == (seq + 1, True)
    beyond = EventId(first.epoch, 4)
    page = await stream.page(beyond)
    assert (page.first, page.follows(beyond)) == (1, False)
    assert (await stream.page(EventId(second.epoch, 4))).first == 5
    never_shown = EventId(second.epoch, 2)
    page = await stream.page(never_shown)
    assert (page.first, page.follows(never_shown)) == (1, False)


async def test_a_third_epoch_continues_a_continued_one(client: Client) -> None:
    stream, first, second, lineage = await taken_over(client)
    await append(stream, second, 4, lineage)
    third = await stream.take_over("w3.token")
    await append(stream, third, 5, lineage.continued(second.epoch, 4))
    page = await stream.page()
    assert [page.id_of(seq).epoch for seq in (3, 4, 5)] == [first.epoch, second.epoch, third.epoch]
    assert (await stream.page(EventId(second.epoch, 4))).first == 5


async def test_an_epoch_that_continues_nothing_empties_the_log(client: Client) -> None:
    stream, _, second, lineage = await taken_over(client)
    await append(stream, second, 4, lineage)
    third = await stream.take_over("w3.token")
    assert (await stream.append(third, 1, some(1, 1, "new"))).code is Code.OK
    assert await stream.log() == some(1, 1, "new")
    assert "lineage" not in await stream.state()


async def test_what_is_not_the_continued_log_is_a_gap(client: Client) -> None:
    stream, first, second, _ = await taken_over(client)
    for wrong in (Lineage(f"{first.epoch}:2"), Lineage(f"{first.epoch + 1}:3"), Lineage()):
        reply = await run_script(client, SCRIPTS.append(second, 4, [event(4)], lineage=wrong))
        assert (reply.code, reply.last_seq) == (Code.GAP, 0)
    assert (await stream.page()).epoch == first.epoch


async def test_the_lead_of_a_continued_log(client: Client) -> None:
    stream, first, second, lineage = await taken_over(client)
    await stream.acknowledge(EventId(first.epoch, 2))
    await append(stream, second, 4, lineage)
    assert (await stream.state())["lead"] == "2"
    position = await stream.acknowledge(EventId(first.epoch, 3))
    assert position is not None
    assert position.at == EventId(second.epoch, 4)
    assert (await stream.state())["lead"] == "3"
    await stream.acknowledge(EventId(first.epoch, 4))  # of no event in the log
    assert (await stream.state())["lead"] == "3"
    await stream.acknowledge(EventId(second.epoch, 4))
    assert (await stream.state())["lead"] == "4"


async def test_a_restore_writes_the_lineage(client: Client) -> None:
    stream, first, second, lineage = await taken_over(client)
    await append(stream, second, 4, lineage)
    await client.delete(*stream.keys)
    fields: dict[str, str | int] = {
        "principal": "p",
        "account": "an-account",
        "request": "{}",
        "created": 1,
        "grace_ms": 0,
        "attempt": 2,
    }
    fields |= {"on_disconnect": "continue", "body_hash": "ff", "provider_cursor": "here"}
    call = SCRIPTS.restore(second, some(1, 4), fields=fields, body_hash="ff", lineage=lineage)
    assert (await run_script(client, call)).code is Code.OK
    assert (await stream.page(EventId(first.epoch, 3))).first == 4
    assert [at for at, _ in await stream.tail()][-2:] == [f"{first.epoch}-3", f"{second.epoch}-4"]
    assert (await stream.state())["provider_cursor"] == "here"
    await append(stream, second, 5, lineage)


async def test_an_ending_continues_too(client: Client) -> None:
    stream, first, second, lineage = await taken_over(client)
    chunks = compress([*await stream.log(), DONE])
    reply = await run_script(client, SCRIPTS.finish(second, 4, [DONE], chunks, ENDING, lineage))
    assert (reply.code, reply.last_seq) == (Code.OK, 4)
    page = await stream.page(EventId(first.epoch, 3))
    assert (page.status, page.first, page.end) == (Status.COMPLETED, 4, EventId(second.epoch, 4))


async def test_the_place_belongs_to_the_last_event_in_the_log(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="cancel")
    holder = await stream.claim()

    async def send(first: int, last: int, cursor: str) -> tuple[Code, str | None]:
        reply = await run_script(client, SCRIPTS.append(holder, first, some(first, last), cursor=cursor))
        return reply.code, (await stream.state()).get("provider_cursor")

    assert await send(1, 2, "after 2") == (Code.OK, "after 2")
    assert await send(3, 3, "-") == (Code.OK, "-")
    # What fits into the window later waits whole, so that the place stays known.
    assert await send(4, 3 + WINDOW - 1, "later") == (Code.FULL, "-")
    assert len(await stream.log()) == 3
    # What never fits is taken in parts.
    assert await send(4, 4 + WINDOW + 1, "never") == (Code.FULL, "-")
    assert len(await stream.log()) == WINDOW
    await stream.acknowledge(EventId(holder.epoch, WINDOW))
    assert await send(WINDOW + 1, WINDOW + 1, "fast") == (Code.OK, "fast")


async def test_a_new_log_forgets_the_place_in_an_old_answer(client: Client) -> None:
    stream = await Stream(client).create()
    first = await stream.claim()
    await run_script(client, SCRIPTS.append(first, 1, some(1, 2), cursor="old"))
    second = await stream.take_over()
    assert (await stream.state())["provider_cursor"] == "old"
    await stream.append(second, 1, some(1, 1))
    assert "provider_cursor" not in await stream.state()


async def test_a_place_before_any_output(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    reply = await run_script(client, SCRIPTS.note_cursor(holder, "begun"))
    assert (reply.code, (await stream.state())["provider_cursor"]) == (Code.NOTED, "begun")
    second = await stream.take_over()
    assert (await run_script(client, SCRIPTS.note_cursor(holder, "late"))).code is Code.SUPERSEDED
    await stream.finish(second, 1, [DONE])
    assert "provider_cursor" not in await stream.state()


async def test_a_cancelled_answer_that_is_stored_waits_for_a_worker(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await run_script(client, SCRIPTS.note_cursor(holder, "begun"))
    await stream.set(lease_until=0)
    await be_well(stream)
    assert await run_script(client, SCRIPTS.cancel(stream.id, "cancelled")) is Refused.HELD
    await stream.set(provider_cursor="-")
    assert await run_script(client, SCRIPTS.cancel(stream.id, "cancelled")) is Refused.UNHELD
