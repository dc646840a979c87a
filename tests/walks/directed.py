"""Walks that a search finds too rarely: each notices the mutations of its name."""

from typing import Any, Final, NamedTuple

from tests.walks.bench import Bench
from tests.walks.moves import Steps
from tests.walks.walk import Walk

_GO_ON: Final[tuple[str, dict[str, Any]]] = ("go_on", {"ends": False})
_CLAIM: Final[tuple[str, dict[str, Any]]] = (
    "claim",
    {"pick": 0, "fate": "answered", "lease_over": True, "well": True, "remembered": False},
)
_CLAIM_ANEW: Final = (_CLAIM[0], {**_CLAIM[1], "resumes": False})
_HEAR: Final[Steps] = [("hear", {"pick": 0, "is_lost": False})] * 2
_TAKE: Final[Steps] = [("take", {"pick": pick, "hub": pick, "frames": 9}) for pick in (0, 1, 0, 1)]
#: Both gateways read the tail, both viewers take all events, and the gateways acknowledge them.
_READ: Final[Steps] = [("read_tails", {"pick": pick, "words": ("wake", "fetch", "deliver")}) for pick in (0, 1, 0, 1)]
_RECEIVE: Final[Steps] = [*_READ, *_TAKE, *[("compare", {"pick": pick}) for pick in (0, 1)]]
#: The first three events, which both viewers have.
_THREE_EVENTS: Final[Steps] = [_GO_ON, _GO_ON, *_RECEIVE]


class Directed(NamedTuple):
    """Steps of a walk. ``is_stored``: the provider stores its answer. ``is_archived``: the archive must have it.
    ``is_batch``: it is a batch stream among others."""

    steps: Steps
    is_stored: bool = False
    is_archived: bool = False
    is_batch: bool = False


def _generate(deltas: int, fate: str = "answered") -> tuple[str, dict[str, Any]]:
    return "generate", {"pick": 0, "deltas": deltas, "mixed": 1, "fate": fate}


def _flush() -> tuple[str, dict[str, Any]]:
    return "flush", {"pick": 0, "fate": "answered"}


#: The stream ends, and the desk does not know it yet.
_END: Final[Steps] = [("leave", {"pick": 0, "how": "stop"}), _flush()]
_SETTLE: Final[tuple[str, dict[str, Any]]] = ("settle", {"pick": 0, "fate": "answered"})


def _renew(*, holds_late: bool) -> tuple[str, dict[str, Any]]:
    return "renew", {"pick": 0, "fate": "answered", "for_good": False, "holds_late": holds_late}


DIRECTED: Final = {
    # The window takes three of four events, and the writer does not get the reply: it sends all four again.
    "logged events are skipped by append": Directed(
        [*_THREE_EVENTS, _generate(4, "reply lost"), *_RECEIVE, _flush()]
    ),
    # Redis loses an event that the writer does not send again by itself.
    "fast append: where the log ends": Directed(
        [*_THREE_EVENTS, ("remember", {}), _generate(1), ("roll_back", {}), _generate(1)]
    ),
    # A worker continues the answer of another, and Redis loses that; the gateways have the answer up to there.
    "a message has the ids of its events": Directed(
        [
            *[*_THREE_EVENTS, ("remember", {}), ("crash", {"pick": 0})],
            *[(_CLAIM[0], {**_CLAIM[1], "resumes": True}), ("roll_back", {}), _generate(1), _flush()],
            *[*_HEAR, *_TAKE],
        ],
        is_stored=True,
    ),
    # Its owner deletes a stream between the two steps of its ending.
    "a late ending does not count a removed stream": Directed(
        [*_THREE_EVENTS, *_END, ("delete", {"dies": False}), _SETTLE]
    ),
    # The stream ends and is settled between the renewal after which it is counted again, and that.
    "a stream that is gone is not counted again": Directed(
        [
            *[*_THREE_EVENTS, ("empty", {}), _renew(holds_late=False), _flush(), _renew(holds_late=False)],
            *[_renew(holds_late=True), *_END, _SETTLE],
        ]
    ),
    # Redis loses a batch stream, its worker restores it and its place, and hands it over.
    "a lost batch stream is one again": Directed(
        [
            *[*_THREE_EVENTS, ("empty", {}), _renew(holds_late=False), _flush(), _renew(holds_late=False)],
            *[_renew(holds_late=False), ("leave", {"pick": 0, "how": "hand over"}), _flush(), ("leave_place", {})],
        ],
        is_batch=True,
    ),
    "the index has a removed stream": Directed([*_THREE_EVENTS, *_END, _SETTLE, ("delete", {"dies": True})]),
    "an answer that is not settled is kept": Directed(
        [*_THREE_EVENTS, *_END, ("everybody_leaves", {}), ("drop_answer", {"dies": True})]
    ),
    "an answer that is not archived is kept": Directed(
        [*_THREE_EVENTS, *_END, _SETTLE, ("everybody_leaves", {}), ("drop_answer", {"dies": True})], is_archived=True
    ),
    # The sweep settles the ending, and its worker does so again once the archive has the stream.
    "a late settlement counts no request again": Directed(
        [
            *[*_THREE_EVENTS, *_END, ("sweep", {}), ("read_for_archive", {}), ("write_to_archive", {"pick": 0})],
            *[("note_archived", {"pick": 0, "fate": "answered"}), _SETTLE],
        ],
        is_archived=True,
    ),
    # Redis loses an ending that a worker has read for the archive, and another worker ends the stream again.
    "only the ending that was read is noted": Directed(
        [
            *[*_THREE_EVENTS, ("remember", {}), *_END, _SETTLE, ("read_for_archive", {}), ("crash", {"pick": 0})],
            *[("roll_back", {}), _CLAIM_ANEW, _generate(5), *_RECEIVE, _flush(), *_END, _SETTLE],
            ("write_to_archive", {"pick": 0}),
            ("note_archived", {"pick": 0, "fate": "answered"}),
        ],
        is_archived=True,
    ),
    # Redis loses an ending that is not settled yet, and another worker ends the stream with a longer answer.
    "another ending stays owed": Directed(
        [
            *[*_THREE_EVENTS, ("remember", {}), *_END, ("crash", {"pick": 0}), ("roll_back", {}), _CLAIM_ANEW],
            *[_generate(5), *_RECEIVE, _flush(), *_END, _SETTLE],
        ]
    ),
}


async def walk_directed(bench: Bench, directed: Directed) -> None:
    """Take the steps; raises an error if a rule is broken."""
    one = Walk(bench)
    async with one.begun(
        is_stored=directed.is_stored,
        is_archived=directed.is_archived,
        is_contended=directed.is_batch,
        is_batch=directed.is_batch,
    ):
        for name, arguments in directed.steps:
            await one.do(name, **arguments)
        await one.come_to_rest()
