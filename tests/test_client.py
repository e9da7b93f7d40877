"""client: requests as they go out, and every answer of the platform as the right error."""

from __future__ import annotations

import gzip
import json
import sys
from email.utils import formatdate

import httpx
import pytest
import respx
from client_uses import (
    API,
    APP,
    GATEWAY,
    KEY,
    Use,
    answered,
    check_write,
    create_source,
    event,
    failure,
    ingest,
    offline,
    recorded,
    source_metrics,
    telemetry,
    threshold,
    use,
)
from recorded import RECORDED, body_of

from plexus_detect import clock
from plexus_detect.client import Client, Endpoints
from plexus_detect.errors import (
    AuthError,
    ContractError,
    PlexusDetectError,
    RejectedError,
    TransientError,
)

# --- requests as they go out ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use_client", "method", "url"),
    [
        (
            lambda c: c.telemetry({"metric": "a b,c+d", "from": "2026-01-01T00:00:00.000Z"}),
            "GET",
            f"{APP}/api/v1/telemetry?metric=a%20b%2Cc%2Bd&from=2026-01-01T00%3A00%3A00.000Z",
        ),
        (lambda c: c.fleet_health(), "GET", f"{APP}/api/fleet/health"),
        (lambda c: c.sources(), "GET", f"{APP}/api/sources"),
        (lambda c: c.source_metrics("a/b?c d"), "GET", f"{API}/v1/sources/a%2Fb%3Fc%20d/metrics"),
        (lambda c: c.monitors(), "GET", f"{APP}/api/monitors"),
        (ingest, "POST", f"{GATEWAY}/ingest"),
        (check_write, "POST", f"{GATEWAY}/ingest"),
        (threshold, "POST", f"{APP}/api/monitors"),
        (create_source, "POST", f"{APP}/api/sources"),
    ],
)
def test_each_method_is_one_request_to_its_endpoint(use_client: Use, method: str, url: str) -> None:
    """Method, address and key of every endpoint are the contract's, and the request is counted."""

    async def counted(client: Client) -> int:
        await use_client(client)
        return client.requests

    with respx.mock() as router:
        route = router.route().mock(return_value=httpx.Response(200, json={}))
        assert use(counted) == 1
    request = route.calls.last.request
    assert (request.method, httpx.URL(str(request.url).replace("+", "%20"))) == (method, httpx.URL(url))
    assert request.headers["x-api-key"] == KEY
    assert "authorization" not in request.headers


def test_bodies_come_back_as_they_are() -> None:
    """A read returns the bytes of the answer."""
    with respx.mock() as router:
        router.get(f"{APP}/api/v1/telemetry").mock(return_value=recorded("telemetry.normal"))
        assert use(telemetry) == body_of("telemetry.normal")


