"""The frames that viewers get, checked one by one as strict clients would."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from shared.protocol import events
from shared.protocol.events import Done, Start
from shared.protocol.ids import parse_event_id
from shared.protocol.waiting import Awaited
from tests.walks.actors import Viewer, check_one_attempt
from tests.walks.bench import Bench
from tests.walks.contention import Contended


class Audience(Contended):
    """``deleted``, ``dropped``: the answer was. ``is_stored``: by its provider."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.deleted = self.dropped = self.is_stored = False

    @property
    def healers(self) -> Sequence[Any]:
        """Those that have all of the answer in memory."""
        raise NotImplementedError

    def _show(self, viewer: Viewer, frame: re.Match[bytes]) -> None:
        kind, data = frame[2], frame[3]
        if frame[1] is None:
            self._handle_synthetic(viewer, kind, data)
            return
        stored = kind + b" " + data
        event = events.decode(stored)
        if isinstance(event, Start) and event.reset:
            assert viewer.last_id is not None, "reset for a viewer that has nothing"
            viewer.held.clear()
            stored = events.encode(msgspec.structs.replace(event, reset=False))
        viewer.last_id = frame[1].decode()
        at = parse_event_id(viewer.last_id)
        viewer.held.append((at, stored))
        epochs = [a.epoch for a, _ in viewer.held]
        assert epochs == sorted(epochs), viewer.held
        assert self.is_stored or epochs[0] == epochs[-1], viewer.held
        assert [a.seq for a, _ in viewer.held] == [i + 1 for i in range(len(viewer.held))], viewer.held
        check_one_attempt([event for _, event in viewer.held])
        assert self.shown.setdefault(at, stored) == stored, f"{at} was shown with another content"
        if isinstance(event, Done):
            viewer.ending = "done"

    def _handle_synthetic(self, viewer: Viewer, kind: bytes, data: bytes) -> None:
        raw = msgspec.json.decode(data)
        if kind == b"done":
            viewer.ending = raw["reason"]
            assert viewer.ending in {"deleted", "stream_gone", "stream_lost"}
            if viewer.ending == "deleted":
                assert self.deleted
            elif viewer.ending == "stream_gone":
                assert self.dropped
            else:
                assert not self.healers, "lost although a worker has all of it in memory"
        elif kind == b"error":
            assert raw["code"] in {"stream_gone", "stream_lost"}
        elif kind == b"start":
            assert raw["reset"]
            assert viewer.last_id is not None, "reset for a viewer that has nothing"
            viewer.held.clear()
        elif kind == b"waiting":
            assert raw["state"] in set(Awaited)
        else:
            assert kind == b"queued"
