"""From the platform's answers to findings. Pure."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import msgspec

from plexus_detect.config import Config
from plexus_detect.doctor.findings import Finding, fail, failed, ok, warn
from plexus_detect.doctor.network import Ahead, Answers
from plexus_detect.errors import ContractError, PlexusDetectError, RejectedError, TransientError
from plexus_detect.monitors import existing_from
from plexus_detect.probe import Probe, Step
from plexus_detect.wire import decode_metric_names, decode_monitors, decode_sources

SKEW_MS = 5_000
UNREACHABLE = TransientError.exit_code
NO_KEY = "not checked: there is no key that could be used"

_TO_DO: Mapping[Step, str] = {
    "name": "check the address, and the name server of this machine",
    "proxy": "check the proxy, or name the host in NO_PROXY",
    "connection": "check the address, firewalls, and whether a proxy is needed (HTTPS_PROXY)",
    "certificate": "a certificate of your own has to be named in plexus.ca_file; never switch the check off",
    "answer": "something answers there, but not as a web server does: check the address",
}
_STEPS: Mapping[Step, str] = {
    "name": "DNS",
    "proxy": "proxy",
    "connection": "TCP",
    "certificate": "TLS",
    "answer": "answer",
}


class _Ping(msgspec.Struct):
    ok: bool
    loop_age_seconds: dict[str, float | None]


def findings_of(config: Config, answers: Answers) -> Iterator[Finding]:
    """Hosts, scopes, alert engine and clocks, in this order."""
    plexus = config.plexus
    urls = {"app": plexus.endpoint, "gateway": plexus.gateway_url, "read API": plexus.api_url}
    for name, url in urls.items():
        yield _host(name, url, answers.probes[name])
    if answers.client is not None and config.plexus.api_key is not None:
        yield failed("client", answers.client)
    yield _scope("read scope", answers.read, "GET /api/v1/telemetry")
    yield _scope("write scope", answers.write, "POST /ingest of no points")
    yield _read_api(answers.api)
    yield _alert_engine(answers.ping)
    yield _clocks(answers)


def _host(name: str, url: str, probe: Probe) -> Finding:
    through = f" through the proxy {probe.proxy}" if probe.proxy else ""
    if probe.failed is not None:
        found = f"{url} cannot be reached{through}: {_STEPS[probe.failed]}: {probe.error}"
        if name == "read API":
            return warn(name, f"{found}; metrics of silent sources are not found", _TO_DO[probe.failed])
        return fail(name, found, _TO_DO[probe.failed], exit_code=UNREACHABLE)
    took = ", ".join(f"{_STEPS[step]} {ms:.0f} ms" for step, ms in probe.took_ms.items())
    found = f"{url}{through}: {took}, status {probe.status}"
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        return warn(name, f"{found}; the key travels there in clear", "use https")
    return ok(name, found)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _scope(name: str, outcome: object, call: str) -> Finding:
    if isinstance(outcome, PlexusDetectError):
        return failed(name, outcome)
    return ok(name, f"{call} is allowed") if outcome is not None else warn(name, NO_KEY)


def _read_api(outcome: bytes | PlexusDetectError | None) -> Finding:
    """The worker goes on without the read API, so its troubles are warnings."""
    name, without = "read API answers", "the worker goes on without it, and misses metrics of silent sources"
    if outcome is None:
        return warn(name, NO_KEY)
    if isinstance(outcome, bytes):
        try:
            decode_metric_names(outcome)
        except ContractError as error:
            outcome = error
    # A source that it does not know is answered with 404.
    if isinstance(outcome, RejectedError) and "-> 404" in str(outcome):
        return ok(name, "and takes the key")
    return (
        warn(name, str(outcome), without) if isinstance(outcome, Exception) else ok(name, "and takes the key")
    )


def _alert_engine(outcome: bytes | PlexusDetectError | None) -> Finding:
    name, dead = "alert engine", "event and offline monitors are dead, that of our heartbeat too"
    if outcome is None:
        return warn(name, NO_KEY)
    if isinstance(outcome, RejectedError):
        return warn(name, f"the platform does not say how it is: {outcome}")
    if isinstance(outcome, PlexusDetectError):
        return fail(name, f"{outcome}; when it says 503, {dead}", "tell the platform", exit_code=UNREACHABLE)
    try:
        said = msgspec.json.decode(outcome, type=_Ping)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return warn(name, "GET /api/ping answers in a form that is not known", "check plexus.endpoint")
    ages = ", ".join(f"{loop} {age:.0f} s" for loop, age in said.loop_age_seconds.items() if age is not None)
    if not said.ok:
        return fail(name, f"a loop is stale ({ages}): {dead}", "tell the platform", exit_code=UNREACHABLE)
    return ok(name, f"its loops ran lately: {ages or 'no ages given'}")


def _clocks(answers: Answers) -> Finding:
    """The platform's own time counts; where that is not known, the dates of answers."""
    ahead: dict[str, float] = {}
    for name, probe in answers.probes.items():
        if probe.ahead_ms is not None:
            # A date has whole seconds, and half a second is nothing to tell of.
            ahead[name] = 0.0 if abs(probe.ahead_ms) <= 1_000 else probe.ahead_ms
    if isinstance(answers.read, Ahead) and answers.read.ms is not None:
        ahead["app"] = float(answers.read.ms)
    if not ahead:
        return warn("clock", "not compared: no answer said what time it is")
    told = ", ".join(f"{name} {ms / 1000:+.1f} s" for name, ms in ahead.items())
    if max(map(abs, ahead.values())) > SKEW_MS:
        return warn("clock", f"ahead of this machine's: {told}", "let this machine follow a time server")
    return ok("clock", f"ahead of this machine's: {told}")


def heartbeat(config: Config, answers: Answers) -> Finding:
    """Whether somebody is told when this worker dies."""
    name, source = "heartbeat", config.heartbeat.source
    if not config.heartbeat.enabled:
        return warn(name, "is off: when this worker dies nobody is told", "set heartbeat.enabled: true")
    if answers.monitors is None or answers.sources is None:
        return warn(name, NO_KEY)
    try:
        found = existing_from(decode_monitors(_body(answers.monitors)))
        slugs = {row.slug for row in decode_sources(_body(answers.sources))}
    except PlexusDetectError as error:
        return warn(name, f"not known whether a monitor watches it: {error}")
    mine = [monitor for monitor in found if monitor.key == (source, "", "offline")]
    timeout_s = max(300, 3 * config.heartbeat.interval_ms // 1000)
    if not mine:
        body = json.dumps({"source_id": source, "offline": {"timeout_seconds": timeout_s}})
        to_do = f"put {body} into a file in {config.monitors.path} and run: plexus-detect monitors apply"
        exists = "" if source in slugs else " (the source appears with the worker's first sign of life)"
        return warn(
            name, f"no offline monitor watches {source}: when this worker dies nobody is told{exists}", to_do
        )
    least = min(float(monitor.settings["timeout_seconds"]) for monitor in mine)
    if least * 1000 < 2 * config.heartbeat.interval_ms:
        found_ = f"{source} is watched, but its {least:g} s are less than two intervals of the heartbeat"
        return warn(name, found_, "lower heartbeat.interval")
    return ok(name, f"an offline monitor watches {source}: it tells after {least:g} s")


def _body(outcome: bytes | PlexusDetectError) -> bytes:
    if isinstance(outcome, PlexusDetectError):
        raise outcome
    return outcome
