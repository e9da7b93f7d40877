"""training.trainer: fits in another process are the same fits, and its troubles are sentences."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from learn_data import job, learner, motor

from plexus_detect.errors import FitError
from plexus_detect.learn.job import Fit
from plexus_detect.training import trainer as module
from plexus_detect.training.trainer import (
    InlineTrainer,
    ProcessTicket,
    ProcessTrainer,
    fit_job,
    fit_meanwhile,
)

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessTrainer]:
    """One trainer with a process, for all tests here."""
    made = ProcessTrainer()
    yield made
    made.close()


def test_another_process_gives_the_same_bits(elsewhere: ProcessTrainer) -> None:
    """A fit elsewhere is bit for bit the fit in place."""
    asked, x = job("ecod", motor(1, 200)[0]), motor(2, 50, 0.1)[0]
    there, here = elsewhere.submit(asked).result(), InlineTrainer().submit(asked).result()
    for name, array in here.fitted.arrays().items():
        np.testing.assert_array_equal(there.fitted.arrays()[name], array, name)
    np.testing.assert_array_equal(there.held, here.held)
    np.testing.assert_array_equal(there.fitted.score(x).ratio, here.fitted.score(x).ratio)


def test_fits_are_timed(elsewhere: ProcessTrainer) -> None:
    """Each fit, also one that fails, is in the histogram with the time that it took."""
    elsewhere.call(os.getpid).result()
    before = int(elsewhere.fits.counts.sum())
    elsewhere.submit(job("ecod", motor(1, 60)[0])).result()
    # What comes next from the process comes after the fit has been counted.
    elsewhere.call(os.getpid).result()
    assert elsewhere.fits.counts.sum() == before + 1
    assert elsewhere.fits.sum_s > 0


def test_it_is_another_process(elsewhere: ProcessTrainer) -> None:
    """Fits do not run in the process that scores, and they give way to it."""
    assert elsewhere.call(os.getpid).result() != os.getpid()
    assert elsewhere.call(os.getpriority, os.PRIO_PROCESS, 0).result() >= module.NICE


@pytest.mark.skipif(sys.platform != "linux", reason="the policy is one of Linux")
def test_a_fit_that_nobody_waits_for_takes_what_time_is_left() -> None:
    """A model that has a predecessor is fitted in a thread to which every program is preferred, to the same
    bits; who asks for it stays as it is."""
    asked = job("ecod", motor(1, 60)[0])
    later = replace(asked, old=fit_job(asked).fitted)
    made = fit_meanwhile(later)
    np.testing.assert_array_equal(made.fitted.centre, fit_job(later).fitted.centre)
    assert made.refused is None
    with ThreadPoolExecutor(1, initializer=module._yield_to_all) as thread:
        assert thread.submit(os.sched_getscheduler, 0).result() == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_the_environment_is_as_it_was(elsewhere: ProcessTrainer) -> None:
    """Threads are switched off in the process that fits, and nowhere else."""
    assert elsewhere.call(os.getenv, "OMP_NUM_THREADS").result() == "1"
    assert os.environ.get("POLARS_MAX_THREADS") is None


def test_a_detector_fed_by_a_process(elsewhere: ProcessTrainer) -> None:
    """With a handover a detector gives the same bits with either trainer."""
    x = motor(1, 120)[0]
    a, b = (learner(trainer, handover=5).step(x, NAMES) for trainer in (elsewhere, InlineTrainer()))
    np.testing.assert_array_equal(a.ratio, b.ratio)
    np.testing.assert_array_equal(a.version, b.version)


def test_a_fit_that_raises_is_a_sentence(elsewhere: ProcessTrainer) -> None:
    """Whatever a fit raises, elsewhere or in place, is a FitError of one line."""
    x = motor(1, 100)[0]
    for asked in (job("ecod", x[:3]), job("no_such_backend", x)):
        for trainer in (elsewhere, InlineTrainer()):
            with pytest.raises(FitError) as told:
                trainer.submit(asked).result()
            assert len(str(told.value).splitlines()) == 1
    with pytest.raises(FitError, match="no_such_backend could not be fitted: KeyError"):
        fit_job(job("no_such_backend", x))


def test_a_killed_process_is_replaced(elsewhere: ProcessTrainer) -> None:
    """Every fit of a process that is killed is a FitError, and the next one is made in another process, which
    the others that waited do not end again."""
    asked = job("ecod", motor(1, 100)[0])
    pid = elsewhere.call(os.getpid).result()
    held = elsewhere.call(signal.sigtimedwait, [signal.SIGUSR1], 60.0)
    waiting = [elsewhere.submit(asked) for _ in range(2)]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(FitError, match="the process that fits ended; it was started again"):
        waiting[0].result()
    assert held.done()
    other = elsewhere.call(os.getpid).result()
    with pytest.raises(FitError, match="the process that fits ended"):
        waiting[1].result()
    assert elsewhere.call(os.getpid).result() == other != pid
    assert elsewhere.submit(asked).result().fitted.card.rows > 0


def test_a_fit_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit that runs for longer than it may is done, and is a FitError; nobody has to wait for it first."""
    monkeypatch.setattr(module, "FIT_S_MAX", 0.0)
    endless: Future[Fit] = Future()
    ticket = ProcessTicket(endless, ProcessPoolExecutor(1), ProcessTrainer())
    endless.set_running_or_notify_cancel()
    assert ticket.done()
    with pytest.raises(FitError, match="took longer than 0 s and was given up"):
        ticket.result()


def test_close_ends_the_process() -> None:
    """After ``close`` the process is gone and what waited for it is a FitError; to close twice is nothing."""
    trainer = ProcessTrainer()
    trainer.close()
    pid = trainer.call(os.getpid).result()
    pool = trainer._pool
    assert pool is not None
    process, reaper = pool._processes[pid], pool._executor_manager_thread
    assert reaper is not None
    trainer.call(signal.sigtimedwait, [signal.SIGUSR1], 60.0)
    waiting = [trainer.submit(job("ecod", motor(1, 100)[0])) for _ in range(3)]
    trainer.close()
    trainer.close()
    # That thread waits for the process too, and while it does so the process may still be called alive.
    reaper.join(20.0)
    assert not reaper.is_alive()
    assert not process.is_alive()
    for ticket in waiting:
        with pytest.raises(FitError):
            ticket.result()


def test_an_inline_fit_is_made_once() -> None:
    """A ticket gives the same fit again."""
    ticket = InlineTrainer().submit(job("ecod", motor(1, 100)[0]))
    assert ticket.done()
    assert ticket.result() is ticket.result()


def test_jobs_of_all_kinds_travel(elsewhere: ProcessTrainer) -> None:
    """Names in any script and times go there and come back."""
    asked = replace(job("hbos", motor(1, 100)[0], names=("température", "x.y", "")), span_ms=(5, 9))
    card = elsewhere.submit(asked).result().fitted.card
    assert (card.from_ms, card.to_ms) == (5, 9)
    assert elsewhere.submit(asked).result().fitted.names == asked.names