@pytest.mark.parametrize("isal", [True, False])
def test_points_go_out_compressed(isal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With or without the fast library the body is gzip and says so."""
    if not isal:
        monkeypatch.setitem(sys.modules, "isal", None)
    body = b'{"points":[' + b",".join([b'{"metric":"m"}'] * 500) + b"]}"
    with respx.mock() as router:
        route = router.post(f"{GATEWAY}/ingest").mock(return_value=recorded("ingest.one_point_ms"))
        assert use(lambda c: c.ingest(body)) == body_of("ingest.one_point_ms")
    request = route.calls.last.request
    assert request.headers["content-encoding"] == "gzip"
    assert len(request.content) < len(body) / 8
    assert gzip.decompress(request.content) == body


def test_check_write_posts_no_points() -> None:
    """The key check cannot store anything."""
    with respx.mock() as router:
        route = router.post(f"{GATEWAY}/ingest").mock(return_value=recorded("ingest.points_empty"))
        use(check_write)
    assert json.loads(gzip.decompress(route.calls.last.request.content)) == {"points": []}


def test_monitor_and_source_bodies_are_sent_as_given() -> None:
    """The platform sees the monitor that was asked for, and a recorded device source."""
    with respx.mock() as router:
        monitors = router.post(f"{APP}/api/monitors").mock(return_value=recorded("monitors.create_threshold"))
        sources = router.post(f"{APP}/api/sources").mock(return_value=recorded("sources.create"))
        use(offline)
        use(create_source)
    assert json.loads(monitors.calls.last.request.content) == {
        "source_id": "s",
        "offline": {"timeout_seconds": 60},
    }
    assert json.loads(sources.calls.last.request.content) == {
        "source_type": "device",
        "slug": "anomaly-bot",
        "name": "Anomaly bot",
    }


def test_trailing_slashes_of_addresses_do_not_matter() -> None:
    """The platform redirects a doubled or trailing slash, so none is ever sent."""
    with respx.mock() as router:
        router.get(f"{APP}/api/monitors").mock(return_value=recorded("monitors.list_empty"))
        use(lambda c: c.monitors(), endpoints=Endpoints(APP + "/", GATEWAY + "/", API + "//"))


# --- recorded answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use_client", "name", "kind", "says"),
    [
        (telemetry, "telemetry.key_missing", AuthError, "missing or malformed"),
        (telemetry, "telemetry.key_unknown", AuthError, "Unauthorized"),
        (telemetry, "telemetry.key_expired", AuthError, "unknown, expired"),
        (telemetry, "telemetry.key_write", AuthError, "needs read"),
        (telemetry, "telemetry.limit_over", RejectedError, "limit must not exceed 100000"),
        (telemetry, "telemetry.bad_from", RejectedError, "valid ISO 8601"),
        (telemetry, "telemetry.post", RejectedError, "405"),
        (telemetry, "telemetry.trailing_slash", ContractError, "308 to /api/v1/telemetry;"),
        (telemetry, "prodbuild.unknown_route_with_key", RejectedError, "404"),
        (telemetry, "verify_key.rate_limited", TransientError, "Too many"),
        (ingest, "ingest.key_read", AuthError, "API key lacks write scope"),
        (check_write, "ingest.key_read", AuthError, "API key lacks write scope"),
        (ingest, "ingest.key_missing", TransientError, "the key is bad or expired"),
        (ingest, "ingest.key_unknown", TransientError, "the key is bad or expired"),
        (ingest, "ingest.auth_backend_unreachable_valid_key", TransientError, "worth trying again"),
        (ingest, "ingest.invalid_json", RejectedError, "invalid JSON body"),
        (ingest, "ingest.10001_points", RejectedError, "too many points: 10001"),
        (ingest, "ingest.too_large", RejectedError, "payload too large"),
        (ingest, "ingest.get", RejectedError, "Method Not Allowed"),
        (ingest, "ingest.redis_hung", TransientError, "failed to queue telemetry"),
        (ingest, "ingest.redis_circuit_open", TransientError, "redis unavailable"),
        (threshold, "monitors.no_key", AuthError, "missing or malformed"),
        (threshold, "monitors.create_key_expired", AuthError, "Unauthorized"),
        (threshold, "monitors.unknown_source", RejectedError, "Source 'nope' not found in org"),
        (threshold, "monitors.bad_severity", RejectedError, "Invalid option"),
        (threshold, "monitors.targets_unknown_uuid", RejectedError, "Unknown notification target"),
        (threshold, "monitors.invalid_json", TransientError, "INTERNAL_ERROR"),
        (create_source, "sources.create_bad_slug", RejectedError, "lowercase"),
        (source_metrics, "v1.key_expired", AuthError, "invalid api key"),
        (source_metrics, "v1.key_disabled", AuthError, "billing"),
        (source_metrics, "v1.clickhouse_error_metrics", TransientError, "Internal Server Error"),
    ],
)
def test_recorded_refusals(use_client: Use, name: str, kind: type[PlexusDetectError], says: str) -> None:
    """Each recorded refusal becomes the error whose caller knows what to do, and says what was said."""
    error = answered(use_client, recorded(name))
    assert type(error) is kind
    assert says in str(error)
    assert f"-> {RECORDED[name]['status']}" in str(error)


def test_a_message_is_the_call_the_status_and_the_body() -> None:
    """The address stands without its query, the body in one line of at most 200 characters."""
    error = answered(lambda c: c.telemetry({"source": "dev-1"}), httpx.Response(400, text="long\n" * 100))
    assert str(error) == f"GET {APP}/api/v1/telemetry -> 400: {('long ' * 100)[:200].rstrip()}"


@pytest.mark.parametrize("status", [200, 307, 400, 401, 403, 404, 429, 500])
def test_an_echoed_key_is_masked(status: int) -> None:
    """A proxy or a sign-in address that repeats our key does not bring it into a message."""
    echo = httpx.Response(
        status,
        headers={"content-type": "text/html", "location": f"https://x.test/{KEY}?k={KEY}"},
        text=f"bad key {KEY}",
    )
    assert status == 307 or "plx_***" in str(answered(telemetry, echo))


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ('{"error":"points[3].value cannot be null"}', 3),
        ('{"error":"points[0] source_id must match ^[a-z0-9][a-z0-9._-]*$"}', 0),
        ('{"error":"' + "x" * 300 + ' points[9999] is null"}', 9999),
        ('{"error":"invalid JSON body"}', None),
    ],
)
def test_a_rejected_point_is_named(text: str, index: int | None) -> None:
    """The index in the gateway's sentence is on the error, also beyond what the message shows."""
    error = answered(ingest, httpx.Response(400, text=text))
    assert isinstance(error, RejectedError)
    assert error.index == index


def test_a_source_that_exists_is_done() -> None:
    """The 400 for a taken slug is a success, however long the slug."""
    taken = httpx.Response(
        400, json={"error": "V", "message": f'Source with slug "{"x" * 250}" already exists'}
    )
    for response in (recorded("sources.create_duplicate"), taken):
        with respx.mock() as router:
            router.post(f"{APP}/api/sources").mock(return_value=response)
            assert use(create_source) is None


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, html="<!DOCTYPE html><html>Sign in</html>"),
        httpx.Response(200, text="ok"),
        httpx.Response(200),
        httpx.Response(200, content=b"<html>", headers={}),
        httpx.Response(204),
    ],
)
@pytest.mark.parametrize("use_client", [telemetry, ingest, threshold, create_source])
def test_a_success_that_is_not_json_is_no_success(use_client: Use, response: httpx.Response) -> None:
    """Sign-in pages and captive portals answer 200 with HTML; nothing may be concluded from them."""
    assert type(answered(use_client, response)) is ContractError


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", None])
def test_json_is_known_by_its_type_or_its_look(content_type: str | None) -> None:
    """A success with JSON passes, also when a proxy dropped the type."""
    headers = {"content-type": content_type} if content_type else {}
    with respx.mock() as router:
        router.route().mock(return_value=httpx.Response(200, content=b' {"a":1}', headers=headers))
        assert use(telemetry) == b' {"a":1}'


