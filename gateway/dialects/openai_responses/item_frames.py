"""Frames of the items of one response: items that are added, grow and are done. Sequence numbers are equal in every
replay."""

from collections.abc import Generator, Iterator
from typing import Any

import msgspec

from gateway.dialects.openai_responses.growing import Growing
from gateway.dialects.openai_responses.parts_of_items import PARTS, new_item, new_part
from gateway.dialects.openai_responses.response import Response
from gateway.dialects.openai_responses.upstream import UpstreamData
from shared.response_items import item_id

Body = dict[str, Any]


class ItemFrames:
    """Frames of one response. ``after``: the last sequence number that the client has received; frames up to it are
    empty. ``open``: text or reasoning that grows. ``upstream``: data of the provider for the next frames."""

    def __init__(self, response: Response, after: int) -> None:
        self.open: Growing | None = None
        self.upstream = UpstreamData()
        self._response = response
        self._after = after
        self._next = 0

    def text(self, kind: str, text: str) -> Iterator[bytes]:
        """Yield a text delta. ``kind``: type of the part that contains the text."""
        begins = self.upstream.take_part() is not None
        growing = self.open
        if growing is None or begins or self.upstream.opening is not None or growing.kind != kind:
            growing = yield from self._begin_part(kind, begins)
        growing.grow(text)
        form = PARTS[kind]
        members = self._part_location(growing) | {"delta": text}
        if kind == "output_text":
            members["logprobs"] = logprobs = self.upstream.take_logprobs()
            growing.part["logprobs"] += logprobs
        yield self.frame(f"response.{form.text_event}.delta", **members)

    def _begin_part(self, kind: str, begins: bool) -> Generator[bytes, None, Growing]:
        """Begin a part, in the open item if the provider says so, else in a new one."""
        form, growing = PARTS[kind], self.open
        if begins and self.upstream.opening is None and growing is not None and growing.item["type"] == form.item:
            yield from self._close_part(growing)
            item = growing.item
            item.setdefault(form.holder, [])
        else:
            yield from self.close()
            item = yield from self.add(form.item, form.prefix, **new_item(kind))
        part = new_part(kind)
        item[form.holder].append(part)
        growing = self.open = Growing(item, part, form.member)
        yield self.frame(f"response.{form.part_event}.added", **self._part_location(growing), part=part)
        return growing

    def reasoning_part(self) -> str:
        """Return the kind of the reasoning part that goes on, else that of a new one."""
        is_open = self.open is not None and self.open.item["type"] == "reasoning"
        return self.open.kind if is_open and self.open is not None else "summary_text"

    def annotation(self, annotation: Any) -> Iterator[bytes]:
        """Yield an annotation of the open text. One that comes at another place has no text to belong to."""
        growing = self.open
        if growing is None or growing.kind != "output_text":
            return
        known = growing.part["annotations"]
        known.append(annotation)
        places = {"annotation_index": len(known) - 1, "annotation": annotation}
        yield self.frame("response.output_text.annotation.added", **self._part_location(growing), **places)

    def close(self, status: str = "completed") -> Iterator[bytes]:
        """Finish the growing item: another one begins, or the answer ends."""
        growing, self.open = self.open, None
        if growing is not None:
            yield from self._close_part(growing)
            yield self.done(growing.item, status)

    def _close_part(self, growing: Growing) -> Iterator[bytes]:
        form, location, text = PARTS[growing.kind], self._part_location(growing), growing.join()
        whole = {form.member: text}
        if growing.kind == "output_text":
            whole["logprobs"] = growing.part["logprobs"]
        yield self.frame(f"response.{form.text_event}.done", **location, **whole)
        yield self.frame(f"response.{form.part_event}.done", **location, part=growing.part)

    def add(self, kind: str, prefix: str, /, **members: Any) -> Generator[bytes, None, Body]:
        index = len(self._response.output)
        is_of_upstream = self.upstream.opening is not None
        further = self.upstream.take_opening()
        id = item_id(prefix, self._response.info.stream_id, index, further.pop("id", None))
        # An upstream's reasoning has a status only if the upstream says so: servers may refuse one that comes back.
        status = {} if is_of_upstream and kind == "reasoning" else {"status": "in_progress"}
        item: Body = {"id": id, "type": kind, **status, **further, **members}
        self._response.output.append(item)
        yield self.frame("response.output_item.added", output_index=index, item=item)
        return item

    def done(self, item: Body, status: str = "completed") -> bytes:
        if "status" in item or status != "completed":
            item["status"] = status
        return self.frame("response.output_item.done", output_index=self._response.output.index(item), item=item)

    def location(self, item: Body) -> Body:
        return {"item_id": item["id"], "output_index": self._response.output.index(item)}

    def _part_location(self, growing: Growing) -> Body:
        form = PARTS[growing.kind]
        return {**self.location(growing.item), form.index: len(growing.item[form.holder]) - 1}

    def beyond_the_end(self, kind: str, /, **members: Any) -> Iterator[bytes]:
        """Yield a frame after the last one, if the client's number is of an event that the stream does not have."""
        if self._after >= self._next:
            self._after = -1
            yield self.frame(kind, **members)

    def frame(self, kind: str, /, **members: Any) -> bytes:
        number = self._next
        self._next += 1
        if number <= self._after:
            return b""
        body = {"type": kind, "sequence_number": number, **members}
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(body))
