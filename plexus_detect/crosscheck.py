"""An empty answer is not silence: what is asked before anything is concluded from one.

The app answers 200 and no rows also when its store fails (contract section 2). The read API, another service
over the same store, says so; and the app itself can be asked for a sample that we have seen, which must be
there. Only when both show nothing new are the devices silent.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plexus_detect import clock, wire
from plexus_detect.client import Client
from plexus_detect.cursor import Cursors, Query
from plexus_detect.errors import ApiError, AuthError, ContractError, PlexusDetectError, TransientError
from plexus_detect.logs import event
from plexus_detect.reader import Answer
from plexus_detect.report import Verdict
from plexus_detect.series import I64, Bool, SeriesKey, SeriesTable

log = logging.getLogger(__name__)

# While others send, a series that is silent for longer than this is old news.
ALIVE_MS = 600_000

# A series is missed when it is silent for this long, and for MISSED_SAMPLES of its usual gaps.
MISSED_MS = 10_000
MISSED_SAMPLES = 3

# Devices that were found silent are not asked about again for this long, which doubles up to the second.
AGAIN_S_FIRST, AGAIN_S_MAX = 10.0, 60.0

# Rows younger than this may become visible between two questions.
YOUNG_MS = 2_000

_NO_SERIES = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Suspect:
    """A series that was alive and of which an answer had nothing, with its newest known sample."""

    key: SeriesKey
    last_ms: int
    to_ms: int


def suspect(
    answers: Sequence[Answer], cursors: Cursors, keys: Sequence[SeriesKey], alive_ms: float = np.inf
) -> Suspect | None:
    """Of the series whose answers are empty the one that was alive most lately, if it is missed. Pure.

    Series without a sample for ``alive_ms`` do not count.
    """
    found: Suspect | None = None
    for answer in answers:
        if answer.error is not None or len(answer.points) or answer.query.to_ms is not None:
            continue
        series = answer.query.series
        last = cursors.last_ms[series]
        missed = _missed(cursors, series, answer.to_ms) & (answer.to_ms - last < alive_ms)
        if missed.any():
            at = int(np.argmax(np.where(missed, last, -1)))
            if found is None or last[at] > found.last_ms:
                found = Suspect(keys[int(series[at])], int(last[at]), answer.to_ms)
    return found


def _any_new(answers: Sequence[Answer], cursors: Cursors) -> bool:
    """Whether a watched series has a sample that is newer than all that are known of it, or is new itself."""
    for answer in answers:
        # Answers may bring series that have no cursor yet.
        met = answer.points.series < len(cursors)
        points = answer.points.take(met)
        newer = cursors.selected[points.series] & (points.t_ms > cursors.last_ms[points.series])
        if newer.any() or not met.all():
            return True
    return False


def _missed(cursors: Cursors, series: I64, to_ms: int) -> Bool:
    """Which of these series have sent before and are silent for longer than usual."""
    last = cursors.last_ms[series]
    usual = np.maximum(MISSED_MS, MISSED_SAMPLES * cursors.cadence_ms[series])
    missed: Bool = (last >= 0) & (to_ms - last > usual)
    return missed


def _all_missed(cursors: Cursors, to_ms: int) -> bool:
    """Whether every watched series that ever sent is silent for longer than usual."""
    known = np.flatnonzero(cursors.selected & (cursors.last_ms >= 0))
    return bool(len(known) and _missed(cursors, known, to_ms).all())


def _disbelieve(answers: Sequence[Answer], why: str) -> None:
    """Give the empty answers an error, so that no cursor follows from them."""
    for answer in answers:
        if answer.error is None and not len(answer.points):
            answer.error = TransientError(f"empty answers are not believed: {why}")


class Crosscheck:
    """Judges what the answers of a tick say of the platform."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._again_s = 0.0
        self._wait_s = AGAIN_S_FIRST
        self._told = Verdict.OK

    async def verdict(self, answers: list[Answer], cursors: Cursors, keys: Sequence[SeriesKey]) -> Verdict:
        """The verdict on a tick. Empty answers of an ill platform get an error: nothing follows from them."""
        verdict, why = await self._judge(answers, cursors, keys)
        if verdict != self._told:
            level = logging.INFO if verdict is Verdict.OK else logging.WARNING
            event(log, level, f"platform_{verdict.removeprefix('platform_')}", was=str(self._told), why=why)
            self._told = verdict
        return verdict

    async def _judge(
        self, answers: list[Answer], cursors: Cursors, keys: Sequence[SeriesKey]
    ) -> tuple[Verdict, str]:
        for answer in answers:
            if isinstance(answer.error, AuthError):
                return Verdict.KEY_TROUBLE, str(answer.error)
        errors = [answer.error for answer in answers if answer.error is not None]
        if errors and len(errors) == len(answers):
            return Verdict.PLATFORM_ILL, str(errors[0])
        rows = any(len(answer.points) for answer in answers)
        to_ms = max((answer.to_ms for answer in answers), default=0)
        missed = suspect(answers, cursors, keys, ALIVE_MS if rows else np.inf)
        silent = (
            Verdict.NO_DATA if not _any_new(answers, cursors) and _all_missed(cursors, to_ms) else Verdict.OK
        )
        if missed is None:
            self._wait_s = AGAIN_S_FIRST
        elif not (rows or self._told is Verdict.NO_DATA) or clock.monotonic_s() >= self._again_s:
            verdict, why = await self._ask(missed)
            self._again_s = clock.monotonic_s() + self._wait_s
            self._wait_s = min(2 * self._wait_s, AGAIN_S_MAX)
            if verdict is Verdict.PLATFORM_ILL:
                _disbelieve(answers, why)
            return (silent if verdict is Verdict.NO_DATA else verdict), why
        return silent, "rows come again" if silent is Verdict.OK else "the app answers, with nothing new"

    async def _ask(self, missed: Suspect) -> tuple[Verdict, str]:
        """What the read API has of a missed series, and if that leaves doubt, whether the app still shows the
        sample that it has shown before."""
        who, paused = f"{missed.key.metric} of {missed.key.source}", ""
        try:
            params = wire.raw_params(missed.key.metric, missed.last_ms + 1, missed.to_ms - YOUNG_MS)
            newer = wire.decode_raw_times(await self._client.raw_rows(missed.key.source, params))
        except AuthError as error:
            doubt = f"the read API refuses the key: {error}"
            paused = doubt if " 402:" in str(error) else ""
        except (ApiError, ContractError) as error:
            doubt = f"the read API does not help: {error}"
        else:
            if not newer:
                return Verdict.NO_DATA, f"neither the app nor the read API has anything new of {who}"
            doubt = f"the read API has {len(newer)} newer rows of {who}"
        if not await self._shows(missed):
            why = f"the app does not even show the last sample of {who}; {doubt}{await self._loops()}"
            return Verdict.PLATFORM_ILL, why
        if paused:
            return Verdict.KEY_TROUBLE, paused
        return Verdict.NO_DATA, f"the app shows the last sample of {who} and nothing after it"

    async def _shows(self, missed: Suspect) -> bool:
        """Whether the app shows the newest sample that we know of."""
        query = Query(
            missed.key.source, (missed.key.metric,), missed.last_ms, missed.last_ms + 1, 1, _NO_SERIES
        )
        params = wire.telemetry_params(query.source, query.metrics, query.from_ms, query.to_ms, query.limit)
        try:
            return wire.decode_telemetry(await self._client.telemetry(params), SeriesTable()).count > 0
        except PlexusDetectError:
            return False

    async def _loops(self) -> str:
        """What the platform says of itself, as the end of a sentence."""
        try:
            await self._client.ping()
        except PlexusDetectError as error:
            return f"; {error}"
        return "; /api/ping says that its loops run"
