"""explain: the numbers of a receipt give the bits of the score, from a file as from the platform."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backtest_week import HOUR, MINUTE, T0, config, week, write_csv
from fake_platform import FakeClock, settings
from pipe import DEVICES, QUIET, Pipe, play, quiet_room
from pydantic import SecretStr
from streams import points
from subprocess_worker import environment, finished

from plexus_detect.backtest.moments import exact_stamp
from plexus_detect.backtest.replay import Admitted
from plexus_detect.config import Config
from plexus_detect.detectors import REGISTRY, DetectorParams
from plexus_detect.errors import ConfigError
from plexus_detect.evaluate import State, evaluate
from plexus_detect.explain import command
from plexus_detect.explain.account import Account, account, sample_at
from plexus_detect.explain.command import Question
from plexus_detect.explain.words import json_of, text_of
from plexus_detect.policy import policy_of
from plexus_detect.sandbox import Sandbox
from plexus_detect.series import Kind, Points, SeriesKey, SeriesTable

KEY = SeriesKey("dev-1", "m0")
NOWHERE = environment("http://127.0.0.1:1", "")


def bits(number: float) -> bytes:
    """What a double is made of."""
    return struct.pack("<d", number)


def recomputed(check: dict[str, Any]) -> float:
    """The formula of the receipt, in plain floats."""
    distance = 0.0
    if check["scale"] is not None:
        distance = min(abs((check["observed"] - check["centre"]) / check["scale"]), check["most"])
    z: float = check["sign"] * min(distance * check["factor"], 1e9)
    return z


def eventful() -> Points:
    """A series with noise and a slow wave, a spike, a stuck stretch, a silence, and a change of unit."""
    rng = np.random.default_rng(3)
    k = np.arange(500)
    value = np.round(20 + rng.normal(0, 0.3, 500) + np.sin(k / 40), 2)
    value[250:254] += 6.0
    value[300:320] = value[300]
    value[400:430] = 1.8 * value[400:430] + 32
    t_ms = T0 + MINUTE * k
    t_ms[350:] += 3 * HOUR
    return points(0, t_ms, value)


def receipt_of(given: Config, past: Points, at: int, key: SeriesKey = KEY) -> dict[str, Any]:
    """The receipt of the sample at one position of a series of its own, as a program reads it."""
    sample = int(past.t_ms[at]), float(past.value[at])
    found = account(policy_of(given), [Admitted(0, key, 0)], past, 0, sample)
    told: dict[str, Any] = json.loads(json.dumps(json_of(found, sample[0]), allow_nan=False))
    assert text_of(found, sample[0]).startswith(f"{key.source}/{key.metric} at ")
    return told


def live(given: Config, past: Points) -> tuple[list[float], dict[int, float]]:
    """The scores that one call gives, and what is posted raw by time."""
    table = SeriesTable()
    table.add(*KEY)
    state = State(table, policy_of(given))
    state.admit(0, 0)
    found = evaluate(state, past, int(past.t_ms[-1]))
    posted = found.derived.take(found.derived.kind == Kind.ZSCORE_RAW)
    return found.scores.z.tolist(), dict(zip(posted.t_ms.tolist(), posted.value.tolist(), strict=True))


# --- the same bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGISTRY)
def test_the_numbers_give_the_score(name: str) -> None:
    """Of every detector: recomputing z from the printed numbers with plain floats gives the posted bits, and
    so do all the checks that did not decide."""
    past = eventful()
    given = config(
        detect__detector=name,
        detect__sensitivity="low",
        detect__window="60",
        detect__min_points="20",
        post__series='["zscore_raw"]',
    )
    z, posted = live(given, past)
    for at in (50, 253, 350, 405):
        told = receipt_of(given, past, at)
        assert told["state"] == "scored"
        for check in told["checks"]:
            assert bits(recomputed(check)) == bits(check["z"])
        (decides,) = [check for check in told["checks"] if check["decides"]]
        assert decides["z"] == told["steps"][0]["z"]
        assert abs(decides["z"]) == max(abs(check["z"]) for check in told["checks"])
        assert bits(recomputed(decides) / 1.5) == bits(told["z"]) == bits(z[at])
        assert bits(told["z"]) == bits(posted[int(past.t_ms[at])])
        assert told["reason"] == decides["check"]


@pytest.mark.parametrize("name", REGISTRY)
def test_a_receipt_changes_nothing(name: str) -> None:
    """Asking for the receipt of any point, a late one, one after a silence or one that is no number among
    them, leaves the state of every detector as it is; a point without a score has no terms."""
    detector, past = REGISTRY[name](DetectorParams(window=40, min_points=10)), eventful().take(slice(0, 360))
    detector.grow(1)
    past.value[[30, 200]] = np.nan
    past.late[[40, 210]] = True
    for at in range(len(past)):
        point = past.take(slice(at, at + 1))
        before = {k: column.copy() for k, column in detector.dump().items()} if at % 30 in (0, 10, 20) else {}
        told = detector.receipt(point)
        after = detector.dump()
        assert all(np.array_equal(c, after[k], equal_nan=c.dtype.kind == "f") for k, c in before.items())
        z = float(detector.step(point).z[0])
        assert np.isnan(z) if told.deciding is None else bits(told.deciding.z) == bits(z)


def test_every_step_is_told() -> None:
    """Limits, budget and range: what they did to the score stands in the receipt, with their numbers."""
    past = eventful()
    told = receipt_of(limited(min_abs=20.0), past, 251)
    assert [step["step"] for step in told["steps"]] == ["detector", "limits"]
    assert told["z"] == 3.0 == told["steps"][-1]["z"]
    told = receipt_of(limited(range=(None, 25.0)), past, 251)
    (step,) = [step for step in told["steps"] if step["step"] == "range"]
    assert step["says"] == "3.0 * (2.0 + |value - 25.0| / 25.0), or |z| if that is more"
    assert told["z"] == 3.0 * (2.0 + abs(told["value"] - 25.0) / 25.0)
    assert (told["state"], told["checks"]) == ("scored", [])
    budget = config(
        detect__alert_budget="1/week",
        detect__detector="zscore",
        detect__consecutive="1",
        fleet__enabled="false",
    )
    told = receipt_of(budget, past, 404)
    assert told["budget"] > 1.0
    assert told["alerts_per_day"] == 1 / 7
    assert bits(recomputed(told["checks"][0]) / told["budget"]) == bits(told["z"])


def limited(**limits: Any) -> Config:
    """A configuration with these limits of every metric."""
    return config(metrics=json.dumps({"*": limits}))


# --- unknown ----------------------------------------------------------------------------------------------


def test_a_young_series_says_how_young() -> None:
    """Words instead of a score: how many points there are of those that are needed, and no band."""
    told = receipt_of(config(), eventful(), 12)
    assert told["state"] == "warming: 12 of 32 points"
    assert [told[k] for k in ("z", "score", "lower", "posted", "checks")] == [None] * 4 + [[]]
    assert told["past"]["learned"] == 12
    told = receipt_of(config(detect__detector="zscore"), eventful(), 0)
    assert told["state"] == "warming: 0 of 30 points"
    assert told["past"]["read_from"] is None


def test_what_is_no_number() -> None:
    """A sample that is no number is one to ask about; of two at one time the smaller counts."""
    past = eventful().take(slice(0, 60))
    past.value[50] = np.nan
    assert receipt_of(config(), past, 50)["state"] == "the value is not a number"
    twice = Points.concat([past, points(0, past.t_ms[40], past.value[40] - 1.0)])
    assert sample_at(twice, 0, int(past.t_ms[41]) - 1) == (past.t_ms[40], past.value[40] - 1.0)
    assert sample_at(twice, 0, T0 - 1) is None
    assert sample_at(twice, 7, T0) is None


def test_what_was_learned(tmp_path: Path) -> None:
    """Window, points kept aside, cadence, resolution, and what an episode is made of."""
    given = config(
        detect__detector="zscore", detect__window="60", detect__min_points="20", fleet__group_min="3"
    )
    told = receipt_of(given, eventful(), 253)
    past = told["past"]
    assert (past["learned"], past["window"], past["kept_aside"]) == (60, 60, 4)
    assert (past["cadence_s"], past["span_s"], past["samples_read"]) == (60.0, 64 * 60.0, 253)
    assert past["resolution"] == pytest.approx(0.01)
    episode = told["episode"]
    assert (episode["open"], episode["since"], episode["reason"]) == (
        True,
        exact_stamp(T0 + 250 * MINUTE),
        "deviation",
    )
    assert told["posted"] == abs(told["z"])
    assert receipt_of(given, eventful(), 251)["episode"]["beyond"] == 2
    assert len(told["config"]) == 12
    assert receipt_of(config(), eventful(), 253)["config"] != told["config"]


# --- a fleet, from a file and from the platform -----------------------------------------------------------


def test_the_platform_gives_what_a_file_gives(tmp_path: Path) -> None:
    """The same rows through the API and in a CSV make the same receipt, to the byte, fleet and all."""
    keys, rows = week(devices=6, metrics=2)
    shift = time.time_ns() // 1_000_000 - MINUTE - int(rows.t_ms.max())
    rows = Points(rows.series, rows.t_ms + shift, rows.value)
    at = exact_stamp(T0 + shift + 5 * HOUR + 4 * MINUTE)
    with Sandbox() as box:
        columns = zip(rows.series.tolist(), rows.t_ms.tolist(), rows.value.tolist(), strict=True)
        box.load([(*keys[s], t, v) for s, t, v in columns])
        env = environment(box.url, box.key, poll__limit="1000")
        live = finished(["explain", "dev-1", "m0", at, "--output", "json"], env, tmp_path)
        assert (live.returncode, live.stderr) == (0, "")
        assert len(box.rows()) == len(rows)
    write_csv(tmp_path / "same.csv", keys, rows)
    file = finished(
        ["explain", "dev-1", "m0", at, "--csv", "same.csv", "--output", "json"], NOWHERE, tmp_path
    )
    assert file.stdout == live.stdout
    told = json.loads(live.stdout)
    assert (told["fleet"]["members"], told["fleet"]["verdict"]) == (6, "odd device")
    assert told["score"] > 1


def test_the_receipt_is_of_the_score_that_was_posted(stopped: FakeClock) -> None:
    """What a worker posted, against the own past and against the fleet, is what the receipts say, bit for
    bit; read from the platform that holds both."""
    given = settings(
        detect__window="60",
        poll__interval="1s",
        fleet__settle="1500ms",
        post__series='["zscore", "zscore_raw", "fleet_zscore", "fleet_zscore_raw", "lower"]',
    )
    told: list[dict[str, Any]] = []

    async def room(pipe: Pipe) -> None:
        await pipe.steps(20)
        await pipe.steps(
            8, lambda t: [with_step(row, "dev-2") for row in (quiet_room(s, t) for s in DEVICES)]
        )
        asked_ms = pipe.now_ms - 1000
        await pipe.drain()
        asked = reaching(given, pipe.box)
        for back in range(0, 12, 3):
            question = Question("dev-2", QUIET, asked_ms - 1000 * back, None, None)
            policy = policy_of(given)
            series, members, rows = await command.from_platform(asked, policy, question)
            found = command.taken_apart(policy, question, members, series, rows)
            told.append(json_of(found, question.asked_ms))

    pipe = play(stopped, room, given=given)
    for receipt in told:
        for part, suffix in ((receipt, "zscore"), (receipt["fleet"], "fleet_zscore")):
            for name, value in ((suffix, part["posted"]), (suffix + "_raw", part["z"])):
                rows = {exact_stamp(r.t_ms): r.value for r in pipe.rows("dev-2", f"{QUIET}.{name}")}
                assert bits(rows[receipt["time"]]) == bits(value), name
    assert {receipt["episode"]["open"] for receipt in told} == {True, False}


def reaching(given: Config, box: Sandbox) -> Config:
    """The configuration with the addresses and the key of a sandbox."""
    addresses = dict.fromkeys(("endpoint", "gateway_url", "api_url"), box.url)
    plexus = given.plexus.model_copy(update={**addresses, "api_key": SecretStr(box.key)})
    return given.model_copy(update={"plexus": plexus})


def with_step(row: tuple[str, str, int, float], source: str) -> tuple[str, str, int, float]:
    """The sample, two more if it is of ``source``."""
    return (*row[:3], row[3] + 2.0 * (row[0] == source))


# --- what cannot be done ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="file")
def _file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of a small fleet."""
    return write_csv(tmp_path_factory.mktemp("explain") / "fleet.csv", *week(devices=6, metrics=1))


