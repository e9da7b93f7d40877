"""A small core of StreamPipes on loopback: what its Python client asks for, in shapes of its own models."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from streampipes.functions.utils.data_stream_generator import create_data_stream
from streampipes.model.common import EventProperty, EventSchema
from streampipes.model.resource import DataLakeMeasure, DataSeries, DataStream, Version
from streampipes.model.resource.query_result import QueryResult

USER, KEY = "robot@example.org", "S3cret-S3cret-S3cret"
API = "/streampipes-backend/api"


def stream_of(name: str, columns: dict[str, str], broker: object, port: int) -> DataStream:
    """A data stream on a broker on this machine."""
    stream = create_data_stream(name, columns, broker=broker)
    protocol = stream.event_grounding.transport_protocols[0]
    protocol.broker_hostname, protocol.port = "127.0.0.1", port
    return stream


class FakeCore:
    """Streams by id, and measures with their rows: header and values. ``answers`` are given before anything
    else; ``seen`` are the paths that were asked for, ``posted`` the streams that came."""

    def __init__(self) -> None:
        self.streams: dict[str, DataStream] = {}
        self.measures: dict[str, tuple[list[str], list[list[object]]]] = {}
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.seen: list[str] = []
        self.posted: list[DataStream] = []
        self.rows_max = 1_000_000
        self.port = 0

    def add(self, stream: DataStream) -> DataStream:
        """One more data stream."""
        self.streams[stream.element_id] = stream
        return stream

    def get(self, path: str, query: dict[str, str]) -> tuple[int, object]:
        """The answer to a GET."""
        if path == f"{API}/v2/info/versions":
            return 200, Version(backend_version="0.98.0").to_dict()
        if path == f"{API}/v2/streams":
            return 200, [stream.to_dict() for stream in self.streams.values()]
        if path.startswith(f"{API}/v2/streams/"):
            found = self.streams.get(path.rpartition("/")[2])
            return (404, {}) if found is None else (200, found.to_dict())
        if path == f"{API}/v4/datalake/measurements":
            return 200, [self._measure(name).to_dict() for name in self.measures]
        if path.startswith(f"{API}/v4/datalake/measurements/"):
            name = path.rpartition("/")[2]
            return (200, self._rows(name, query)) if name in self.measures else (404, {})
        return 404, {}

    def _measure(self, name: str) -> DataLakeMeasure:
        header = self.measures[name][0]
        schema = EventSchema(event_properties=[EventProperty(runtime_name=column) for column in header[1:]])
        return DataLakeMeasure(
            measure_name=name, timestamp_field="s0::timestamp", event_schema=schema, pipeline_is_running=False
        )

    def _rows(self, name: str, query: dict[str, str]) -> dict[str, object]:
        header, rows = self.measures[name]
        begin, end = int(query.get("startDate", 0)), int(query.get("endDate", 1 << 60))
        there = sorted((row for row in rows if begin <= int(str(row[0])) < end), key=lambda row: str(row[0]))
        first = int(query.get("offset", 0))
        part = there[first : first + min(int(query["limit"]), self.rows_max)]
        series = [DataSeries(total=len(part), headers=header, rows=part, tags=None)] if part else []
        found = QueryResult(
            total=len(part),
            headers=header if part else [],
            all_data_series=series,
            spQueryStatus="OK",
            source_index=0,
            last_timestamp=0,
        )
        return found.to_dict()

    def post(self, path: str, body: bytes) -> int:
        """The answer to a POST."""
        if path != f"{API}/v2/streams":
            return 404
        stream = DataStream(**json.loads(body))
        if stream.element_id in self.streams:
            return 400
        self.posted.append(self.add(stream))
        return 200

    @contextmanager
    def served(self) -> Iterator[FakeCore]:
        """Serve it on a free port, ``port``."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _handler(core: FakeCore) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

        def _answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _refused(self) -> bool:
            core.seen.append(f"{self.command} {self.path}")
            if core.answers:
                self._answer(core.answers[0][0], core.answers[0][2], core.answers[0][1])
                core.answers.pop(0)
                return True
            if (self.headers.get("X-API-User"), self.headers.get("X-API-Key")) != (USER, KEY):
                self._answer(401, f"no such key: {self.headers.get('X-API-Key')}".encode())
                return True
            return False

        def do_GET(self) -> None:
            """Answer."""
            if not self._refused():
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                code, found = core.get(unquote(parts.path), query)
                self._answer(code, json.dumps(found).encode())

        def do_POST(self) -> None:
            """Answer."""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not self._refused():
                self._answer(core.post(self.path, body), b"")

    return Handler
