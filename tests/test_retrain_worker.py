"""Retraining, the worker's side: an autoencoder takes the place of another between two rows, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from fake_platform import KEY, FakeClock, FakePlatform, Row
from learn_data import MOTOR, motor

from plexus_detect.config import Config, load_config
from plexus_detect.errors import ModelError
from plexus_detect.keeping import EVERY_S
from plexus_detect.learn.models.onnx import OnnxModel
from plexus_detect.learn.scale import Scale, robust_scale
from plexus_detect.learn.windowed import View, Windowed, WindowedParams, bins_of
from plexus_detect.retraining import command
from plexus_detect.store import Store
from plexus_detect.train.models import models
from plexus_detect.training.onnx import dense_graph
from plexus_detect.training.trainer import InlineTrainer
from plexus_detect.training.versions import ModelFolder
from plexus_detect.worker import Worker, open_worker

T0, N = 1_800_000_000_000, 60
X = motor(1, N)[0]


def windowed(line: float, sizes: tuple[int, ...] = (4, 8), centre: float = 0.0) -> Windowed:
    """Networks that rebuild the middle whatever they see: the error is how far a window is away from it."""
    scale = robust_scale(X)
    views = []
    for size in sizes:
        inputs = 3 * bins_of(size)
        graph = dense_graph([(np.zeros((inputs, inputs)), np.zeros(inputs))], "Relu")
        views.append(View(size, OnnxModel(graph), np.ones(3), np.full(3, line)))
    card = {"rows": N, "held_back": 9, "data_hash": f"of {line:g}", "to_ms": T0 - 1000}
    return Windowed(
        MOTOR, WindowedParams(sizes), Scale(scale.centre + centre, scale.unit), tuple(views), card
    )


def deployed(config: Config, made: Windowed) -> int:
    """Keep a model as ``train`` would."""
    return ModelFolder(config.models).keep("waves", made.arrays(), {"metrics": list(MOTOR), **made.card})


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Config:
    """One group of an autoencoder whose first version is there."""
    group = f"- {{name: waves, metrics: [{', '.join(MOTOR)}], kind: autoencoder, windows: [4, 8]}}"
    text = f"state: {{models: {tmp_path / 'models'}}}\ndetectors:\n{group}\n"
    (tmp_path / "c.yaml").write_text(text)
    config = load_config([tmp_path / "c.yaml"], {"PLEXUS_API_KEY": KEY}).model_copy(update={"series": ()})
    deployed(config, windowed(1.0))
    return config


class Bench:
    """A worker that is given a row a second, restarted after the rows in ``kills``, with models changed after
    others."""

    def __init__(self, config: Config, stopped: FakeClock, path: Path) -> None:
        self.config, self.clock, self.path = config, stopped, path
        self.platform = FakePlatform([])
        self.store: Store | None = None

    async def opened(self) -> Worker:
        """A worker as after a crash."""
        if self.store is not None:
            self.store.close()
        self.store = Store(self.path)
        return await open_worker(self.config, self.platform, self.store, None, InlineTrainer())  # type: ignore[arg-type]

    async def run(self, kills: set[int], changes: dict[int, object]) -> list[Row]:
        """Everything that was posted for the group."""
        self.clock.t_ms = T0
        self.platform.rows += [("press", m, T0 - 60_000, X[0, i]) for i, m in enumerate(MOTOR)]
        worker = await self.opened()
        for second in range(N):
            t_ms = T0 + 1000 * second
            self.platform.rows += [("press", m, t_ms, X[second, i]) for i, m in enumerate(MOTOR)]
            self.clock.t_ms = t_ms + 300
            await worker.tick()
            assert await worker.delivery.deliver_all()
            if second in changes:
                changes[second]()  # type: ignore[operator]
            if second in kills:
                worker = await self.opened()
        self.learned_ms = worker.vitals.learned_ms
        return self.platform.stored(".anomaly")


def test_a_deployed_autoencoder_is_taken_and_gone_back_from(
    config: Config, stopped: FakeClock, tmp_path: Path
) -> None:
    """Within EVERY_S of rows the scores are those of the new version, in its own scale and its own windows,
    the rows that were seen go on; after the command roll-back those of the old one. A worker that is killed
    and started again posts the same."""

    def back() -> None:
        models.main(["roll-back", "waves", "-c", str(tmp_path / "c.yaml")], standalone_mode=False)

    other = windowed(0.25, (4, 16), centre=0.5)
    changes = {15: lambda: deployed(config, other), 40: back}
    bench = Bench(config, stopped, tmp_path / "whole.db")
    whole = asyncio.run(bench.run(set(), changes))
    assert bench.learned_ms == T0 - 1000
    times = T0 + 1000 * np.arange(N)
    seen = np.concatenate([X[:1], X])
    expected = [
        3.0 * model.stream().step(seen, np.append(T0, times)).ratio[1:] for model in (windowed(1.0), other)
    ]
    raw = {(t - T0) // 1000: v for _s, _m, t, v in whole}
    wait = round(EVERY_S) + 1
    late = range(40 + wait, N)
    for seconds, ratio in (
        (range(15), expected[0]),
        (range(15 + wait, 40), expected[1]),
        (late, expected[0]),
    ):
        mine = [s for s in seconds if raw.get(s, 0.0) > 0.0]
        assert mine or ratio is expected[0]
        assert [raw[s] for s in mine] == pytest.approx([ratio[s] for s in mine])
    ModelFolder(config.models).remove("waves")
    deployed(config, windowed(1.0))
    # Killed just before models are looked for anyway, so that each version is taken at the same row.
    again = asyncio.run(Bench(config, stopped, tmp_path / "killed.db").run({9, 29, 39, 58}, changes))
    assert again == whole


def test_state_goes_on_in_another_model() -> None:
    """What a stream has seen is carried over: from the next row on it says what it would have said had the
    new model seen all rows, with larger windows once they are full."""
    one, other = windowed(1.0), windowed(0.5, (4, 16), centre=0.5)
    times = T0 + 1000 * np.arange(N)
    before, after = one.stream(), other.stream()
    before.step(X[:30], times[:30])
    after.load(before.dump())
    went_on, whole = after.step(X[30:], times[30:]), other.stream().step(X, times)
    assert np.allclose(went_on.ratio[16:], whole.ratio[46:])
    assert np.isfinite(went_on.ratio).all()
    assert not one.is_as(other)
    assert one.is_as(windowed(1.0))


def test_a_model_of_other_sensors_is_not_taken(
    config: Config, stopped: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker says so once and goes on with what it has."""
    made = windowed(1.0)
    arrays = Windowed(("a", "b", "c"), made.params, made.scale, made.views, made.card).arrays()
    changes = {5: lambda: ModelFolder(config.models).keep("waves", arrays, {})}
    posted = asyncio.run(Bench(config, stopped, tmp_path / "s.db").run(set(), changes))
    assert posted[-1][2] == T0 + 1000 * (N - 1)
    told = [r.fields["err"] for r in caplog.records if r.getMessage() == "models_failed"]  # type: ignore[attr-defined]
    assert len(told) == 1
    assert str(told[0]).startswith("waves: the windowed model was made for the sensors ('a', 'b', 'c')")
    with pytest.raises(ModelError):
        Windowed.of(arrays, MOTOR)


def test_the_command_in_a_process_of_its_own() -> None:
    """What it prints and its exit code come back; one that fails says why."""
    ended = asyncio.run(command(["train", "nobody", "--output", "json"]))
    assert (ended.code, ended.out) == (2, "")
    assert "detectors has no entry 'nobody'" in ended.err