def from_file(file: Path, given: Config | None = None, **asked: str) -> Account:
    """The account of what these arguments ask for."""
    question = {"source": "dev-1", "metric": "m0", "time": "2026-05-01T05:00:00Z", "start": None, **asked}
    chosen = given or config()
    return command._account(chosen, command._question(chosen, {**question, "csv_file": file}))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"source": "dev_1"}, "SOURCE: 'dev_1' is not known here; did you mean 'dev-1'?"),
        ({"source": "pump"}, "choose one of dev-0, dev-1, dev-2"),
        ({"metric": "m00"}, "METRIC: 'm00' is not known here; did you mean 'm0'?"),
        ({"metric": "m0.zscore"}, "it is never scored"),
        ({"time": "noon"}, "TIME: 'noon' is no time; write an ISO date"),
        ({"time": "2020-01-01"}, "has no sample at or before 2020-01-01T00:00:00.000Z"),
        ({"start": "soon"}, "--from: 'soon' is no time"),
        ({"start": "2026-05-02"}, "--from: 2026-05-02T00:00:00Z is not before TIME"),
        ({"start": "2026-05-01T04:59:59.999Z"}, "has no sample at or before"),
    ],
)
def test_what_cannot_be_asked(file: Path, asked: dict[str, str], words: str) -> None:
    """One sentence, with the name that was probably meant."""
    with pytest.raises(ConfigError) as raised:
        from_file(file, **asked)
    assert words in str(raised.value)


