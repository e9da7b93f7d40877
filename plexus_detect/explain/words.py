"""A receipt as text for people and as JSON for programs. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from plexus_detect import __version__
from plexus_detect.backtest.moments import duration_text, exact_stamp
from plexus_detect.detectors.base import Term
from plexus_detect.explain.account import Account, Episode, Group, Judged, Taken
from plexus_detect.fleet import WORDS
from plexus_detect.limits import Limits
from plexus_detect.series import Reason
from plexus_detect.stats import MAGNITUDE_MAX

# How a term gives its score: plain arithmetic in doubles, in this order, gives the detector's bits.
FORMULA = "z = sign * min(min(|(observed - centre) / scale|, most) * factor, 1e9)"
BESIDES = "without a scale the distance is 0; the largest |z| decides"

TERM_HEAD = ("", "check", "observed", "centre", "scale", "factor", "z", "what is compared")

_DIRECTION = {0: "both", 1: "up", -1: "down"}


def config_hash(account: Account) -> str:
    """Twelve hex digits of the SHA-256 of everything that a score of this rule depends on."""
    return hashlib.sha256(account.rule.fingerprint().encode()).hexdigest()[:12]


def state_of(account: Account) -> str:
    """``scored``, or why there is no score."""
    receipt, own = account.taken.receipt, account.taken.own
    if not math.isnan(own.z):
        return "scored"
    if own.reason is Reason.WARMING:
        return f"warming: {receipt.learned} of {receipt.needed} points"
    return _unknown(own.reason, account.value)


def fleet_state_of(account: Account, group: Group) -> str:
    """The same against the fleet."""
    fleet = account.taken.fleet
    if fleet is None or fleet.reason is Reason.GROUP_SMALL:
        return f"group too small: {group.group_min} members must have fresh values, it has {group.members}"
    return _unknown(fleet.reason, account.value) if math.isnan(fleet.z) else "scored"


def _verdict(taken: Taken) -> str | None:
    """The verdict in words, None where nobody can say."""
    known = taken.event or (taken.fleet is not None and not math.isnan(taken.fleet.z))
    return WORDS[taken.verdict] if known else None


def _unknown(reason: Reason, value: float) -> str:
    if reason is Reason.NOT_A_NUMBER and abs(value) <= MAGNITUDE_MAX:
        return "out of the valid range"
    words = {
        Reason.WARMING: "warming: too few points so far",
        Reason.NOT_A_NUMBER: "the value is not a number",
        Reason.FLAT: "flat: the series never moved",
        Reason.STALE: "stale: nothing new to compare with",
    }
    return words.get(reason, word(reason))


def word(reason: Reason) -> str:
    """A reason as people read it."""
    return reason.name.lower().replace("_", " ")


# -- text


def text_of(account: Account, asked_ms: int) -> str:
    """The receipt in lines."""
    lines = [f"{plain('/'.join(account.key))} at {exact_stamp(account.t_ms)}: {account.value:.6g}"]
    if asked_ms != account.t_ms:
        lines.append(f"the newest sample at or before {exact_stamp(asked_ms)}")
    lines += ["", *_judged_lines("own past", account.taken.own, state_of(account))]
    if account.group is not None:
        state = fleet_state_of(account, account.group)
        lines += _judged_lines(_group_text(account.group), account.taken.fleet, state)
        event = "; part of a fleet event, which counts as inside the line" if account.taken.event else ""
        verdict = _verdict(account.taken)
        lines += [f"verdict: {verdict}{event}"] if verdict is not None else []
    lines += _terms_lines(account)
    past, receipt = account.past, account.taken.receipt
    learned = f"{receipt.learned} points learned"
    if past.learned_from_ms is not None:
        learned += f", since {exact_stamp(past.learned_from_ms)}"
    learned += f"; at most {receipt.window}" if receipt.window else ""
    learned += f"; {receipt.aside} kept aside as suspect" if receipt.aside else ""
    lines += ["", f"past      {learned}"]
    read = f"{past.samples} samples read"
    if past.from_ms is not None:
        read += f", since {exact_stamp(past.from_ms)}"
    read += f", one every {duration_text(past.cadence_ms)}" if past.cadence_ms else ""
    read += f"; finest step {receipt.resolution:.6g}" if receipt.resolution else ""
    lines += [f"          {read}", f"limits    {_limits_text(account.limits)}"]
    lines.append(
        f"rule      {plain(account.rule.name)}, detector {account.rule.detector}, "
        f"config {config_hash(account)}, plexus-detect {__version__}"
    )
    return "\n".join(lines) + "\n"


def _group_text(group: Group) -> str:
    name = f" {plain(group.cohort)}" if group.cohort else ""
    return f"fleet{name} of {group.members}"


def _judged_lines(name: str, judged: Judged | None, state: str) -> list[str]:
    if judged is None or math.isnan(judged.z):
        return [f"{name}: {state}"]
    score = abs(judged.z) / judged.threshold
    place = "beyond the line" if score > 1 else "inside the line"
    numbers = f"z {judged.z:.6g}, line {judged.threshold:g}"
    lines = [f"{name}: score {score:.3g}, {place} at 1 ({numbers}): {word(judged.reason)}"]
    if not math.isnan(judged.lower):
        band = f"normal from {judged.lower:.6g} to {judged.upper:.6g}"
        lines.append(f"  expected {judged.expected:.6g}, {band}")
    if len(judged.steps) > 1:
        lines += [f"  {step.name}: {step.says} = {step.z:.6g}" for step in judged.steps]
    return [*lines, f"  {episode_text(judged.episode)}; counts as {judged.posted:.6g}"]


def episode_text(episode: Episode) -> str:
    """An episode in words."""
    if episode.is_open:
        since = exact_stamp(episode.since_ms)
        return f"episode open since {since} ({word(episode.reason)}, peak {episode.peak:.6g})"
    if episode.beyond:
        return f"no episode: {episode.beyond} of {episode.m} in {episode.n}"
    return "no episode"


def _terms_lines(account: Account) -> list[str]:
    receipt = account.taken.receipt
    if not receipt.terms:
        return []
    terms = sorted(receipt.terms, key=lambda term: -abs(term.z))
    rows = [_term_row(term, decides=term is receipt.deciding) for term in terms]
    origin = f"levels relative to origin {receipt.origin:.6g}" if receipt.origin else "levels as they are"
    return ["", *table([TERM_HEAD, *rows]), FORMULA, f"{BESIDES}; {origin}"]


def _term_row(term: Term, *, decides: bool) -> tuple[str, ...]:
    numbers = term.observed, term.centre, term.scale, term.factor, term.z
    cells = [f"{number + 0.0:.6g}" if math.isfinite(number) else "-" for number in numbers]
    return "*" if decides else "", word(term.reason), *cells, term.says


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, with the columns under one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _limits_text(limits: Limits) -> str:
    if limits == Limits():
        return "none"
    return (
        f"range {limits.low:g} to {limits.high:g}, direction {_DIRECTION[limits.direction]}, "
        f"min_abs {limits.min_abs:g}, min_rel {limits.min_rel:g}"
    )


def plain(name: str) -> str:
    """A name without characters that would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in name)


