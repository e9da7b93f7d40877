"""redaction: a key is found in every form in which a server may echo it, and a terminal obeys nothing."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexus_detect.redaction import SENTENCE_CHARS_MAX, redact, sentence, visible

KEY = "plx_S3cretS3cretS3cretS3cretS3cret00"
LETTERS = st.sampled_from("abcXYZ019+/=_-")


def percent(text: str) -> str:
    """Every character percent-encoded, as the strictest encoder would."""
    return "".join(f"%{ord(c):02X}" for c in text)


FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": percent,
    "percent twice": lambda key: quote(percent(key)),
    "percent, small": lambda key: percent(key).lower(),
    "JSON escapes": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "JSON escapes in JSON": lambda key: json.dumps("".join(f"\\u{ord(c):04x}" for c in key)),
    "Python escapes": lambda key: "".join(f"\\x{ord(c):02x}" for c in key),
    "HTML decimal": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "HTML hexadecimal": lambda key: "".join(f"&#x{ord(c):x};" for c in key),
    "every third": lambda key: "".join(f"\\u{ord(c):04x}" if i % 3 else c for i, c in enumerate(key)),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 behind one": lambda key: base64.b64encode(f":{key}".encode()).decode(),
    "base64 behind two": lambda key: base64.b64encode(f"u:{key}".encode()).decode(),
    "base64 for addresses": lambda key: base64.urlsafe_b64encode(f"{key}??>>".encode()).decode(),
    "hexadecimal": lambda key: key.encode().hex(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_found_in_every_form(form: str) -> None:
    """Nothing of it remains that would give it back, and what stands around it does."""
    written = FORMS[form](KEY)
    left = redact(f'{{"error": "the key", "is": "{written}", "so": "there"}}')
    assert "plx_***" in left
    assert left.startswith('{"error": "the key", "is": ')
    assert '"so": "there"' in left
    for secret in (
        "S3cret",
        FORMS[form]("S3cretS3cret")[4:-4],
        base64.b64encode(b"S3cretS3cretS3c").decode(),
    ):
        assert secret not in left


@given(before=st.text(), key=st.text(LETTERS, min_size=8), after=st.text(" .,'\"!)", min_size=1))
def test_any_key_anywhere_is_found(before: str, key: str, after: str) -> None:
    """Whatever surrounds it."""
    assert f"plx_{key}" not in redact(f"{before}plx_{key}{after}")


def test_the_user_of_an_address_is_not_shown() -> None:
    """Proxies are written with a name and a password in front."""
    assert redact("via http://me:hunter22@proxy.test:3128/ ok") == "via http://***@proxy.test:3128/ ok"
    assert redact("ask a@b.test, see http://b.test/@x") == "ask a@b.test, see http://b.test/@x"


@pytest.mark.parametrize(
    "unit", ["plx_", "plx_aaaaaaa ", "%25", "\\", "\\u00", "://", "a@", "cGx4X", "&#", "706c785f"]
)
def test_no_text_takes_long(unit: str) -> None:
    """A megabyte of what the patterns begin with is read in one pass."""
    began = time.perf_counter()
    redact(unit * (1_000_000 // len(unit)))
    assert time.perf_counter() - began < 2.0


@given(st.text())
def test_a_sentence_is_one_short_line_that_a_terminal_only_shows(text: str) -> None:
    """Line breaks, escapes and marks of direction are written out."""
    line = sentence(text)
    assert line.isprintable()
    assert line.encode().decode() == line
    assert len(line) <= SENTENCE_CHARS_MAX + 5


def test_a_long_sentence_keeps_both_ends() -> None:
    """What is wrong stands at the beginning, what to do at the end."""
    line = sentence(f"a.csv:2: {'x' * 100_000} is no number; write one")
    assert line.startswith("a.csv:2: xxx")
    assert line.endswith("xxx is no number; write one")


def test_visible_keeps_what_it_is_told() -> None:
    """Line breaks of a table stay, colours of a device's name do not."""
    assert visible("dev\x1b[31m\u202e\n", "\n") == "dev\\u001b[31m\\u202e\n"
