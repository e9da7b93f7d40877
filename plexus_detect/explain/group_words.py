"""The receipt of a group's score as text for people and as JSON for programs. Pure."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from plexus_detect import __version__
from plexus_detect.backtest.moments import exact_stamp
from plexus_detect.explain.group import GroupAccount, Part
from plexus_detect.explain.words import episode_json, episode_text, number, plain, table

HEAD = ("metric", "value", "usual", "share")


def config_hash(account: GroupAccount) -> str:
    """Twelve hex digits of the SHA-256 of everything that a score of this group depends on."""
    return hashlib.sha256(account.rule.fingerprint().encode()).hexdigest()[:12]


def state_of(account: GroupAccount) -> str:
    """``scored``, or why there is no score."""
    if not math.isnan(account.z):
        return "scored"
    if account.error is not None:
        return f"warming: {account.error}"
    return f"warming: {account.collected} of {account.needed} rows"


def text_of(account: GroupAccount, asked_ms: int) -> str:
    """The receipt in lines."""
    lines = [f"{plain('/'.join(account.key))} at {exact_stamp(account.t_ms)}: {_score_text(account)}"]
    if asked_ms != account.t_ms:
        lines.append(f"the newest row at or before {exact_stamp(asked_ms)}")
    card = account.card
    if card is not None:
        lines.append(f"  {episode_text(account.episode)}; counts as {account.posted:.6g}")
    lines += ["", *table([HEAD, *map(_part_row, account.parts)])]
    lines += ["usual: the median of the training rows; share: the part of the metric in the score", ""]
    if card is not None:
        span = f"from {exact_stamp(card.from_ms)} to {exact_stamp(card.to_ms)}"
        lines.append(f"model     {card.backend} version {card.version}, {card.rows} rows {span}")
        odd = f"{card.left_out} rows left out as anomalous (contamination {card.contamination:g})"
        measured = f"the line measured on {card.held_back} held back"
        lines.append(f"          {odd}, {measured}; data {card.data_hash[:12]}")
    lines.append(
        f"rows      {account.joined} joined; {account.left_out} points came too late for theirs, "
        f"{account.alone} rows had fewer than two values"
    )
    lines.append(
        f"group     {_rule_text(account)}, config {config_hash(account)}, plexus-detect {__version__}"
    )
    return "\n".join(lines) + "\n"


def _score_text(account: GroupAccount) -> str:
    if math.isnan(account.z):
        return state_of(account)
    line = account.rule.episode.threshold
    place = "beyond the line" if account.z > line else "inside the line"
    return f"score {account.z / line:.3g}, {place} at 1 (z {account.z:.6g}, line {line:g})"


def _part_row(part: Part) -> tuple[str, ...]:
    share = "-" if math.isnan(part.share) else f"{100 * part.share:.0f} %"
    return (
        plain(part.metric),
        *(f"{x:.6g}" if math.isfinite(x) else "-" for x in (part.value, part.usual)),
        share,
    )


def _rule_text(account: GroupAccount) -> str:
    rule = account.rule
    scope = "one model for all sources" if rule.shared else "a model for each source"
    return f"{rule.name}, learned {rule.backend}, {scope}"


def json_of(account: GroupAccount, asked_ms: int) -> dict[str, Any]:
    """Everything by name; null is unknown or missing, times are ISO 8601 in UTC."""
    rule, card, known = account.rule, account.card, not math.isnan(account.z)
    return {
        "source": account.key.source,
        "group": account.key.metric,
        "asked": exact_stamp(asked_ms),
        "time": exact_stamp(account.t_ms),
        "state": state_of(account),
        "z": number(account.z),
        "score": account.z / rule.episode.threshold if known else None,
        "threshold": rule.episode.threshold,
        "posted": number(account.posted),
        "sensitivity": rule.sensitivity,
        "episode": episode_json(account.episode),
        "metrics": [
            {
                "metric": part.metric,
                "value": number(part.value),
                "usual": number(part.usual),
                "share": number(part.share),
            }
            for part in account.parts
        ],
        "backend": rule.backend,
        "scope": "cohort" if rule.shared else "source",
        "model": None
        if card is None
        else {
            "version": card.version,
            "rows": card.rows,
            "from": exact_stamp(card.from_ms),
            "to": exact_stamp(card.to_ms),
            "left_out": card.left_out,
            "held_back": card.held_back,
            "contamination": card.contamination,
            "seed": card.seed,
            "data_hash": card.data_hash,
        },
        "rows": {
            "joined": account.joined,
            "points_too_late": account.left_out,
            "too_few_values": account.alone,
            "collected": account.collected,
            "needed": account.needed,
        },
        "error": account.error,
        "config": config_hash(account),
        "version": __version__,
    }
