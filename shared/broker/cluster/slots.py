"""Hash slots of a Redis Cluster, and the hash tags of the buckets, which spread them evenly over the slots.

The tag of bucket ``b`` is the bucket's two hex digits and up to two more characters, chosen so that its slot is one
of 64 ``b`` … 64 ``b`` + 63. So any split of the slots into equal runs splits the buckets evenly too; with the
hex digits alone the fullest of 12 nodes would have a third more than its share.
"""

import binascii
from typing import Final

SLOTS: Final = 16384

#: Tags of the buckets 00 … ff. A test proves their slots.
BUCKET_TAGS: Final = tuple(
    """
    001z 013s 025 036z 04j 05p 060z 072s 087r 09oq 0a6l 0b1h 0c3m 0d0h 0e2e 0f32
    100v 11gt 12ou 137v 14at 156v 161v 17ft 18cu 194w 1a13 1b0d 1c2a 1d1d 1e3i 1f4m
    201 211j 2209 2320 2419 2530 26n 27t 2838 2911 2a4u 2bf 2cp 2d9 2eew 2f7x
    302o 310f 3215 335o 3405 354o 363o 371f 38r 39h 3a5y 3bgv 3c0x 3dfv 3e1p 3f6t
    40b 41x 422p 430y 443p 451y 466y 474p 481q 493x 4a0o 4b5 4c5n 4dj 4et 4f3b
    506u 51aw 52fw 531u 54gw 550u 567u 57ov 58ev 592t 5a1c 5b04 5c21 5d14 5e39 5f2n
    6033 617i 62f 6343 649 6553 6623 676i 683h 691a 6a2v 6b5r 6c7w 6d4r 6ect 6fn
    704l 7106 721e 733l 740e 752l 765l 7716 782d 790m 7a3z 7bau 7c9z 7dot 7e7s 7f0w
    803g 811n 826n 8324 847n 8534 862g 870n 885o 8915 8a4q 8b3u 8c1p 8d2u 8e0x 8fbw
    902k 910b 92g 9338 948 9528 963k 971b 9820 9909 9aow 9b2y 9cew 9d3y 9e1t 9fo
    a07r a1oq a2gp a30r a4fp a51r a66r a7ap a81z a93s aa0d ab13 ac36 ad03 ae4m af3i
    b03j b11c b200 b329 b410 b539 b62j b70c b831 b918 baaw bb3x bcdv bd2x be0u bf7q
    c039 c110 c20c c32j c41c c53j c629 c700 c8e c91k cagw cb5x ccbv cd4x ce6u cf1q
    d07p d15y d22y d30p d43y d51p d66p d74y d8i d9s da0f db11 dc34 dd01 de4o df3k
    e01q e13x e24x e36q e45x e57q e60q e72x e87 e95p ea04 eb1c ec3f ed0c ee2n ef39
    f05i f113 f263 f32i f473 f53i f64i f703 f83a f91h fagt fboq fcbu fdap fe6v ff1r
    """.split()  # noqa: SIM905  256 literals are hard to read
)


def slot_of(key: str | bytes) -> int:
    """Return the hash slot of a key, or of its hash tag, if it has one."""
    name = key.encode() if isinstance(key, str) else key
    _, brace, rest = name.partition(b"{")
    tag, end, _ = rest.partition(b"}")
    return binascii.crc_hqx(tag if brace and end and tag else name, 0) % SLOTS
