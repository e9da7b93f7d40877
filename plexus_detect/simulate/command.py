"""``plexus-detect simulate``: options in; rows, and the labels of what is wrong with them, out."""

from __future__ import annotations

import asyncio
import math
import os
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.errors import ConfigError
from plexus_detect.options import client_of, config_option, configured

# What takes long to import is imported when the command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.simulate.fleet import Plan

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)

# Below this the platform takes a time for seconds; noise is counted from the epoch on.
_START_MS_MIN = 10**12

DEVICES_MAX = 100_000


@dataclass(frozen=True)
class Asked:
    """What the options say of the fleet."""

    days: float
    start: str | None
    interval: str
    devices: int
    name: str
    seed: int
    anomalies: float
    normal_days: float
    missing: float
    jitter: str


@dataclass(frozen=True)
class Outlets:
    """What the options say of where rows go."""

    csv_file: Path | None
    labels: Path | None
    plexus: bool
    kafka: bool
    brokers: str
    topic: str
    settings: tuple[str, ...]
    pace: float


@click.command()
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write rows to this CSV.")
@click.option("--labels", type=click.Path(path_type=Path), help="Write the faults to this CSV.")
@click.option("--plexus", is_flag=True, help="Post rows to the platform of the configuration.")
@click.option("--kafka", is_flag=True, help="Send rows to a topic of Kafka (extra: kafka).")
@click.option("--days", default=30.0, show_default=True, help="How long it lasts.")
@click.option("--start", help="Its first moment: ISO time, epoch, or a duration back. Default: ends now.")
@click.option("--interval", default="60s", show_default=True, help="Time between two rows of a device.")
@click.option(
    "--devices", default=1, show_default=True, type=click.IntRange(1, DEVICES_MAX), help="Machines."
)
@click.option("--name", default="machine", show_default=True, help="They are called NAME-001, NAME-002, ...")
@click.option("--seed", default=42, show_default=True, type=click.IntRange(0, 2**63 - 1), help="Of chance.")
@click.option(
    "--anomalies", default=0.0, show_default=True, help="Faults a day and device, on average; at most 2."
)
@click.option("--normal-days", default=0.0, show_default=True, help="No faults in so many days at first.")
@click.option("--missing", default=0.0, show_default=True, help="Part of the values that is lost.")
@click.option("--jitter", default="0s", show_default=True, help="Rows come up to so much late.")
@click.option(
    "--pace", default=0.0, show_default=True, help="1: as time passes, from now on; 60: faster; 0: at once."
)
@click.option("--brokers", default="localhost:9092", show_default=True, help="Addresses of Kafka.")
@click.option("--topic", default="sensor-readings", show_default=True, help="Topic of Kafka.")
@click.option("-X", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of librdkafka.")
@config_option
def simulate(config_paths: tuple[Path, ...], **options: object) -> None:
    """Make the readings of machines with six correlated sensors, and faults of four kinds with labels.

    The same seed gives the same machines: a longer run, another start or more devices change nothing of what
    a device reads at a time.
    """
    where = Outlets(**{name: options.pop(name) for name in Outlets.__annotations__})  # type: ignore[arg-type]
    asked = Asked(**options)  # type: ignore[arg-type]
    if not (where.csv_file or where.labels or where.plexus or where.kafka):
        raise ConfigError("simulate: nowhere to go; give --csv FILE, --plexus or --kafka")
    _number("--pace", where.pace, 0.0, 1e9)
    plan = plan_of(asked, live=where.pace == 1)
    if where.labels is not None:
        _write_labels(where.labels, plan)
    count = asyncio.run(_run(plan, where, config_paths))
    click.echo(f"plexus-detect: {count} rows of {plan.devices} devices", err=True)


def plan_of(asked: Asked, *, live: bool) -> Plan:
    """The fleet that is asked for. Raises ConfigError."""
    from plexus_detect.simulate.anomalies import INTERVAL_MS_MAX, RATE_MAX
    from plexus_detect.simulate.fleet import Plan, days_ms

    _number("--days", asked.days, 1e-6, 36_500)
    _number("--normal-days", asked.normal_days, 0, 36_500)
    _number("--anomalies", asked.anomalies, 0, RATE_MAX)
    _number("--missing", asked.missing, 0, 1)
    interval_ms = _duration("--interval", asked.interval)
    _number("--interval", interval_ms / 1000, 0.001, 86_400)
    jitter_ms = _duration("--jitter", asked.jitter)
    if jitter_ms > interval_ms:
        raise ConfigError("--jitter: it is longer than --interval; rows would change places")
    if asked.anomalies and interval_ms > INTERVAL_MS_MAX:
        raise ConfigError("--interval: faults last hours or less; choose 15m or less, or --anomalies 0")
    if not _NAME.fullmatch(asked.name):
        raise ConfigError(
            f"--name: '{asked.name}' is no name of a source; write up to 64 letters a to z, digits, . _ and -"
        )
    start_ms = _start_ms(asked.start, days_ms(asked.days), live=live)
    return Plan(
        start_ms=start_ms,
        end_ms=start_ms + days_ms(asked.days),
        interval_ms=interval_ms,
        devices=asked.devices,
        seed=asked.seed,
        name=asked.name,
        anomalies=asked.anomalies,
        spoiled_ms=start_ms + days_ms(asked.normal_days),
        missing=asked.missing,
        jitter_ms=jitter_ms,
    )


def _start_ms(text: str | None, length_ms: int, *, live: bool) -> int:
    from plexus_detect import clock
    from plexus_detect.backtest.moments import TIME_FORMS, moment_ms, stamp

    now_ms = clock.now_ms()
    if text is None:
        return now_ms if live else now_ms - length_ms
    try:
        start_ms = moment_ms(text, now_ms)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"--start: '{text}' is no time; write {TIME_FORMS}, or 30d for thirty days back"
        ) from None
    if start_ms < _START_MS_MIN:
        raise ConfigError(f"--start: {stamp(start_ms)} is too early; choose one after {stamp(_START_MS_MIN)}")
    return start_ms


