"""Messages to gateways about tails that have grown, as ``notify_gateways`` in ``_messages.lua`` writes them."""

import msgspec


class Growth(msgspec.Struct, frozen=True):
    """New events of a stream, as stored: ``events`` from ``<epoch>-<first>`` on; none if they have to be read."""

    stream_id: str
    epoch: int
    first: int
    events: list[bytes]


def growths_in(message: bytes) -> list[Growth]:
    """Return the entries of a message. Raises :class:`ValueError`."""
    growths: list[Growth] = []
    at, end = 0, len(message)
    while at < end:
        line = message.index(b"\n", at)
        stream_id, *numbers = message[at:line].split(b" ")
        at = line + 1
        events = []
        for size in map(int, numbers[2:]):
            events.append(message[at : at + size])
            at += size
        epoch, first = (int(numbers[0]), int(numbers[1])) if events else (0, 0)
        growths.append(Growth(stream_id.decode(), epoch, first, events))
    return growths
