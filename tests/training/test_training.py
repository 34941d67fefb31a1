"""The parts of training: batches look like a camera's frames, objectives are exact, the score equals a live run's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import framecast
from framecast.errors import FramecastError, OptionError, SourceError
from framecast.models.configs import build
from framecast.models.step import StepModel
from framecast.models.stip import STIP, STIPConfig
from framecast.models.tau import TAU, TAUConfig
from framecast.training.batches import Batch, Batches
from framecast.training.footage import Digits, Episode, Footage, Videos, open_footage
from framecast.training.objectives import (
    next_frames,
    over_streams,
)
from framecast.training.recipes import RECIPES, Recipe
from framecast.training.rendered import Rendered
from framecast.training.sampling import rollout, strip, to_picture, to_tensor, validate
from framecast.training.trainer import PATIENCE, Trainer
from framecast.training.view import View

from ..clips import write_clips, write_digits  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

COLOUR = View((3, 32, 40), "BGR", (32, 40))
STREAMS = Recipe("streams", 100, 2, 1e-3, unroll=3, loss="log_mse")


def numbered(*lengths: int) -> Videos:
    """Clips whose colours identify them: blue is the number of the clip, green that of the frame."""
    clips = []
    for number, length in enumerate(lengths):
        clip = np.zeros((length, 64, 80, 3), np.uint8)
        clip[..., 0], clip[..., 1] = number, np.arange(length)[:, None, None]
        clips.append(clip)
    return Videos("numbered", COLOUR, {}, {}, clips)


@contextmanager
def drawn(footage: Footage, count: int, batch: int = 2, **options: Any) -> Iterator[Batches]:
    batches = Batches(footage, count, batch, 7, **options)
    yield batches
    batches.close()


def small(**options: Any) -> STIP:
    sizes: dict[str, Any] = {
        "height": 16,
        "width": 24,
        "channels": 1,
        "patch": 2,
        "hidden": 4,
        "layers": 2,
        "stages": 1,
    }
    return STIP(STIPConfig(**{**sizes, **options}))


def random_batch(model: StepModel, count: int, batch: int = 2) -> Batch:
    channels, height, width = model.frame_shape
    frames = np.random.default_rng().integers(0, 256, (count, batch, height, width, channels), dtype=np.uint8)
    starts = np.zeros((count, batch), bool)
    starts[0] = True
    return Batch(frames, starts, ((0, 0),) * batch)


def test_streams_continue_where_the_last_batch_ended() -> None:
    with drawn(numbered(40, 60), 5, carried=True) as batches:
        taken = [next(batches) for _ in range(30)]
    for before, after in pairwise(taken):
        assert np.array_equal(before.frames[-1], after.frames[0])
        assert np.array_equal(before.starts[-1], after.starts[0])
    assert taken[0].frames.shape == (5, 2, 32, 40, 3)
    assert taken[0].starts[0].all()
    assert sum(batch.starts[1:].sum() for batch in taken) > 2
    assert not np.array_equal(taken[0].frames[:, 0], taken[0].frames[:, 1])


@pytest.mark.parametrize("carried", [True, False])
def test_batches_depend_only_on_seed_and_position(carried: bool) -> None:
    footage = numbered(30, 25)
    with drawn(footage, 4, carried=carried) as batches:
        taken = [next(batches) for _ in range(12)]
    with drawn(footage, 4, carried=carried, position=taken[6].after) as batches:
        for expected in taken[7:]:
            again = next(batches)
            assert np.array_equal(again.frames, expected.frames)
            assert np.array_equal(again.starts, expected.starts)
            assert again.after == expected.after


def test_a_sequence_comes_from_one_episode() -> None:
    with drawn(numbered(8, 9), 8, batch=3, carried=False) as batches:
        for _ in range(20):
            batch = next(batches)
            assert batch.starts[0].all()
            assert not batch.starts[1:].any()
            assert batch.frames.shape[0] == 8


def test_a_device_renders_the_same_digits(tmp_path: Path) -> None:
    view = View((1, 40, 40), "GRAY", (40, 40))
    footage = open_footage(write_digits(tmp_path / "digits"), view, tmp_path / "cache", 2, print, scored=False)
    assert isinstance(footage, Digits)
    with drawn(footage, 30, batch=3, carried=False) as batches:
        taken = [next(batches) for _ in range(5)]
    for position, expected in ((None, taken), (taken[2].after, taken[3:])):
        rendered = Rendered(footage, 30, 3, 7, torch.device("cpu"), position=position)
        for batch in expected:
            again = next(rendered)
            assert isinstance(again.frames, torch.Tensor)
            assert np.array_equal(again.frames.numpy(), batch.frames)
            assert np.array_equal(again.starts, batch.starts)
            assert again.after == batch.after


def test_without_augmentation_episodes_are_the_clips_own_frames() -> None:
    """As the papers' loaders give them: whole frames, forwards, one after the other."""
    footage = dataclasses.replace(numbered(8, 30), augment=False)
    with drawn(footage, 8, batch=3, carried=False) as batches:
        taken = np.concatenate([next(batches).frames for _ in range(10)], axis=1)
    assert (taken == taken[:, :, :1, :1]).all()
    numbers, ages = taken[..., 0, 0, 0], taken[..., 0, 0, 1].astype(int)
    assert set(numbers[0]) == {0, 1}
    assert (np.diff(ages, axis=0) == 1).all()
    assert len(set(ages[0, numbers[0] == 1])) > 3


