"""A reader of QR codes, written after ISO/IEC 18004: it finds each module's place by itself, and checks the error
correction. Of the four levels of error correction it knows L, and of the data formats bytes."""

from collections.abc import Iterator, Sequence

Matrix = Sequence[Sequence[bool]]

#: By version, from 1 on: codewords of error correction for each block, and blocks, at level L.
_ECC = (
    *(7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28),
    *(28, 28, 30, 30, 26, 28, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30),
)
_BLOCKS = (
    *(1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8),
    *(8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 21, 22, 24, 25),
)
_MASKS = (
    lambda x, y: (x + y) % 2,
    lambda _, y: y % 2,
    lambda x, _: x % 3,
    lambda x, y: (x + y) % 3,
    lambda x, y: (x // 3 + y // 2) % 2,
    lambda x, y: x * y % 2 + x * y % 3,
    lambda x, y: (x * y % 2 + x * y % 3) % 2,
    lambda x, y: ((x + y) % 2 + x * y % 3) % 2,
)


def decode(matrix: Matrix) -> str:
    """Return the text of a QR code without its margin. Raises AssertionError if a reader could not read it."""
    version = (len(matrix) - 17) // 4
    assert len(matrix) == 17 + 4 * version
    end = len(matrix) - 7
    assert all(_finder(matrix, x, y) for x, y in ((0, 0), (end, 0), (0, end)))
    bits = list(_bits(matrix, version, _mask_of(matrix)))
    words = [_number(bits[at : at + 8]) for at in range(0, len(bits) - 7, 8)]
    data = _corrected(words, _BLOCKS[version - 1], _ECC[version - 1])
    stream = "".join(f"{word:08b}" for word in data)
    assert stream[:4] == "0100", "not in bytes"
    start = 4 + (8 if version < 10 else 16)
    length = int(stream[4:start], 2)
    return bytes(int(stream[start + 8 * i : start + 8 * i + 8], 2) for i in range(length)).decode()


def _finder(matrix: Matrix, x: int, y: int) -> bool:
    """Return True if a square of three rings begins at ``x``, ``y``."""
    rings = (max(abs(dx - 3), abs(dy - 3)) for dy in range(7) for dx in range(7))
    shown = (matrix[y + dy][x + dx] for dy in range(7) for dx in range(7))
    return all(is_dark == (ring != 2) for is_dark, ring in zip(shown, rings, strict=True))


def _mask_of(matrix: Matrix) -> int:
    places = [*((8, y) for y in (0, 1, 2, 3, 4, 5, 7, 8)), *((x, 8) for x in (7, 5, 4, 3, 2, 1, 0))]
    form = _number([matrix[y][x] for x, y in reversed(places)]) ^ 0b101010000010010
    remainder = form
    for shift in range(4, -1, -1):
        remainder ^= (0b10100110111 << shift) if remainder >> (shift + 10) & 1 else 0
    assert remainder == 0, "the format is not readable"
    assert form >> 13 == 0b01, "not of level L"
    return form >> 10 & 7


def _bits(matrix: Matrix, version: int, mask: int) -> Iterator[bool]:
    """Yield the bits of data, in pairs of columns from the right, alternately upwards and downwards."""
    size = len(matrix)
    right, upwards = size - 1, True
    while right > 0:
        for step in range(size):
            y = size - 1 - step if upwards else step
            for x in (right, right - 1):
                if not _is_pattern(x, y, version, size):
                    yield matrix[y][x] != (_MASKS[mask](x, y) == 0)
        upwards = not upwards
        right -= 3 if right == 8 else 2  # the column of the timing pattern is skipped


def _is_pattern(x: int, y: int, version: int, size: int) -> bool:
    if x == 6 or y == 6:
        return True
    if (x < 9 and y < 9) or (x > size - 9 and y < 9) or (x < 9 and y > size - 9):
        return True
    if version >= 7 and ((x > size - 12 and y < 6) or (x < 6 and y > size - 12)):
        return True
    centres = _centres(version, size)
    first, last = centres[:1], centres[-1:]
    corners = {(*first, *first), (*first, *last), (*last, *first)}
    return any(abs(x - cx) <= 2 and abs(y - cy) <= 2 for cx in centres for cy in centres if (cx, cy) not in corners)


def _centres(version: int, size: int) -> list[int]:
    """Return the coordinates of alignment patterns."""
    if version == 1:
        return []
    count = version // 7 + 2
    step = 26 if version == 32 else (version * 4 + count * 2 + 1) // (count * 2 - 2) * 2
    return [6, *reversed([size - 7 - i * step for i in range(count - 1)])]


def _corrected(words: list[int], count: int, ecc: int) -> list[int]:
    """Return the data of the interleaved blocks, in order. Raises AssertionError if a block has an error."""
    short = len(words) // count - ecc
    lengths = [short + (i >= count - len(words) % count) for i in range(count)]
    blocks: list[list[int]] = [[] for _ in lengths]
    rest = iter(words)
    for at in range(max(lengths)):
        for block, length in zip(blocks, lengths, strict=True):
            if at < length:
                block.append(next(rest))
    data = [word for block in blocks for word in block]
    for word_at, word in enumerate(rest):
        blocks[word_at % count].append(word)
    for block in blocks:
        assert all(_value(block, _power(2, i)) == 0 for i in range(ecc)), "the error correction finds an error"
    return data


def _value(polynomial: list[int], x: int) -> int:
    value = 0
    for coefficient in polynomial:
        value = _product(value, x) ^ coefficient
    return value


def _power(base: int, exponent: int) -> int:
    result = 1
    for _ in range(exponent):
        result = _product(result, base)
    return result


def _product(a: int, b: int) -> int:
    """Multiply in GF(2^8) modulo 0x11d."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def _number(bits: Sequence[bool]) -> int:
    return int("".join("1" if bit else "0" for bit in bits), 2)
