"""What the real platform does not have: ``/slack`` to read messages, ``/manage/*`` to make trouble."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from plexus_detect.sandbox.calls import Call, Refusal, json_body, nobody, reply, route
from plexus_detect.sandbox.faults import KINDS
from plexus_detect.sandbox.plexus import Plexus


def slack(plexus: Plexus, call: Call) -> Response:
    """Return the kept Slack messages, newest last."""
    del call
    return reply({"messages": [sent.shown() for sent in plexus.slack.messages()]})


def clear_slack(plexus: Plexus, call: Call) -> Response:
    """Forget the kept Slack messages."""
    del call
    plexus.slack.clear()
    return reply({"success": True})


def faults(plexus: Plexus, call: Call) -> Response:
    """Return the faults in force and the kinds there are."""
    del call
    return reply({"faults": plexus.faults.listed(), "kinds": KINDS})


def add_fault(plexus: Plexus, call: Call) -> Response:
    """Put a fault in force; the body holds its fields, ``kind`` at least."""
    try:
        body: Any = json_body(call)
        if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
            raise ValueError("the body must be an object with a kind")
        fault = plexus.faults.add(**body)
    except (ValueError, TypeError) as error:
        raise Refusal(400, {"error": str(error)}) from None
    return reply({"id": fault.id}, 201)


def clear_faults(plexus: Plexus, call: Call) -> Response:
    """End every fault, or the one named by ``id``."""
    text = call.query.get("id", "")
    if text and not text.isdecimal():
        raise Refusal(400, {"error": "id must be a number"})
    plexus.faults.clear(int(text) if text else None)
    return reply({"success": True})


def requests(plexus: Plexus, call: Call) -> Response:
    """Return how many requests each route got."""
    del call
    return reply({"total": plexus.traffic.total, "counts": dict(plexus.traffic.counts)})


def routes(plexus: Plexus) -> list[Route]:
    """Return the management routes; no key is asked for, so keep the sandbox on loopback."""
    return [
        route(plexus, "/slack", nobody, GET=slack, DELETE=clear_slack),
        route(plexus, "/manage/faults", nobody, GET=faults, POST=add_fault, DELETE=clear_faults),
        route(plexus, "/manage/requests", nobody, GET=requests),
    ]