def test_lost_footage_raises_when_its_batch_is_taken() -> None:
    class Lost(Digits):
        def episode(self, seed: Sequence[int], length: int | None) -> Episode:
            raise SourceError("the disk is gone")

    lost = Lost("lost", COLOUR, {}, np.zeros((1, 28, 28), np.uint8))
    with drawn(lost, 4, carried=True) as batches, pytest.raises(SourceError, match="the disk is gone"):
        next(batches)


@pytest.mark.parametrize(("order", "pixel"), [("BGR", [10, 20, 30]), ("RGB", [30, 20, 10]), ("GRAY", [22])])
def test_a_network_sees_its_own_channel_order(order: str, pixel: list[int]) -> None:
    view = View((len(pixel), 6, 4), order, (5, 4))
    picture = np.full((5, 4, 3), (10, 20, 30), np.uint8)
    seen = view.see(picture)
    assert seen.shape == (6, 4, len(pixel))
    assert (seen[:5] == pixel).all()
    assert not seen[5].any()  # padding
    assert np.array_equal(view.show(seen), picture if order != "GRAY" else np.full((5, 4, 3), 22, np.uint8))


def test_views_follow_configurations_and_their_options() -> None:
    assert View.of("stip-4k", (3, 2176, 3840)) == View((3, 2176, 3840), "BGR", (2160, 3840))
    assert View.of("tau-caltech", (3, 64, 64)).order == "RGB"
    assert View.of("mau-mnist", (3, 64, 64)).order == "BGR"
    assert View.of("tau-taxibj", (2, 32, 32)) == View((2, 32, 32), "NONE", (32, 32))
    assert View.of("tau-taxibj", (3, 32, 32)).order == "BGR"


def test_loss_ignores_unpredictable_frames() -> None:
    model = small()
    frames = torch.rand(3, 1, *model.frame_shape)
    objective = over_streams(model, STREAMS, frames, torch.ones(3, 1, dtype=torch.bool), None)
    assert objective.loss == 0


@torch.no_grad()
def test_streams_reset_the_state_of_a_sample_that_starts() -> None:
    model, recipe = small(), dataclasses.replace(STREAMS, loss="mse")
    frames = torch.rand(4, 2, *model.frame_shape)
    starts = torch.tensor([[True, True], [False, False], [False, True], [False, False]])
    objective = over_streams(model, recipe, frames, starts, None)
    errors = []
    for sample in range(2):
        state = model.init_state(1)
        for t in range(3):
            if starts[t, sample]:
                state = model.init_state(1)
            prediction, state = model.step(frames[t, sample][None], state)
            error = (prediction[0, 0] - frames[t + 1, sample]).square().mean()
            errors.append(0.0 if starts[t + 1, sample] else float(error))
    assert float(objective.loss) == pytest.approx(sum(errors) / 6, rel=1e-5)
    carried = over_streams(model, recipe, frames[:2], starts[3:].repeat(2, 1), objective.state)
    assert float(carried.loss) != pytest.approx(float(over_streams(model, recipe, frames[:2], starts[1:3], None).loss))


@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_scheduled_sampling_matches_a_plain_loop(truth: float) -> None:
    model = small().double()
    frames = torch.rand(6, 3, *model.frame_shape, dtype=torch.float64)
    torch.manual_seed(3)
    with torch.no_grad():
        predicted = next_frames(model, frames, 2, truth)
    torch.manual_seed(3)
    flips = torch.rand(5, 3) < truth
    assert truth in (0, 1) or 0 < flips[2:].float().mean() < 1
    for sample in range(3):
        state, last = model.init_state(1), None
        for t in range(5):
            own = t >= 2 and not flips[t, sample]
            frame = last if own else frames[t, sample][None]
            assert frame is not None
            with torch.no_grad():
                prediction, state = model.step(frame, state)
            last = prediction[:, 0]
            assert torch.allclose(last[0], predicted[sample, t], atol=1e-9)


def tau(**options: Any) -> TAU:
    return TAU(TAUConfig(16, 24, 1, 4, 8, 16, 2, 3, outputs=4, **options))


