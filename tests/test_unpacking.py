"""unpacking: bodies of any encoding and cut are themselves or a ValueError, and bombs take no memory."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexus_detect.unpacking import Unpacking


def unpacked(pieces: list[bytes], encoding: str = "gzip", bytes_max: int = 1 << 20) -> bytes | None:
    """The body of these pieces; None when it is too large."""
    unpacking = Unpacking(encoding, bytes_max)
    return unpacking.body() if all(unpacking.take(piece) for piece in pieces) else None


@given(st.binary(max_size=5000), st.integers(1, 600), st.sampled_from(["gzip", "X-GZIP", "", "identity"]))
def test_any_cut_gives_the_body(body: bytes, size: int, encoding: str) -> None:
    """However it comes in pieces, also byte by byte."""
    sent = gzip.compress(body) if "gzip" in encoding.lower() else body
    assert unpacked([sent[i : i + size] for i in range(0, len(sent), size)], encoding) == body


def test_the_bound_is_exact() -> None:
    """As many bytes as allowed are a body, one more is not, compressed or as they are."""
    for encoding, sent in (("gzip", gzip.compress(b"x" * 100)), ("", b"x" * 100)):
        assert unpacked([sent], encoding, 100) == b"x" * 100
        assert unpacked([sent], encoding, 99) is None


def test_several_archives_are_one_body() -> None:
    """Some servers compress block by block."""
    assert unpacked([gzip.compress(b"a") + gzip.compress(b"b"), gzip.compress(b"c")]) == b"abc"
    assert unpacked([]) == b""


@pytest.mark.parametrize(
    "encoding", ["br", "zstd", "deflate", "gzip, gzip", "gzip,br", "\x1b[2J", "x" * 1000]
)
def test_what_was_not_asked_for_is_refused(encoding: str) -> None:
    """Also one that is compressed twice: that is how a bomb grows beyond every bound."""
    with pytest.raises(ValueError, match="not asked for"):
        Unpacking(encoding, 100)


@pytest.mark.parametrize(
    "sent",
    [b"hello", gzip.compress(b"x" * 900)[:-9], gzip.compress(b"x") + b"y", zlib.compress(b"x")],
    ids=["no gzip", "cut off", "something behind it", "zlib"],  # gzip holds the time, which no name may
)
def test_broken_compression_is_told(sent: bytes) -> None:
    """No part of it passes for the whole."""
    with pytest.raises(ValueError, match="broken"):
        unpacked([sent])


def test_a_bomb_takes_no_more_memory_than_the_bound() -> None:
    """256 MiB of nothing in 256 KiB, given at once."""
    packer, piece = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16), b"\0" * (1 << 20)
    bomb = b"".join(packer.compress(piece) for _ in range(256)) + packer.flush()
    tracemalloc.start()
    try:
        assert unpacked([bomb], bytes_max=4 << 20) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * (4 << 20)