# -- JSON


def json_of(account: Account, asked_ms: int) -> dict[str, Any]:
    """Everything by name. Numbers are written so that reading them gives the same bits; null is unknown or
    infinite; times are ISO 8601 in UTC."""
    receipt, past = account.taken.receipt, account.past
    learned_ms = None if past.learned_from_ms is None else account.t_ms - past.learned_from_ms
    return {
        "source": account.key.source,
        "metric": account.key.metric,
        "asked": exact_stamp(asked_ms),
        "time": exact_stamp(account.t_ms),
        "value": number(account.value),
        "state": state_of(account),
        **_judged_json(account.taken.own),
        "checks": [_term_json(term, decides=term is receipt.deciding) for term in receipt.terms],
        "formula": f"{FORMULA}; {BESIDES}",
        "origin": receipt.origin,
        "past": {
            "learned": receipt.learned,
            "needed": receipt.needed,
            "window": receipt.window,
            "span_s": None if learned_ms is None else learned_ms / 1000,
            "kept_aside": receipt.aside,
            "cadence_s": None if past.cadence_ms is None else past.cadence_ms / 1000,
            "resolution": receipt.resolution,
            "samples_read": past.samples,
            "read_from": None if past.from_ms is None else exact_stamp(past.from_ms),
        },
        "fleet": _fleet_json(account),
        "limits": {
            "range": [number(account.limits.low), number(account.limits.high)],
            "direction": _DIRECTION[account.limits.direction],
            "min_abs": account.limits.min_abs,
            "min_rel": account.limits.min_rel,
        },
        "alerts_per_day": account.share_per_day,
        "rule": account.rule.name,
        "detector": account.rule.detector,
        "config": config_hash(account),
        "version": __version__,
    }


def _fleet_json(account: Account) -> dict[str, Any] | None:
    taken, group = account.taken, account.group
    if group is None:
        return None
    return {
        "cohort": group.cohort,
        "members": group.members,
        "group_min": group.group_min,
        "state": fleet_state_of(account, group),
        "fleet_event": taken.event,
        "verdict": _verdict(taken),
        **(_judged_json(taken.fleet) if taken.fleet is not None else {}),
    }


def _judged_json(judged: Judged) -> dict[str, Any]:
    known = not math.isnan(judged.z)
    return {
        "z": number(judged.z),
        "score": abs(judged.z) / judged.threshold if known else None,
        "threshold": judged.threshold,
        "reason": word(judged.reason),
        "expected": number(judged.expected),
        "scale": number(judged.scale),
        "lower": number(judged.lower),
        "upper": number(judged.upper),
        "posted": number(judged.posted),
        "sensitivity": judged.sensitivity,
        "budget": judged.raised,
        "steps": [{"step": s.name, "says": s.says, "z": number(s.z)} for s in judged.steps],
        "episode": episode_json(judged.episode),
    }


def episode_json(episode: Episode) -> dict[str, Any]:
    """An episode by name; null while there is none."""
    return {
        "open": episode.is_open,
        "since": exact_stamp(episode.since_ms) if episode.is_open else None,
        "reason": word(episode.reason) if episode.is_open else None,
        "peak": episode.peak if episode.is_open else None,
        "beyond": episode.beyond,
        "m": episode.m,
        "n": episode.n,
    }


def _term_json(term: Term, *, decides: bool) -> dict[str, Any]:
    return {
        "check": word(term.reason),
        "compares": term.says,
        "observed": term.observed,
        "centre": term.centre,
        "scale": number(term.scale),
        "factor": term.factor,
        "most": term.most,
        "sign": term.sign,
        "z": term.z,
        "decides": decides,
    }


def number(value: float) -> float | None:
    """A number for JSON, which has none that is not finite."""
    return value if math.isfinite(value) else None
