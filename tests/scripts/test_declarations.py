"""The files of the scripts: declarations, flags, size."""

import re
from typing import Any

import pytest

from shared.broker.chats import ChatName
from shared.broker.cluster.slots import slot_of
from shared.broker.declarations import (
    FORGET_CHAT,
    JOIN_CHAT,
    JOINED_CHAT,
    RECORD_ACT,
    REVOKE_LINKS,
    RIGHTS,
    STREAM_KEYS,
    Call,
)
from shared.broker.desk_requests import Holding, Kind, Place, Settlement
from shared.broker.keys import AUDIT, DELIVERIES, REVOKED_LINKS, sweep_keys
from shared.broker.replies import (
    parse_write,
)
from shared.broker.routes import BY_BUCKET
from shared.broker.scripts import Delivery, Holder, StreamScripts
from shared.broker.stored_request import PIECE_BYTES
from shared.protocol.chunks import compress
from shared.protocol.ids import START, new_stream_id
from shared.protocol.lifecycle import ACTIVE, Status
from shared.protocol.lineage import Lineage
from shared.rate_limits import UNLIMITED, Demand, Limits
from tests.scripts.stream import (
    CAP,
    ENDING,
    LUA,
    ROUTES,
    SCRIPTS,
    SETTINGS,
    WINDOW,
    all_scripts,
    source,
)

CHAT_SCRIPTS = (JOIN_CHAT, JOINED_CHAT, FORGET_CHAT)


def test_every_file_is_a_script() -> None:
    assert {path.stem for path in LUA.glob("[a-z]*.lua")} == set(all_scripts())
    assert {path.suffix for path in LUA.iterdir()} == {".lua"}


@pytest.mark.parametrize("name", sorted(path.stem for path in LUA.glob("[a-z]*.lua")))
def test_a_script_and_its_declaration_agree(name: str) -> None:
    """The header of the file, the names its code uses and the declaration in scripts.py are the same."""
    script, text = all_scripts()[name], (LUA / f"{name}.lua").read_text()
    first, *lines = text.splitlines()
    assert first.startswith("#!lua")
    assert script.source.startswith(first + "\n")
    assert script.source.count("#!lua") == 1
    assert re.search(r"^-- .*\b[Rr]epl(y|ies)", text, re.M), "no word on the reply"
    keys = named_in(lines, "KEYS")
    if keys[0] == "1-10 stream":
        keys[:1] = [f"{i} {key}" for i, key in enumerate(STREAM_KEYS, 1)]
    key_tails = [key for key in script.keys if key.endswith("…")][1:]
    numbered = [f"{i} {key}" for i, key in enumerate(script.keys[: len(script.keys) - len(key_tails)], 1)]
    assert keys == [*numbered, *key_tails]
    fixed = [arg for arg in script.args if not arg.endswith("…")]
    tails = [*script.args[len(fixed) :]]
    numbered = [f"{i} {arg}" for i, arg in enumerate([*fixed, *tails[:1]], 1)]
    assert named_in(lines, "ARGV") == [*numbered, *tails[1:]]
    bounds = ("at", f"at + {len(fixed) - 1}") if script.takes_many else (1, len(fixed))
    assert local_names(script.source, "ARGV", *bounds) == fixed
    assert not re.search(r"KEYS\[\d", re.sub(r"local [A-Z_]+ = KEYS\[\d+\]\n", "", text)), "a key without a name"
    assert not re.search(r"ARGV\[\d", re.sub(r"local \w+ = ARGV\[1\]\n", "", text)), "an argument without a name"


def test_the_keys_of_lua_are_those_of_the_declarations() -> None:
    assert [
        name.lower() for name in re.findall(r"^local (.*) = unpack\(KEYS\)$", source("_stream"), re.M)[0].split(", ")
    ] == [*STREAM_KEYS]
    for script in all_scripts().values():
        after = len(script.keys) - len(script.own_keys)
        for names, begin, end in re.findall(
            r"^local ([A-Z_, ]+) = unpack\(KEYS, (\d+), (\d+)\)$", script.source, re.M
        ):
            of_declaration = script.own_keys[int(begin) - after - 1 : int(end) - after]
            assert tuple(name.lower() for name in names.split(", ")) == of_declaration, script.name
        for name, at in re.findall(r"^local ([A-Z_]+) = KEYS\[(\d+)\]$", script.source, re.M):
            assert script.own_keys[int(at) - after - 1] == name.lower(), script.name


