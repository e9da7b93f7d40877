"""The core of StreamPipes by its own client: kept quiet, with time limits, and with errors that are ours."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from streampipes.client import StreamPipesClient
from streampipes.client.config import StreamPipesClientConfig
from streampipes.client.credential_provider import StreamPipesApiKeyCredentials
from streampipes.functions.broker.broker_handler import SupportedBroker, get_broker_description
from streampipes.functions.utils.data_stream_generator import create_data_stream
from streampipes.model.resource import DataLakeMeasure, DataStream

from plexus_detect.config import Config
from plexus_detect.config.mistakes import near_match
from plexus_detect.config.streampipes import StreamPipesConfig
from plexus_detect.errors import ApiError, AuthError, ConfigError, ContractError, TransientError
from plexus_detect.streampipes.reading import OUTPUT

T = TypeVar("T")

USER_VARIABLE, KEY_VARIABLE = "SP_USERNAME", "SP_API_KEY"

# A longer file is no key.
KEY_BYTES_MAX = 4096

# What can stand in a header by itself.
_IN_A_HEADER = re.compile(r"[\x21-\x7e]+")

# Names that an error lists at most.
LISTED_MAX = 10


def credentials(settings: StreamPipesConfig, env: Mapping[str, str]) -> tuple[str, str]:
    """User and API key. Raises ConfigError when one is missing, and never shows the key."""
    user = env.get(USER_VARIABLE, "").strip() or settings.user
    key = env.get(KEY_VARIABLE, "").strip()
    if not key and settings.api_key_file is not None:
        key = _key_in(settings.api_key_file)
    for value, name, variable in (
        (user, "streampipes.user", USER_VARIABLE),
        (key, "streampipes.api_key_file", KEY_VARIABLE),
    ):
        if not value:
            raise ConfigError(f"{name}: StreamPipes asks for user and API key; set it, or {variable}")
        if not _IN_A_HEADER.fullmatch(value):
            raise ConfigError(
                f"{name}: the value has characters that no key or user has; check it, or {variable}"
            )
    return user, key


def _key_in(path: Path) -> str:
    try:
        with path.open("rb") as file:
            key = file.read(KEY_BYTES_MAX).decode().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(
            f"streampipes.api_key_file: {path} cannot be read ({reason}); check the path and its rights"
        ) from None
    if not key:
        raise ConfigError(f"streampipes.api_key_file: {path} is empty; write the API key into it")
    return key


class _Patient(HTTPAdapter):
    """Requests with a limit of time: the client itself would wait for ever."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self._timeout_s = timeout_s

    def send(self, *args: Any, **options: Any) -> requests.Response:  # noqa: ANN401
        """One request."""
        return super().send(*args, **{**options, "timeout": self._timeout_s})


class _Client(StreamPipesClient):
    """The client without its log, which it would write to standard output at level info."""

    def __init__(self, config: StreamPipesClientConfig, settings: StreamPipesConfig) -> None:
        self._settings = settings
        super().__init__(config, logging.WARNING)

    @staticmethod
    def _set_up_logging(logging_level: int) -> None:
        del logging_level

    def _get_server_version(self) -> str:
        """Before its first request: limits, certificates, and no redirect, which would carry the key away."""
        session = self.request_session
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Patient(self._settings.timeout_ms / 1000))
        if self._settings.ca_file is not None:
            session.verify = str(self._settings.ca_file)
        session.max_redirects = 0
        session.hooks["response"].append(_checked)
        try:
            return str(super()._get_server_version())
        except Exception:
            session.close()
            raise


def _checked(response: requests.Response, **_options: object) -> requests.Response:
    """Turn what no client can go on with into our errors: the client knows some of the codes only.

    400, 404 and 405 are left to who asked, who knows what they mean there.
    """
    code = response.status_code
    if code >= 400:
        # Read to its end, which also gives the connection back.
        _ = response.content
    if code in (401, 403):
        raise AuthError(
            f"StreamPipes refused user and API key ({code}); check them, and the user's rights in its UI"
        )
    if code == 429 or code >= 500:
        raise TransientError(f"StreamPipes answered {code}; its log tells more")
    if code >= 402 and code not in (404, 405):
        raise ApiError(f"StreamPipes refused a request ({code}); its log tells more")
    return response