def _duration(option: str, text: str) -> int:
    from plexus_detect.config import duration_ms

    try:
        return duration_ms(text)
    except ValueError:
        raise ConfigError(f"{option}: '{text}' is no duration; write 500ms, 60s, 5m or 1h") from None


def _number(option: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        raise ConfigError(f"{option}: {value:g} is out of range; choose from {least:g} to {most:g}")


def _write_labels(path: Path, plan: Plan) -> None:
    from plexus_detect.simulate.fleet import labels_of
    from plexus_detect.simulate.messages import labels_csv
    from plexus_detect.simulate.outlets import writing

    with writing("--labels", path):
        path.write_text(labels_csv(labels_of(plan)), "utf-8")


async def _run(plan: Plan, where: Outlets, config_paths: tuple[Path, ...]) -> int:
    """Send all rows; how many there were."""
    from plexus_detect.simulate.fleet import simulated
    from plexus_detect.simulate.outlets import csv_file, gateway, kafka
    from plexus_detect.simulate.pacing import pass_on

    sources, puts = plan.sources, []
    async with AsyncExitStack() as stack:
        if where.csv_file is not None:
            puts.append(await stack.enter_async_context(csv_file(where.csv_file, sources)))
        if where.plexus:
            _refuse_the_future(plan, where.pace)
            client = client_of(configured(config_paths))
            puts.append(await stack.enter_async_context(gateway(client, sources, _tell)))
        if where.kafka:
            options = {"bootstrap.servers": where.brokers, **dict(map(_setting, where.settings))}
            puts.append(await stack.enter_async_context(kafka(where.topic, sources, options)))
        return await pass_on(simulated(plan), where.pace, plan.start_ms, puts) if puts else 0


def _tell(text: str) -> None:
    click.echo(f"plexus-detect: warning: {text}", err=True)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"-X: '{text}' is no setting; write KEY=VALUE, as in -X acks=1")
    # A variable may be named, since what stands here stands in the list of processes too.
    return name.strip(), os.path.expandvars(value)


def _refuse_the_future(plan: Plan, pace: float) -> None:
    """The platform stores what lies in the future, but shows it to nobody until then."""
    from plexus_detect import clock

    if pace != 1 and plan.end_ms > clock.now_ms() + plan.interval_ms:
        raise ConfigError(
            "--plexus: the last rows would lie in the future; choose an earlier --start, fewer --days, or "
            "--pace 1"
        )