def test_a_call_takes_just_the_declared_arguments() -> None:
    script = all_scripts()["release"]
    assert script.call([], bool, holder="w1.x", epoch=7).arguments == [7, "w1.x"]
    for arguments in ({"epoch": 7}, {"epoch": 7, "holder": "w1.x", "cap": 1}):
        with pytest.raises(TypeError):
            script.call([], bool, **arguments)
    with pytest.raises(KeyError):
        script.call([], bool, epoch=7, token="w1.x")


def test_the_positional_append_is_as_declared() -> None:
    holder = Holder(new_stream_id(), 7, "w1.x", None)
    values = {"epoch": 7, "holder": "w1.x", "first_seq": 3, "window": WINDOW, "cap": CAP, "events": [b"a", b"b"]}
    values |= {"lineage": "4:2", "provider_cursor": "x", "count": 2}
    call = all_scripts()["append"].call(holder.keys[:3], parse_write, ROUTES.of(holder.stream_id), **values)
    assert SCRIPTS.append(holder, 3, [b"a", b"b"], lineage=Lineage("4:2"), cursor="x") == call


def named_in(lines: list[str], table: str) -> list[str]:
    """The items of a header's list: `1 epoch`, `6 events…`; remarks in parentheses are left out."""
    begin = next(i for i, line in enumerate(lines) if line.startswith(f"-- {table}: "))
    end = next(i for i in range(begin + 1, len(lines)) if not lines[i].startswith("--  "))
    text = " ".join(line.removeprefix("--").strip() for line in lines[begin:end]).removeprefix(f"{table}: ")
    while (plain := re.sub(r"\s*\([^()]*\)", "", text)) != text:
        text = plain
    return text.split(", ")


def local_names(source: str, table: str, begin: object, end: object) -> list[str]:
    """The names that the code gives to these arguments."""
    if end == 1 and (match := re.search(rf"^local (\w+) = {table}\[1\]$", source, re.M)):
        return [match[1]]
    match = re.search(rf"^ *local ([a-z_,\s]+?) =\s+unpack\({table}, {re.escape(f'{begin}, {end}')}\)$", source, re.M)
    assert match is not None, f"no unpack({table}, {begin}, {end})"
    return re.split(r",\s+", match[1])


def test_which_scripts_run_when_redis_is_full() -> None:
    """Those that end, release or only look; not those that bring something new (rule S10)."""
    flags = {
        name: script.source.partition("\n")[0].removeprefix("#!lua").strip() for name, script in all_scripts().items()
    }
    assert {name for name, flag in flags.items() if flag == "flags=allow-oom"} == {
        *(
            "renew",
            "finish",
            "cancel",
            "delete",
            "acknowledge",
            "release",
            "sweep",
            "drop",
            "revoke_links",
            *("forget", "leave", "settle", "hold", "may_drop", "paid", "deliver", "archived", "amend"),
            *("joined_chat", "forget_chat", "record_act"),
        ),
    }
    assert {name for name, flag in flags.items() if flag == "flags=no-writes"} == {"read", "rights"}
    assert {name for name, flag in flags.items() if flag == ""} == {
        *("begin", "admit", "store", "claim", "take_slot", "append", "restore", "requeue", "unpark", "note"),
        *("pack", "note_cursor", "take", "take_due", "join_chat"),
    }


def test_the_amount_of_lua_is_limited() -> None:
    """Lines of code: for streams, for limits and the queue, and for operators and revocations."""
    lines = {
        path.stem: sum(bool(line) and not line.startswith("--") for line in path.read_text().splitlines())
        for path in LUA.glob("*.lua")
    }
    operators = sum(lines.pop(name) for name in ("_endings", "note", "rights", "revoke_links", "record_act"))
    chats = sum(lines.pop(name) for name in ("join_chat", "joined_chat", "forget_chat"))
    deliveries = sum(lines.pop(name) for name in ("deliver", "archived", "take_due"))
    limits = (
        "_desk",
        "_rate_limits",
        "_classes",
        "_queue",
        "_provider_limit",
        "admit",
        "requeue",
        "take",
        "leave",
        "take_slot",
        "unpark",
        "hold",
        "settle",
    )
    admission = sum(lines.pop(name) for name in limits)
    budgets = sum(lines.pop(name) for name in ("_budgets", "_usage", "amend"))
    storage = sum(lines.pop(name) for name in ("_content", "_storage", "drop", "may_drop", "store"))
    assert storage < 140
    assert budgets < 120
    assert sum(lines.values()) < 660
    assert operators < 57
    assert deliveries < 80
    assert admission < 530
    assert chats < 54


