"""What happened, in order, and what it amounts to: every number comes from the worker or the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from plexus_detect import clock
from plexus_detect.demo.scenario import SCORE
from plexus_detect.report import TickReport

TRIGGERED = "alert.triggered"
RESOLVED = "alert.resolved"


@dataclass(frozen=True)
class Happening:
    """One event: its name, when it was told (seconds since the start) and what there is to say."""

    name: str
    elapsed_s: float
    fields: Mapping[str, Any]

    def shown(self) -> dict[str, Any]:
        """The event as one flat JSON object."""
        return {"event": self.name, "elapsed_s": round(self.elapsed_s, 3), **self.fields}


@dataclass(frozen=True)
class SlackMessage:
    """A message as it went out: ``event`` is the platform's name for it, the rest is what a person reads."""

    t_ms: int
    event: str
    title: str
    summary: str
    fields: Mapping[str, str]

    @property
    def source(self) -> str:
        """Which device the message is about."""
        return self.fields.get("Source", "")

    @property
    def metric(self) -> str:
        """Which metric the message is about; empty for messages about a device as a whole."""
        return self.fields.get("Metric", "")


def read_slack(t_ms: int, event: str, body: Mapping[str, Any]) -> SlackMessage:
    """The words of a Slack message: its title, its sentence and its first section of fields."""
    sections = [b for b in body["attachments"][0]["blocks"] if b["type"] == "section"]
    title, _, summary = sections[0]["text"]["text"].partition("\n")
    fields: dict[str, str] = {}
    for item in (item for section in sections[1:] for item in section["fields"]):
        name, _, text = item["text"].partition("\n")
        fields.setdefault(name.strip("*:"), text)  # the platform repeats some names in a later section
    return SlackMessage(t_ms, event, title.strip("*"), summary, fields)


@dataclass(frozen=True)
class Anomaly:
    """An episode that the worker opened: ``t_ms`` is the sample that did it, ``series`` the score's name."""

    source: str
    series: str
    t_ms: int


@dataclass(frozen=True)
class Summary:
    """What the demo amounts to. ``requests`` are those of the worker, ``requests_all`` all that the sandbox
    answered; ``other_alerts`` are Slack alerts that the fault does not explain; ``failure`` says what did not
    happen and is None when the fault was alerted and resolved."""

    points_sent: int
    points_read: int
    points_scored: int
    derived_posted: int
    ticks: int
    requests: int
    requests_all: int
    anomaly_after_samples: int | None
    alert_opened_s: float | None
    alert_resolved_s: float | None
    slack_messages: int
    other_alerts: int
    other_anomalies: int
    failure: str | None

    def shown(self) -> dict[str, Any]:
        """Every number by name."""
        return asdict(self)


@dataclass
class Story:
    """Tells happenings to ``tell_to`` and keeps what the summary needs."""

    faulty: str
    tell_to: Callable[[Happening], None]
    began_s: float = field(default_factory=clock.monotonic_s)
    points_sent: int = 0
    points_read: int = 0
    points_scored: int = 0
    ticks: int = 0
    requests: int = 0
    fault_times_ms: list[int] = field(default_factory=list)
    fault_over_ms: int | None = None
    fault_on: bool = False
    anomalies: list[Anomaly] = field(default_factory=list)
    slack: list[SlackMessage] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return clock.monotonic_s() - self.began_s

    def tell(self, name: str, **fields: object) -> None:
        """Something happened now."""
        self.tell_to(Happening(name, self.elapsed_s, fields))

    def tick(self, report: TickReport, requests: int) -> None:
        """The worker ended a tick; its client has made ``requests`` so far."""
        self.ticks += 1
        self.requests = requests
        self.points_read += report.points
        self.points_scored += report.scored
        names = ("tick", "series", "points", "derived", "requests", "outbox", "lag_ms", "dur_ms")
        self.tell("tick", **{name: getattr(report, name) for name in names}, points_read=self.points_read)

    def message(self, message: SlackMessage) -> None:
        """A Slack message went out."""
        self.slack.append(message)
        self.tell(
            "slack",
            t_ms=message.t_ms,
            type=message.event,
            title=message.title,
            text=message.summary,
            fields=dict(message.fields),
        )

    @property
    def _since_ms(self) -> int | None:
        """The time of the first faulty sample."""
        return self.fault_times_ms[0] if self.fault_times_ms else None

    def open_alerts(self) -> int:
        """Alerts that Slack has heard of and that are not resolved."""
        names = [message.event for message in self.slack]
        return names.count(TRIGGERED) - names.count(RESOLVED)

    @property
    def phase(self) -> str:
        """What is going on now, in a few words."""
        if not self.ticks:
            return "setting up"
        if self.fault_on:
            return f"sensor fault on {self.faulty}"
        if self.open_alerts():
            return "fault over, alert open" if self.fault_over_ms else "calm, alert open"
        return "fault over, all calm" if self.fault_over_ms else "all calm"

    def alert(self) -> SlackMessage | None:
        """The first alert on the faulty device's score since the fault began."""
        return self._first(TRIGGERED, self._since_ms)

    def resolution(self) -> SlackMessage | None:
        """The message that resolved that alert."""
        alert = self.alert()
        return self._first(RESOLVED, alert.t_ms) if alert else None

    def _first(self, event: str, since_ms: int | None) -> SlackMessage | None:
        about = (m for m in self.slack if (m.event, m.source, m.metric) == (event, self.faulty, SCORE))
        return next((m for m in about if since_ms is not None and m.t_ms >= since_ms), None)

    def _found(self) -> Anomaly | None:
        since = self._since_ms
        mine = (a for a in self.anomalies if (a.source, a.series) == (self.faulty, SCORE))
        return next((a for a in mine if since is not None and a.t_ms >= since), None)

    def failure(self) -> str | None:
        """What did not happen, or None: the fault was alerted in Slack and resolved there."""
        if self.fault_over_ms is None:
            return "the replay did not get to the end of the fault: this machine is too slow for the pace"
        if self.alert() is None:
            found = "although the worker found it" if self._found() else f"and {SCORE} did not show it"
            return f"the fault on {self.faulty} raised no alert in Slack, {found}"
        if self.resolution() is None:
            return f"the alert on {self.faulty} was opened in Slack but not resolved"
        return None

    def summary(self, derived_posted: int, requests: int, requests_all: int) -> Summary:
        """What it amounts to, with the counts that the worker's client and the sandbox kept."""
        found, alert, resolution = self._found(), self.alert(), self.resolution()
        since, until = self._since_ms or 0, self.fault_over_ms or 0
        others = [m for m in self.slack if m.event == TRIGGERED and m is not alert]
        return Summary(
            points_sent=self.points_sent,
            points_read=self.points_read,
            points_scored=self.points_scored,
            derived_posted=derived_posted,
            ticks=self.ticks,
            requests=requests,
            requests_all=requests_all,
            anomaly_after_samples=sum(t <= found.t_ms for t in self.fault_times_ms) if found else None,
            alert_opened_s=(alert.t_ms - since) / 1000 if alert else None,
            alert_resolved_s=(resolution.t_ms - until) / 1000 if resolution and until else None,
            slack_messages=len(self.slack),
            other_alerts=len(others),
            other_anomalies=sum(a.source != self.faulty for a in self.anomalies),
            failure=self.failure(),
        )
