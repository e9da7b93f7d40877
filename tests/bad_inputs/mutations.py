"""A small seeded fuzzer: good input, changed at random as damage, mistakes and malice would change it."""

from __future__ import annotations

import random

# Bytes that end, begin or repeat something in the formats that are read here.
MARKS = (
    *(b"\0", b"\xff", b"\xfe\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"\r", b"\t", b" ", b'"', b"'"),
    *(b"\\", b"\\ud800", b"\x1b[2J", b"{", b"}", b"[", b"]", b":", b",", b"-", b"*", b"&a ", b"*a", b"<<:"),
    *(b"!!python/name:os.system ", b"${", b"${X}", b"%", b"#", b"null", b"NaN", b"1e999", b"-1", b"0x", b"."),
    *(b"9" * 30, b"9" * 5000, b"[" * 2000, b'{"a":' * 2000, b"true", b"plx_S3cretS3cretS3cret", b"=", b"|"),
)
SWAPS = 4


def mutated(good: bytes, rng: random.Random) -> bytes:
    """The input with a few changes: bytes set, cut out, doubled, put in, cut off."""
    body = bytearray(good)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not body:
            break
        _change(body, rng)
    return bytes(body)


def _change(body: bytearray, rng: random.Random) -> None:
    at, length = rng.randrange(len(body)), rng.choice((1, 1, 2, 4, 16, 200))
    kind = rng.randrange(7)
    if kind == 0:
        body[at] = rng.randrange(256)
    elif kind == 1:
        body[at] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del body[at : at + length]
    elif kind == 3:
        body[at:at] = body[at : at + length] * rng.choice((1, 2, 50))
    elif kind == 4:
        body[at:at] = rng.choice(MARKS)
    elif kind == 5:
        body[at : at + length] = rng.choice(MARKS)
    elif rng.random() < 1 / SWAPS:
        del body[at:]
    else:
        body[at : at + length] = rng.randbytes(length)