def test_a_non_finite_batch_changes_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tau()
    trainer = Trainer(model, Recipe("sequences", 10, 2, 1e-3, given=4, predicted=4))
    batch = random_batch(model, 8)
    assert trainer.update(batch, 0.0).finite
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tensor = torch.from_numpy

    def broken(array: object) -> torch.Tensor:
        return tensor(array) * float("nan")

    monkeypatch.setattr(torch, "from_numpy", broken)
    for _ in range(PATIENCE - 1):
        assert not trainer.update(batch, 0.0).finite
    assert (trainer.updates, trainer.skipped) == (1, PATIENCE - 1)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    with pytest.raises(FramecastError, match=r"not finite 20 times in a row, after 1 updates: start another run"):
        trainer.update(batch, 0.0)
    monkeypatch.undo()
    assert trainer.update(batch, 0.0).finite


def test_the_average_follows_the_weights() -> None:
    model = small()
    trainer = Trainer(model, Recipe("sequences", 10, 2, 1e-2, given=3, predicted=1, ema=0.25))
    batch, expected = random_batch(model, 4), None
    for decay in (0, 2 / 11, 3 / 12, 0.25):  # (1 + n) / (10 + n), up to the recipe's
        trainer.update(batch, 0.0)
        now = next(model.parameters()).detach().double()
        expected = now.clone() if expected is None else decay * expected + (1 - decay) * now
    assert expected is not None
    assert torch.allclose(next(trainer.average.parameters()).double(), expected, atol=1e-6)


def test_batch_norms_have_no_averaged_weights() -> None:
    """Averaged weights would have the statistics of the newest ones: an error of 122 instead of 82 in training."""
    with pytest.raises(OptionError, match="batch norms' statistics: choose --recipe tau-openstl or mini"):
        Trainer(tau(), Recipe("sequences", 10, 2, 1e-3, given=4, predicted=4, ema=0.9))
    assert not RECIPES["tau-mini"].ema


def test_half_precision_needs_cuda() -> None:
    with pytest.raises(OptionError, match="fp16 needs CUDA"):
        Trainer(small(), Recipe("sequences", 10, 2, 1e-3, precision="fp16"))


def test_score_equals_a_live_run(tmp_path: Path) -> None:
    size = {"height": 96, "width": 128}
    model = build("stip-edge", size).eval()  # untrained: the motion prior
    folder = write_clips(tmp_path / "clips", (160, 120))
    footage = open_footage(folder, View.of("stip-edge", model.frame_shape), tmp_path / "cache", 10, print, scored=True)
    found = validate(model, footage, 10, 5)
    assert found is not None
    quality = found.quality
    assert quality.prediction > quality.copy_last + 3
    weights = tmp_path / "untrained.safetensors"
    save_file(model.state_dict(), weights, {"config": "stip-edge", "options": json.dumps(size)})
    with framecast.open(folder / "a.avi", model=weights, engine="torch") as live:
        list(live)
        report = live.report()["psnr_db"]
    assert (report["prediction"], report["copy_last"]) == pytest.approx(quality.clips["a.avi"], abs=0.02)
    picture = strip(model, footage, 10, 5)
    assert picture.shape == (24 + 2 * 96, 8 * 128, 3)


def test_moving_mnist_is_scored_on_the_fixed_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from framecast.camera.moving_mnist import read_idx, test_set
    from framecast.training import sampling

    monkeypatch.setattr(sampling, "SEQUENCES", 3)
    monkeypatch.setattr(sampling, "_BATCH", 2)
    path = write_digits(tmp_path / "digits")
    model = build("mau-mnist", {"hidden": 4, "layers": 1}).eval()
    footage = open_footage(path, View.of("mau-mnist", model.frame_shape), tmp_path, 20, print, scored=True)
    found = validate(model, footage, 10, 10)
    assert found is not None
    frames = test_set(read_idx(path), sequences=3)[..., None]  # [20, 3, 64, 64, 1]
    errors = []
    for index in range(3):
        sequence = list(frames[:, index])
        guesses = rollout(model, to_tensor(model, sequence[:10]), 10)[0]
        truth = np.stack(sequence[10:]).astype(np.float64) / 255
        errors += [np.square(g[0].numpy() - t[..., 0]).sum() for g, t in zip(guesses, truth, strict=True)]
    assert found.mse == pytest.approx(np.mean(errors), rel=1e-4)
    assert found.quality.data == "frame 11 of 3 Moving MNIST sequences it never saw"
    assert strip(model, footage, 10, 10).shape == (24 + 2 * 128, 13 * 128, 3)
    assert to_picture(torch.tensor([[[1.5, -1.0, 0.5]]])).ravel().tolist() == [255, 0, 128]