class Core:
    """What is asked of a core. Everything blocks; raises ConfigError, AuthError, TransientError and
    ContractError."""

    def __init__(self, settings: StreamPipesConfig, user: str, key: str) -> None:
        self.settings = settings
        self.url = f"http{'s' * settings.https}://{settings.host}:{settings.port}"
        config = StreamPipesClientConfig(
            credential_provider=StreamPipesApiKeyCredentials(username=user, api_key=key),
            host_address=settings.host,
            https_disabled=not settings.https,
            port=settings.port,
        )
        self.client: StreamPipesClient = self.asked("its version", lambda: _Client(config, settings))

    @staticmethod
    def of(config: Config, env: Mapping[str, str]) -> Core:
        """A connected core of the configuration."""
        return Core(config.streampipes, *credentials(config.streampipes, env))

    @property
    def version(self) -> str:
        """The version that the core says it has."""
        return str(self.client.server_version)

    def asked(self, what: str, ask: Callable[[], T]) -> T:
        """What a call of the client gives."""
        with self._errors(what):
            return ask()

    @contextmanager
    def _errors(self, what: str) -> Any:  # noqa: ANN401 - a generator
        try:
            yield
        except (ConfigError, ApiError):
            raise
        except requests.exceptions.TooManyRedirects:
            raise ConfigError(
                f"streampipes: {self.url} redirects elsewhere; check host, port and https"
            ) from None
        except requests.exceptions.SSLError as error:
            raise ConfigError(
                f"streampipes: {self.url} cannot be trusted ({_innermost(error)}); check https and ca_file"
            ) from None
        except requests.exceptions.HTTPError as error:
            code = 0 if error.response is None else error.response.status_code
            raise ConfigError(
                f"streampipes: {self.url} does not know {what} ({code}); check host and port"
            ) from None
        except requests.exceptions.JSONDecodeError:
            raise ContractError(
                f"streampipes: {self.url} answered no JSON for {what}; check host and port"
            ) from None
        except requests.exceptions.RequestException as error:
            raise TransientError(
                f"streampipes: {self.url} does not answer ({_innermost(error)}); check host and port"
            ) from None
        except Exception as error:
            # Models of the client that do not fit an answer raise many things, whose texts repeat the answer.
            raise ContractError(
                f"streampipes: {self.url} answered what its client cannot read for {what} "
                f"({type(error).__name__}); check the versions of both"
            ) from None

    def close(self) -> None:
        """Close its connections."""
        self.client.request_session.close()

    # -- what there is

    def measures(self) -> dict[str, DataLakeMeasure]:
        """The measures of the data lake by their names."""
        found = self.asked("the data lake", self.client.dataLakeMeasureApi.all)
        measures = [found[i] for i in range(len(found))]
        return {m.measure_name: m for m in measures if isinstance(m, DataLakeMeasure)}

    def measure(self, name: str) -> DataLakeMeasure:
        """A measure. Raises ConfigError when there is none of that name."""
        return _one_of(self.measures(), name, "streampipes.measure: the data lake has no measure")

    def streams(self) -> list[DataStream]:
        """All data streams."""
        found = self.asked("data streams", self.client.dataStreamApi.all)
        streams = [found[i] for i in range(len(found))]
        return [stream for stream in streams if isinstance(stream, DataStream)]

    def chosen(self) -> list[DataStream]:
        """The streams of the configuration, by id or name. Raises ConfigError for one that is not there."""
        if not self.settings.streams:
            raise ConfigError("streampipes.streams: no stream is named; list ids or names of data streams")
        there = self.streams()
        by_name = {stream.name: stream for stream in there} | {s.element_id: s for s in there}
        found = [
            _one_of(by_name, name, "streampipes.streams: there is no data stream")
            for name in self.settings.streams
        ]
        return list({stream.element_id: stream for stream in found}.values())

    def output(self, consumed: DataStream) -> DataStream:
        """The stream that is published: the one that is there, or a new one on the broker of the input."""
        name = self.settings.output
        there = next((s for s in self.streams() if name in (s.name, s.element_id)), None)
        if there is not None:
            return there
        device = self.settings.device or "device"
        kind = broker_of(consumed)
        stream: DataStream = create_data_stream(name, {device: "string", **OUTPUT}, broker=kind)
        ours, theirs = (s.event_grounding.transport_protocols[0] for s in (stream, consumed))
        ours.broker_hostname, ours.port = theirs.broker_hostname, theirs.port
        return stream


def broker_of(stream: DataStream) -> SupportedBroker:
    """Kafka or NATS. Raises ConfigError for another broker."""
    protocol = stream.event_grounding.transport_protocols[0].class_name
    if not any(kind.value in protocol for kind in SupportedBroker):
        raise ConfigError(
            f"streampipes.streams: '{stream.name}' is on a broker that its client does not speak "
            f"({protocol.rpartition('.')[2]}); choose Kafka or NATS in StreamPipes"
        )
    return get_broker_description(stream)


def _one_of(there: Mapping[str, T], name: str, what: str) -> T:
    """The thing of this name. Raises ConfigError with what is there instead."""
    if name in there:
        return there[name]
    near = near_match(name, list(there))
    listed = ", ".join(sorted(there)[:LISTED_MAX]) or "none"
    hint = f"did you mean '{near}'?" if near else f"there are: {listed}"
    raise ConfigError(f"{what} '{name}'; {hint}")


def _innermost(error: BaseException) -> str:
    """What went wrong at the bottom of a chain of errors, without addresses of objects."""
    text = str(error)
    found = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)", text)
    if found:
        return found[1].strip()
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    certificate = re.search(r"certificate verify failed: ([^(\"']+)", text)
    return certificate[1].strip() if certificate else type(error).__name__