@pytest.mark.parametrize("name", sorted(all_scripts()))
def test_no_script_builds_the_name_of_a_key(name: str) -> None:
    """All its keys are declared, so that they can be compared, and a cluster knows their slot."""
    names = re.findall(r"'(hr:[^']*|arq:[^']*)'", all_scripts()[name].source)
    assert set(names) <= {"hr:gateway:", "hr:gateway:any", "hr:worker:", "hr:worker:any"}


def test_all_keys_of_a_call_are_in_one_slot() -> None:
    """Every script is called with lanes, an idempotency key and sources, as its typed function names them."""
    tags = {call.script.name: {slot_of(key.encode()) for key in call.keys} for call in one_call_of_each()}
    assert tags.keys() == all_scripts().keys()
    assert {name: slots for name, slots in tags.items() if len(slots) != 1} == {}


def one_call_of_each() -> list[Call[Any]]:
    scripts = StreamScripts(SETTINGS, BY_BUCKET)
    scripts.target_limits = {"a": UNLIMITED, "b": UNLIMITED}
    stream_id, digest, desk = new_stream_id("ab" * 32), "ab" * 32, scripts.desk
    holder, ending = Holder(stream_id, 7, "w1.x", digest), ENDING
    demand = Demand("an-account", Limits(concurrent_streams=1), 5)
    place = Place(stream_id, demand, 1, "a b", new_stream_id())
    _, pieces = scripts.split_request(stream_id, {"request": b"x" * PIECE_BYTES * 2})
    return [
        pieces[0],
        scripts.begin(stream_id, {}, "ff", digest, demand),
        scripts.forget(stream_id, "p", digest),
        scripts.claim(stream_id, "w1.x"),
        scripts.take(stream_id, "w1.x", "c"),
        scripts.append(holder, 1, [b"a"]),
        scripts.pack(holder, 0, [b"a"]),
        scripts.finish(holder, 1, [b"a"], compress([b"a"]), ending),
        scripts.restore(holder, [b"a"], fields={}, body_hash="ff"),
        scripts.renew(holder),
        scripts.note_cursor(holder, "x"),
        scripts.release(holder),
        scripts.take_slot(holder, "a", "a/m", held="b"),
        scripts.acknowledge(stream_id, "g1", START),
        scripts.cancel(stream_id, "cancelled"),
        scripts.note_resume(stream_id, "x"),
        scripts.delete(stream_id),
        scripts.drop(stream_id),
        scripts.paid(stream_id, ""),
        scripts.deliver(stream_id, digest, Delivery.FAILED, "1"),
        scripts.archived(stream_id, digest, "1"),
        scripts.amend(stream_id, "1 2 3", "4 2 5", "", b"null"),
        scripts.read(stream_id, START),
        scripts.sweep(sweep_keys()[:1]),
        desk.admit(place),
        desk.requeue(stream_id),
        desk.leave(stream_id, "w1.x", "a\nb"),
        desk.settle(Settlement(stream_id, "an-account", Kind.DELETED, digest=digest), "a\nb"),
        desk.hold(Holding(place, "w1.x", 1, "a\nb")),
        desk.take_due(DELIVERIES, 1, 1),
        desk.may_drop(stream_id, "an-account"),
        desk.unpark("a", UNLIMITED),
        *(
            Call(script, ChatName("an-account", "a chat").keys, [], bool)
            for script in (JOIN_CHAT, JOINED_CHAT, FORGET_CHAT)
        ),
        Call(REVOKE_LINKS, [REVOKED_LINKS], [], bool),
        Call(RECORD_ACT, [AUDIT], [], bool),
        Call(RIGHTS, ["hr:probe"], [], bool),
    ]


def test_lua_and_the_lifecycle_agree_on_what_is_active() -> None:
    line = next(x for x in (LUA / "_stream.lua").read_text().splitlines() if x.startswith("local function active"))
    assert {status for status in Status if f"'{status}'" in line} == ACTIVE
