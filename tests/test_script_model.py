"""Random walks through the protocol's rules (docs/protocol-rules.md) on a real Redis, with every fault that the
protocol must survive.

Scripts, writer, hub, feeds and subscriptions are the real ones. The test only drives them, one step at a time, on a
loop with a clock of its own. Each attempt signs its events, so that a mix of two attempts shows. A viewer is a client
that sees only frames: it shows events as they arrive and clears them at a reset.

A seed determines a walk completely; a walk that breaks a rule is reduced to the moves that matter.
``HEADRACE_MODEL_EXAMPLES=5000`` makes a soak run of it, over other walks each time; ``HEADRACE_MODEL_MUTATIONS=1``
also takes the checks out of the scripts, one by one, and demands that a walk notices.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from gateway.live import feed as feed_module
from shared.broker import declarations
from shared.broker.declarations import Script
from shared.protocol import chunks as chunks_module
from shared.protocol.lifecycle import TERMINAL, TRANSITIONS
from tests.walks.bench import EXAMPLES, MUTATIONS, PARTS, SOAK, Bench
from tests.walks.directed import DIRECTED, walk_directed
from tests.walks.search import walk_all
from tests.walks.walk import Walk


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("model"))
    yield bench
    bench.close()


@pytest.fixture(autouse=True)
def _small_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "RING", 2)
    monkeypatch.setattr(chunks_module, "CHUNK_EVENTS", 3)


@pytest.mark.timeout(600 + SOAK)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_walk_breaks_the_rules(bench: Bench, part: int) -> None:
    walks = EXAMPLES // PARTS
    first = (time.time_ns() // 1_000_000 if SOAK else 0) + part * walks
    wrong = walk_all(bench, range(first, first + walks))
    assert not wrong, wrong
    moves = {(before, after) for _, before, after in bench.observer.seen if before != after}
    table = {(before, after) for before, row in TRANSITIONS.items() for after in row.values()}
    assert moves >= {(before, after) for before, after in table if before != after and before not in TERMINAL}
    assert moves <= table


@pytest.mark.parametrize("name", DIRECTED, ids=lambda name: name.replace(" ", "-"))
def test_a_directed_walk_breaks_no_rule(bench: Bench, name: str) -> None:
    bench.run(walk_directed(bench, DIRECTED[name]))


# --- the walks notice each check that is taken out of the scripts


@dataclass(frozen=True)
class Mutation:
    """One check to remove. ``script``: the one it is made in, or all where it is in the part they share."""

    name: str
    old: str
    new: str = ""
    script: str = ""


# Not among them, see tests/scripts/: the check of the tail's top in `claim`, which matters only if Redis lost the
# state and kept the tail; that append skips logged events, since Redis refuses an id twice; that a tail with a hole
# counts as empty, since Redis loses no single event; that `pack` counts bytes and takes chunks only of its own log,
# which few walks meet; and the fast append's checks of the window and of the log's epoch, for which a walk would need
# two logs of the same length.
MISSING_CHECKS: Final = [
    Mutation(
        "an ended stream refuses",
        "if not active(s) then\n    return {'CLOSED', count",
        "if false then\n    return {'CLOSED', count",
    ),
    Mutation("a higher epoch supersedes", "current > epoch or "),
    Mutation("another holder supersedes", " or (current == epoch and s.holder ~= holder)"),
    Mutation("a lower epoch is behind", "if current < epoch then return reply('BEHIND', 0, s) end"),
    Mutation("a deleted stream refuses", "if stone then return {'CLOSED', 0, stone, 0, 0} end"),
    Mutation("no gap in append", "if first_seq > n + 1 then return reply('GAP', n, s) end", script="append"),
    Mutation("no gap in finish", "if first_seq > n + 1 then return reply('GAP', n, s) end", script="finish"),
    Mutation(
        "the log is of one epoch",
        "return log_epoch == tonumber(continued) and n == tonumber(last) and n or 0",
        "return n",
    ),
    Mutation("a new epoch empties the tail", "redis.call('DEL', LOG, TAIL)", "redis.call('DEL', LOG)", "append"),
    Mutation("a new epoch empties the log", "redis.call('DEL', LOG, TAIL)", "redis.call('DEL', TAIL)", "append"),
    Mutation("a new epoch has no chunks", "redis.call('HDEL', STATE, 'chunks')\n", "", "append"),
    Mutation("the tail is capped", "upto = math.min(upto, fits)\n", "", "append"),
    Mutation(
        "the tail of an ended stream is capped", "redis.call('XTRIM', TAIL, 'MAXLEN', '=', cap)\n", "", "finish"
    ),
    Mutation("events in chunks leave the tail", "redis.call('XTRIM', TAIL, 'MAXLEN', '=', n - last)\n", "", "pack"),
    Mutation("events leave the tail only into chunks", "push_chunks(6, #ARGV,", "tostring(6, #ARGV,", "pack"),
    Mutation("the tail keeps what follows the chunks", "'=', n - last)", "'=', n - last - 1)", "pack"),
    Mutation("the tail keeps nothing that is in chunks", "'=', n - last)", "'=', n - last + 1)", "pack"),
    Mutation("chunks follow those of the log", "before ~= last_in_chunks(s.chunks) or ", "", "pack"),
    Mutation("chunks by the holder alone", "if refusal then return refusal end\n", "", "pack"),
    Mutation("chunks expire", "redis.call('PEXPIREAT', LOG, redis.call('HGET', STATE, 'expires'))\n", "", "pack"),
    Mutation(
        "a restored log has its chunks", "push_chunks(before_chunks + 1, before_events, chunk_ends)", "", "restore"
    ),
    Mutation("a page goes on in the tail", "math.max(first, before + 1)", "math.max(first, before + 2)", "read"),
    Mutation("a page begins in the tail at its first event", "math.max(first, before + 1)", "before + 1", "read"),
    Mutation(
        "a page has the events of the tail",
        "while next_seq <= last and bytes < most_bytes do",
        "while false do",
        "read",
    ),
    Mutation("fast append: by this holder", "s[1] == holder and ", script="append"),
    Mutation("fast append: where the log ends", " and n == last_in_chunks(s[7]) + in_tail", script="append"),
    Mutation("fast append: within the cap", " and in_tail + count <= tonumber(cap)", script="append"),
    Mutation("an error of one stream is its own", "pcall(handle, i, at)", "true, handle(i, at)"),
    Mutation("each renewal has its own arguments", "10 * i - 9, 5 * i - 4", "10 * i - 9, 1", "renew"),
    Mutation("each stream has its own arguments", "at = at + 8 + ARGV[at + 7]", "at = at + 8 + 1", "append"),
    Mutation(
        "a message has the ids of its events",
        "epoch_of(first, epoch, lineage) == epoch and last or first - 1",
        "last",
    ),
    Mutation(
        "a message begins with its first event",
        "' ' .. epoch .. ' ' .. first .. sizes",
        "' ' .. epoch .. ' ' .. first + 1 .. sizes",
    ),
    Mutation(
        "no restore of an ended stream",
        "refusal[1] ~= 'BEHIND' then",
        "refusal[1] ~= 'BEHIND' and refusal[1] ~= 'CLOSED' then",
        "restore",
    ),
    Mutation(
        "no restore over a higher epoch",
        "refusal[1] ~= 'BEHIND' then",
        "refusal[1] ~= 'BEHIND' and refusal[1] ~= 'SUPERSEDED' then",
        "restore",
    ),
    Mutation(
        "no restore over the same epoch",
        "if not refusal then return reply('GAP', log_length(s, epoch, lineage), s) end",
        script="restore",
    ),
    Mutation("an epoch above the state's", "tonumber(s.epoch) + 1, ", script="claim"),
    Mutation("an epoch above the clock's", ", now - s.created)", ")", "claim"),
    Mutation("a held stream is not claimed", "if held(s) then", "if false then", "claim"),
    Mutation("an ended stream is not claimed", "if not active(s) then return {'CLOSED'} end", script="claim"),
    Mutation("the terminal state comes with the ending", "'status', status, ", "", "finish"),
    Mutation("the tail expires", "redis.call('PEXPIREAT', TAIL, redis.call('HGET', STATE, 'expires'))", "", "append"),
    Mutation("a restored stream expires", "keep_until(now + retention_ms, tonumber(tombstone_ms))", script="restore"),
    Mutation("a tombstone stays", "redis.call('SET', TOMBSTONE, 'deleted '", "tostring('deleted '", "delete"),
    Mutation("an ended stream frees its slot", "  leave_lanes(tokens)\n", "", "settle"),
    Mutation("an ended stream frees the slot of its account", "  settle(a, tokens)\n", "", "settle"),
    Mutation(
        "a settled stream reserves nothing in budgets",
        "redis.call('HINCRBY', key, field, '-'",
        "tostring('-'",
        "settle",
    ),
    Mutation(
        "a settled stream is charged to budgets",
        "redis.call('HINCRBY', key, period .. ':' .. kind,",
        "tostring(",
        "settle",
    ),
    Mutation("a settled stream leaves the desk", "  redis.call('DEL', OF)\n", "", "settle"),
    Mutation("a settled stream leaves the queue", "redis.call('ZREM', QUEUE, JOB_ID)\n", "", "settle"),
    Mutation("a settled stream waits no more", "redis.call('ZREM', WAITING, ID)\n", "", "settle"),
    Mutation("a settled stream has no job", "redis.call('DEL', JOB)\n", "", "settle"),
    Mutation("a removed stream gives its bytes back", "give_back(a, {ID})", "0", "settle"),
    Mutation(
        "a late ending does not count a removed stream",
        "if not is_late and not is_removed(a, digest) then",
        "if not is_late then",
        "settle",
    ),
    Mutation(
        "an ended stream counts its bytes", "count_stored(a, bytes, tonumber(expires))", "tostring(a)", "settle"
    ),
    Mutation("a lost batch stream is one again", "redis.call('HSET', OF, 'turn', BATCH_TEXT)", "", "hold"),
    Mutation(
        "a batch stream that lost its place is one again", "if not is_batch(turn) then return", "if 1 then return"
    ),
    Mutation("a stream that is taken is parked no more", "redis.call('ZREM', lane_key(provider, 'parked'), ID)", ""),
    Mutation("a stream that is gone is not counted again", "if refused or left", "if left", "hold"),
    Mutation("a lost stream is counted again", "if again == '0' then", "if true then", "hold"),
    Mutation("the index has a removed stream", "redis.call('ZADD', INDEX, now + 2000, ID)\n", "", "delete"),
    Mutation("the index has a dropped stream", "redis.call('ZADD', INDEX, now, ID)\n", "", "drop"),
    Mutation("an answer that is not settled is kept", "or s.owed ", "", "drop"),
    Mutation(
        "the desk is owed an ending",
        "redis.call('HSET', STATE, 'owed', tokens .. ' ' .. bytes .. ' ' .. cost)\n",
        "",
        "finish",
    ),
    Mutation("a running stream stays in the index", "(active(s) or ", "(", "paid"),
    Mutation(
        "a settled stream leaves the index",
        "elseif not s.undelivered then\n  redis.call('ZREM', INDEX, ID)\nend",
        "end",
        "paid",
    ),
    Mutation("a stream that is not archived stays in the index", "if s.unarchived then", "if false then", "paid"),
    Mutation(
        "an answer that is not archived is kept", "or s.undelivered or s.unarchived", "or s.undelivered", "drop"
    ),
    Mutation("an ending is owed to the archive", "redis.call('HSET', STATE, 'unarchived', now)", "", "finish"),
    Mutation("a stream for the archive keeps its request", "(s.follow_up or s.archive)", "s.follow_up", "finish"),
    Mutation(
        "only the ending that was read is noted",
        "if s.unarchived ~= unarchived then return 'OTHER' end",
        "",
        "archived",
    ),
    Mutation("an archived stream is noted", "redis.call('HDEL', STATE, 'unarchived')\n", "", "archived"),
    Mutation("an archived stream is settled again", "redis.call('HSET', STATE, 'owed', owed)\n", "", "archived"),
    Mutation(
        "a late settlement counts no request again", "kind == 'pending' and not known and", "false and", "settle"
    ),
    Mutation("another ending stays owed", "(s.owed or owed) ~= owed", "false", "paid"),
    Mutation("a call frees the slot before it", "leave_lanes(0)", "", "take_slot"),
    Mutation("an id is of the epoch that wrote its event", "if seq <= tonumber(last) then", "if false then"),
    Mutation(
        "a restore keeps the lineage",
        " else redis.call('HSET', STATE, 'lineage', lineage) end",
        " end",
    ),
    Mutation(
        "the place belongs to the last event", "upto == last and provider_cursor or '-'", "provider_cursor", "append"
    ),
    Mutation("chunks are counted anew", " or not active(s) or", " or", "finish"),
    Mutation("chunks take the place of the events", "redis.call('UNLINK', LOG)\n", "", "finish"),
    Mutation("chunks are of a whole log", "begin_log(s, epoch, n, lineage)\nredis", "redis", "finish"),
    Mutation("a log has the events of its chunks", "chunks and tonumber(string.match(chunks, '%d+$', -16)) or "),
    Mutation(
        "the tail counts until the end", "(active(s) and redis.call('XLEN', TAIL) or 0)", "redis.call('XLEN', TAIL)"
    ),
    Mutation("a page skips the events before it", "page[7] = before end", "page[7] = first - 1 end", "read"),
    Mutation(
        "the tail of an ended stream has its last events",
        "write_tail(epoch, math.max(n, last - cap) + 1,",
        "math.max(epoch, math.max(n, last - cap) + 1,",
        "finish",
    ),
]


@pytest.mark.parametrize("mutation", MISSING_CHECKS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_mutation_fits_the_scripts(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch, mutation)


def mutate(monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> None:
    found = 0
    for script in vars(declarations).values():
        if isinstance(script, Script) and mutation.script in {"", script.name} and mutation.old in script.source:
            assert script.source.count(mutation.old) == 1
            source = script.source.replace(mutation.old, mutation.new)
            monkeypatch.setattr(script, "source", source)
            monkeypatch.setattr(script, "sha", hashlib.sha1(source.encode()).hexdigest())
            found += 1
    assert found, "the scripts have changed"


@pytest.mark.skipif(not MUTATIONS, reason="HEADRACE_MODEL_MUTATIONS=1 makes it")
@pytest.mark.timeout(300 + SOAK)
@pytest.mark.parametrize("mutation", MISSING_CHECKS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_walk_notices_that(bench: Bench, mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch, mutation)
    if mutation.name in DIRECTED:
        with pytest.raises(Exception):  # noqa: B017, PT011  every error is a finding
            bench.run(walk_directed(bench, DIRECTED[mutation.name]))
        return
    wrong = walk_all(bench, range(EXAMPLES))
    print(f"{mutation.name}: {wrong}")
    assert wrong


# --- findings of the walks


def test_a_first_page_may_be_old(bench: Bench) -> None:
    """Two viewers of a gateway are let in; before the second begins, all that will ever come has come."""

    async def steps() -> None:
        one = Walk(bench)
        async with one.begun():
            for viewer in one.viewers:
                await one._connect(viewer, one.hubs[0])
            await one.do("delete", dies=False)
            await one.come_to_rest()

    bench.run(steps())


def test_an_epoch_without_start(bench: Bench) -> None:
    """Redis has lost an attempt that was shown, and its worker is gone too; then the stream ends without output."""

    async def steps() -> None:
        one = Walk(bench)
        async with one.begun():
            await one.do("remember")
            await one.do("go_on", ends=False)  # both viewers see the first tokens
            await one.do("roll_back")
            await one.do("crash", pick=0)
            await one.do("cancel", heard=False)
            await one.come_to_rest()

    bench.run(steps())


def test_an_end_lost_and_healed_between_two_comparisons(bench: Bench) -> None:
    """A comparison shows the hub an end; Redis loses that end before a slow viewer reads it; the worker writes it
    again before the next comparison, which finds all as it was."""

    async def steps() -> None:
        one = Walk(bench, forgives=False)
        async with one.begun():
            for viewer in (0, 0, 1):
                await one.do("take", pick=viewer, hub=0, frames=9)
            await one.do("go_on", ends=False)
            await one.do("compare", pick=0)
            await one.do("remember")
            await one.do("leave", pick=0, how="stop")
            await one.do("compare", pick=0)
            await one.do("take", pick=1, hub=0, frames=9)
            await one.do("flush", pick=0, fate="answered")
            await one.do("compare", pick=0)
            await one.do("roll_back")
            await one.come_to_rest()

    bench.run(steps())