@pytest.mark.parametrize("location", ["/sign-in", "https://accounts.test/sign-in/?redirect_url=x"])
def test_sign_in_is_a_matter_of_the_key(location: str) -> None:
    """A redirect to the sign-in page says what is wrong with the key."""
    error = answered(telemetry, httpx.Response(307, headers={"location": location}))
    assert isinstance(error, AuthError)


def test_redirects_are_never_followed() -> None:
    """Following one would end at a 200 with HTML, or send the key to another host."""
    with respx.mock(assert_all_called=False) as router:
        target = router.get("https://elsewhere.test/").mock(return_value=httpx.Response(200, json={}))
        router.get(f"{APP}/api/v1/telemetry").mock(
            return_value=httpx.Response(301, headers={"location": "https://elsewhere.test/"})
        )
        assert "301 to https://elsewhere.test/;" in str(failure(telemetry))
    assert not target.called


# --- whether a post may have taken effect -----------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
@pytest.mark.parametrize(
    "use_client", [telemetry, ingest, threshold, offline, event, create_source, check_write]
)
def test_only_a_post_that_must_not_be_repeated_may_be_applied(use_client: Use, status: int) -> None:
    """5xx other than 503 leave open what was done; that matters where a repetition would do harm."""
    error = answered(use_client, httpx.Response(status))
    assert isinstance(error, TransientError)
    harmful = use_client in (ingest, offline, event)
    assert error.maybe_applied == (harmful and status in (500, 502, 504, 520))


# --- Retry-After ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("2", 2.0),
        ("0", 0.0),
        (formatdate(1795312800, usegmt=True), 60.0),
        ("Sunday, 22-Nov-26 02:00:00 GMT", 60.0),
        ("Sun, 22 Nov 2026 02:00:00 -0000", 60.0),
        ("Sat, 21 Nov 2026 02:00:00 GMT", 0.0),
        ("-3", None),
        ("soon", None),
        ("1e3", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(text: str, wait_s: float | None, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds and dates are read as seconds from now; what cannot be read asks for nothing."""
    monkeypatch.setattr(clock, "now_ms", lambda: 1795312740_000)
    error = answered(telemetry, httpx.Response(status, headers={"retry-after": text}))
    assert isinstance(error, TransientError)
    assert error.retry_after_s == wait_s