def test_what_is_not_selected(file: Path) -> None:
    """A series that no rule selects has no score to explain."""
    with pytest.raises(ConfigError, match="dev-1/m0 is selected by no rule"):
        from_file(file, config(series='[{"sources": ["dev-2"]}]'))


def test_as_text(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person reads: which sample, both scores, the band, the verdict, the checks, and the past."""
    asked = {"source": "dev-1", "metric": "m0", "time": "2026-05-01T05:04:30Z", "start": None}
    monkeypatch.setattr("os.environ", {})
    assert command.explain.callback is not None
    command.explain.callback(config_paths=(), output="text", csv_file=file, **asked)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dev-1/m0 at 2026-05-01T05:04:12.923Z: 30.55"
    assert lines[1] == "the newest sample at or before 2026-05-01T05:04:30.000Z"
    text = "\n".join(lines)
    for words in (
        "own past: score ",
        ", beyond the line at 1 (z ",
        "  expected 2",
        ", normal from ",
        "  episode open since 2026-05-01T05:00:29.247Z (",
        "fleet of 6: score ",
        "verdict: odd device",
        "z = sign * min(min(|(observed - centre) / scale|, most) * factor, 1e9)",
        "levels relative to origin ",
        "299 samples read, since 2026-05-01T00:00:04.510Z, one every ",
        "rule      series-0, detector auto, config ",
    ):
        assert words in text, words
    assert sum(line.startswith("*  ") for line in lines) == 1


def test_from_and_cohorts(file: Path) -> None:
    """--from leaves out what is older; a cohort is named, and its members are those that are compared."""
    cohorts = config(fleet__cohorts='[{"name": "even", "sources": ["dev-[135]"]}]', fleet__group_min="3")
    found = from_file(file, cohorts, start="2026-05-01T03:00:00Z")
    assert found.past.from_ms is not None
    assert found.past.from_ms >= T0 + 3 * HOUR
    assert found.group is not None
    assert (found.group.cohort, found.group.members) == ("even", 3)
    alone = from_file(file, config(fleet__rest="false"))
    assert (alone.taken.fleet, alone.group) == (None, None)
    small = from_file(file, config(fleet__group_min="7"))
    told = json_of(small, small.t_ms)["fleet"]
    assert (told["state"], told["verdict"]) == (
        "group too small: 7 members must have fresh values, it has 6",
        None,
    )
