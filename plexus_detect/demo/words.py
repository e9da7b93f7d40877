"""Happenings as sentences for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plexus_detect.demo.scenario import RECOVERY_S
from plexus_detect.demo.story import Happening


def sentences(happening: Happening) -> list[str]:
    """The happening in words, one or more lines; none for what only a program wants to know."""
    said = happening.fields
    match happening.name:
        case "started":
            return _started(said)
        case "history_posted":
            return [f"{said['points']} readings of history posted through POST /ingest"]
        case "monitors_ready":
            return [
                f"{said['applied']} monitors applied: an alert when {said['metric']} is above "
                f"{said['threshold']:g}" + (f"; {said['failed']} failed" if said["failed"] else "")
            ]
        case "worker_started":
            return [f"the worker polls {said['series']} series every {said['interval_s']:g} s"]
        case "fault_started":
            size = f"{said['offset']:+.1f} ({said['deviations']:g} of its own deviations)"
            return [
                f"{said['source']}: fault injected, the sensor is off by {size} for {said['samples']} samples"
            ]
        case "fault_ended":
            return [f"{said['source']}: fault over, the sensor reads true again"]
        case "anomaly_opened" | "anomaly_closed" | "anomaly_relearned":
            return [_anomaly(happening.name, said)]
        case "slack":
            return [f"Slack: {said['title']}: {slack_words(said)}"]
        case "log":
            return [f"{said['component']}: {said['message']}"]
        case "summary":
            return _summary(said)
        case "keeping":
            return ["the replay goes on, with the fault once a round; Ctrl-C ends it"]
    return []


def _started(said: Mapping[str, Any]) -> list[str]:
    pace = f"1 h of it in {said['sample_s']:g} s"
    recovery = f"alerts resolve in {said['recovery_s']:g} s, not {RECOVERY_S:g} s"
    return [
        f"{said['devices']} devices replay an office's recorded temperature, {pace}",
        f"sandbox {said['url']}, its time {said['time_scale']:g}x: {recovery}",
    ]


def slack_words(said: Mapping[str, Any]) -> str:
    """A Slack message on one line: who, what, how much; the platform's own sentence comes last."""
    fields = dict(said["fields"])
    source, metric, value = (fields.pop(name, "") for name in ("Source", "Metric", "Value"))
    if value:
        value = f"{float(value):.4g}"
    rest = ", ".join(f"{name.lower()} {text}" for name, text in fields.items())
    return " ".join(part for part in (source, metric, value, f"({rest})", f'"{said["text"]}"') if part)


def _anomaly(name: str, said: Mapping[str, Any]) -> str:
    against = "the rest of the fleet" if "fleet" in said["series"] else "its own past"
    what = {
        "anomaly_opened": f"anomaly against {against}, score {said['score']:.1f}",
        "anomaly_closed": f"back to normal against {against}, score up to {said['score']:.1f}",
        "anomaly_relearned": f"this is the new normal against {against}",
    }[name]
    return f"{said['source']}: {what} ({said['metric']} {said['value']:.1f}, expected {said['expected']:.1f})"


def _summary(said: Mapping[str, Any]) -> list[str]:
    points = f"{said['points_sent']} sent, {said['points_read']} read, {said['points_scored']} scored"
    requests = f"{said['requests']} by the worker in {said['ticks']} ticks"
    opened = _after("opened", said["alert_opened_s"])
    resolved = _after("resolved", said["alert_resolved_s"])
    others = f"{said['other_alerts']} other alerts, {said['other_anomalies']} anomalies on other devices"
    verdict = f"failed: {said['failure']}" if said["failure"] else "the fault was alerted and resolved"
    return [
        f"points: {points}; {said['derived_posted']} derived points posted",
        f"requests: {requests}; {said['requests_all']} to the sandbox in all",
        f"anomaly: {_found(said['anomaly_after_samples'])}; beside it {others}",
        f"alert: {opened} the fault began, {resolved} it ended",
        f"summary: {verdict}",
    ]


def _found(samples: int | None) -> str:
    return "not found" if samples is None else f"found after {samples} sample{'s' * (samples != 1)}"


def _after(what: str, seconds: float | None) -> str:
    return f"not {what} after" if seconds is None else f"{what} {seconds:.1f} s after"
