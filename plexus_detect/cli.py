"""The command line: options in, exit code out. Data go to standard output, talk to standard error.

Exit codes: 0 done; 1 error; 2 configuration or usage; 3 key refused; 4 state file unusable; 5 unsafe
plan; 75 the platform does not answer; 130 and 143 interrupted and terminated after saving.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect import __version__
from plexus_detect.backtest.command import backtest
from plexus_detect.doctor.command import doctor
from plexus_detect.errors import ConfigError, PlexusDetectError, TransientError
from plexus_detect.explain.command import explain
from plexus_detect.options import client_of, config_option, configured, extra
from plexus_detect.provision.command import monitors
from plexus_detect.redaction import sentence
from plexus_detect.serve.command import serve
from plexus_detect.signals import EXIT_INTERRUPTED, catch_signals
from plexus_detect.simulate.command import simulate
from plexus_detect.statefile.command import state
from plexus_detect.status.command import status
from plexus_detect.streampipes.command import streampipes
from plexus_detect.train.command import train
from plexus_detect.train.models import models

# NumPy, httpx and pydantic take most of a second to import on a small machine: each command imports what it
# runs, so that --help and usage errors answer at once.
if TYPE_CHECKING:
    from plexus_detect.config import Config
    from plexus_detect.store import Store

log = logging.getLogger(__name__)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="plexus-detect")
def cli() -> None:
    """Anomaly detection for device fleets on the Plexus telemetry platform."""


@cli.command()
@config_option
@click.option("--once", is_flag=True, help="Poll once, deliver, save and end: the form for cron.")
def run(config_paths: tuple[Path, ...], *, once: bool) -> None:
    """Poll, score and post until stopped."""
    # All that takes long to import, before the state is open: from then on a signal has to be obeyed at once.
    from plexus_detect import service
    from plexus_detect import store as stores

    del service
    config = configured(config_paths)
    if config.source.kind == "kafka":
        if once:
            raise ConfigError("run --once: polls the platform; with source.kind: kafka leave --once out")
        with extra("kafka"):
            import plexus_detect.connect.service
        del plexus_detect.connect.service
        sys.exit(asyncio.run(_stream(config)))
    config.require_api_key()
    store = stores.Store(config.state.path)
    try:
        work = _once(config, store) if once else _serve(config, config_paths, store)
        code = asyncio.run(work)
    finally:
        store.close()
    sys.exit(code)


async def _serve(config: Config, config_paths: tuple[Path, ...], store: Store) -> int:
    """The exit code of a worker that ran until a signal."""
    from plexus_detect.config import load_config
    from plexus_detect.outside import Outside
    from plexus_detect.service import Service

    stop, reload = asyncio.Event(), asyncio.Event()
    caught = catch_signals(stop, reload)
    async with Outside(config, stop) as outside:
        service = Service(config, lambda: load_config(config_paths, os.environ), store, outside, config_paths)
        await service.run(stop, reload)
    return caught[0]


async def _stream(config: Config) -> int:
    """The exit code of a worker on a bus that ran until a signal."""
    from plexus_detect.connect.report import StreamMeters
    from plexus_detect.connect.service import StreamService
    from plexus_detect.outside import Outside

    stop, reload = asyncio.Event(), asyncio.Event()
    caught = catch_signals(stop, reload)
    async with AsyncExitStack() as stack:
        outside = await stack.enter_async_context(Outside(config, stop))
        client = await stack.enter_async_context(client_of(config)) if config.sink.kind == "plexus" else None
        service = StreamService(config, outside.vitals, client)
        outside.meters.registry.register(StreamMeters(service.report))
        outside.notifier.ready()
        await service.run(stop, reload)
    return caught[0]


async def _once(config: Config, store: Store) -> int:
    """The exit code of a worker that polled once."""
    from plexus_detect.loops import unless_stopped
    from plexus_detect.worker import open_worker

    stop = asyncio.Event()
    caught = catch_signals(stop)
    async with client_of(config) as client:
        worker = await unless_stopped(open_worker(config, client, store), stop)
        if worker is None:
            return caught[0]
        report = await worker.once(stop)
    if caught:
        return caught[0]
    return TransientError.exit_code if report.failed or report.outbox else 0


# -- sandbox and demo


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--port", default=8787, show_default=True, help="Port to serve on; 0 takes a free one.")
@click.option("--db", default=":memory:", show_default=True, help="SQLite file that keeps the data.")
@click.option(
    "--time-scale", default=1.0, show_default=True, help="How much faster the platform's clocks run."
)
@click.option("--slack-webhook", help="Where Slack messages are sent; they can also be read at /slack.")
def sandbox(host: str, port: int, db: str, time_scale: float, slack_webhook: str | None) -> None:
    """Serve the embedded stand-in for the platform (extra: sandbox)."""
    with extra("sandbox"):
        from plexus_detect.sandbox import Sandbox, Settings
    from plexus_detect.config.exposure import is_loopback

    if not time_scale > 0:
        raise ConfigError(f"--time-scale: {time_scale} is not greater than 0; 1 is the platform's own pace")
    if not is_loopback(host):
        click.echo(
            f"plexus-detect: warning: on {host} everybody who reaches the port can use the sandbox: its keys "
            "are public, and /manage and /slack ask for none",
            err=True,
        )
    settings = Settings(host=host, port=port, path=db, time_scale=time_scale, slack_webhook=slack_webhook)
    try:
        Sandbox(settings).serve_forever(lambda box: click.echo(box.banner()))
    except OSError as error:
        raise ConfigError(
            f"sandbox: cannot serve on {host}:{port}: {error.strerror}; choose another --port"
        ) from error


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
@click.option("--keep", is_flag=True, help="Keep running after the summary, until Ctrl-C.")
@click.option("--no-color", is_flag=True, help="No colours (also: the environment variable NO_COLOR).")
def demo(*, as_json: bool, keep: bool, no_color: bool) -> None:
    """See the whole job at work on the embedded platform: a fault, an alert, a recovery (extra: sandbox)."""
    with extra("sandbox"):
        from plexus_detect.demo import Options, run_demo
    sys.exit(
        run_demo(Options(as_json=as_json, keep=keep, color=not no_color and "NO_COLOR" not in os.environ))
    )


# -- score


@cli.command()
@click.option("--detector", default="default", show_default=True, help="Name of the detector.")
def score(detector: str) -> None:
    """Read CSV (ts,v0[,v1...]) on standard input, print one score a line; 1.0 is at the alert line.

    Times are seconds or milliseconds since the epoch, told apart as the platform does (below 1e12: seconds).
    A row that cannot be scored yet gets "nan". Several columns give the largest of their scores.
    """
    from plexus_detect.scoring import read_csv, score_series

    t_ms, values = read_csv(sys.stdin)
    sys.stdout.write("".join(f"{s:.9g}\n" for s in score_series(t_ms, values, detector)))


for command in (
    monitors,
    backtest,
    explain,
    train,
    models,
    simulate,
    streampipes,
    serve,
    state,
    status,
    doctor,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line and end the process with the documented exit code."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PlexusDetectError as error:
        click.echo(f"plexus-detect: {sentence(str(error))}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # a person gets a sentence, never a traceback
        click.echo(f"plexus-detect: {_crashed(error)}", err=True)
        sys.exit(PlexusDetectError.exit_code)


def _crashed(error: Exception) -> str:
    """A sentence about a mistake of ours; where a log is kept, the trace goes there as one line."""
    from plexus_detect.logs import event, is_set_up

    if is_set_up():
        event(log, logging.ERROR, "crashed", exc_info=error)
    at = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(at.filename).name}:{at.lineno}"
    return sentence(
        f"stopped by a mistake in the program, {type(error).__name__} at {where}: {error}; please report it"
    )
