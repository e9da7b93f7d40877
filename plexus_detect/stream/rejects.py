"""Why a message is rejected: one stable word for programs, one sentence for people."""

from __future__ import annotations

from dataclasses import dataclass

# Larger messages are not looked into; one of so many sensors is no reading of a machine.
MESSAGE_BYTES_MAX = 1_000_000
SENSORS_MAX = 1_024

# Characters of a device's name.
DEVICE_CHARS_MAX = 256

SENTENCES = {
    "empty": "the message has no value; send JSON",
    "too_large": "the message has {size} bytes, and the most is {most}; send smaller ones",
    "not_json": "the value is not JSON ({detail}); send one JSON object",
    "not_an_object": "the value is JSON, but not an object; send one object with {where}",
    "no_timestamp": "there is no {where}; send the time of the sample there",
    "bad_timestamp": "{where} is not a time in the unit {unit}: {detail}; see source.mapping.unit",
    "time_impossible": "the time, {detail}, is not between 1970 and 2109; see source.mapping.unit",
    "time_ahead": "the time is {ahead} s ahead of the broker's, and the most is {most} s; set the clock",
    "no_device": "nothing names the device: {where} is missing; send it",
    "bad_device": "{where} is not the name of a device; send 1 to 256 printable characters in UTF-8",
    "no_sensors": "there are no sensors at {where}; send names and numbers there",
    "no_numbers": "none of the sensors at {where} has a finite number; send numbers",
    "too_many_sensors": "the message has {size} sensors, and the most is {most}; send fewer",
    "too_many_series": "no further series fits into state.series_max; raise it, or send fewer metrics",
}


@dataclass(frozen=True)
class Reject:
    """A message that is set aside: its number in the batch, its offset, and why, as a word of ``SENTENCES``
    and as a sentence. It never changes what is said of other messages."""

    at: int
    offset: int
    reason: str
    text: str


class Refused(Exception):  # noqa: N818 - what happens to the message, not an error of the program
    """A message cannot be used; ``reason`` is a word of ``SENTENCES``."""

    def __init__(self, reason: str, **facts: object) -> None:
        self.reason = reason
        self.text = SENTENCES[reason].format(**facts)
        super().__init__(self.text)
