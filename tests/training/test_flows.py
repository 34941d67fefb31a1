"""Training on TaxiBJ: floats stay as they are, the loss is that of the paper, and the score that of OpenSTL."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from framecast.errors import OptionError
from framecast.models.tau import TAU, TAUConfig
from framecast.training.batches import Batches
from framecast.training.footage import Flows, check_footage, open_footage
from framecast.training.objectives import predict_clip
from framecast.training.recipes import Recipe
from framecast.training.sampling import rollout, strip, to_tensor, validate
from framecast.training.trainer import Trainer
from framecast.training.view import View

from ..clips import write_flows  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

VIEW = View((2, 32, 32), "NONE", (32, 32))


def opened(path: Path, *, scored: bool = False) -> Flows:
    footage = open_footage(path, VIEW, path.parent / "cache", 8, print, scored=scored)
    assert isinstance(footage, Flows)
    return footage


def whole(path: Path, split: str) -> np.ndarray:
    """The file's sequences in float64, [N, T, C, H, W] in 0…1."""
    with np.load(path) as arrays:
        return (np.concatenate([arrays[f"X_{split}"], arrays[f"Y_{split}"]], axis=1).astype(np.float64) + 1) / 2


def tau() -> TAU:
    return TAU(TAUConfig(32, 32, 2, 4, 4, 8, 2, 2, outputs=4))


def test_episodes_are_the_files_sequences(tmp_path: Path) -> None:
    path = write_flows(tmp_path / "a.npz")
    footage = opened(path)
    assert (footage.kind, footage.files["a.npz"]["sequences"]) == ("6 sequences of TaxiBJ", 6)
    known = whole(path, "train").astype(np.float32).transpose(0, 1, 3, 4, 2)
    drawn = set()
    for number in range(80):
        episode = footage.episode([1, 0, number], 8)
        frames = np.stack([episode.frame(age) for age in range(len(episode))])
        (found,) = (index for index, one in enumerate(known) if np.array_equal(one, frames))
        drawn.add(found)
        assert np.array_equal(footage.episode([1, 0, number], 8).frame(5), frames[5])
    assert drawn == set(range(6))
    assert len(footage.episode([0], 5)) == 5
    assert len(footage.episode([0], None)) == 8  # in streams
    assert list(opened(path, scored=True).parts()) == [f"X_test[{index}] of a.npz" for index in range(3)]


def test_three_updates_match_a_plain_computation_in_float64(tmp_path: Path) -> None:
    """Mean squared error + 0.1 × differential divergence (OpenSTL's means), and Adam."""
    path = write_flows(tmp_path / "a.npz")
    known = whole(path, "train")
    torch.manual_seed(3)
    model = tau()
    plain = copy.deepcopy(model).double()
    adam = torch.optim.Adam(plain.parameters(), lr=1e-3)
    trainer = Trainer(model.train(), Recipe("sequences", 100, 3, 1e-3, given=4, predicted=4, ddr=0.1))
    batches = Batches(opened(path), 8, 3, 1, carried=False)
    try:
        for _ in range(3):
            batch = next(batches)
            assert isinstance(batch.frames, np.ndarray)
            assert batch.frames.dtype == np.float32
            places = [
                next(i for i, one in enumerate(known) if np.allclose(one.transpose(0, 2, 3, 1), frames, atol=1e-7))
                for frames in batch.frames.transpose(1, 0, 2, 3, 4)
            ]
            truth = torch.from_numpy(known[places])  # [B, T, C, H, W]
            predicted = predict_clip(plain.train(), truth[:, :4].transpose(0, 1), 4)
            wanted = truth[:, 4:]
            p, q = (torch.softmax((one[:, 1:] - one[:, :-1]).flatten(2) / 0.1, dim=2) for one in (predicted, wanted))
            divergence = (p * torch.log(p / (q + 1e-12) + 1e-12)).mean()
            loss = ((predicted - wanted) ** 2).mean() + 0.1 * divergence
            adam.zero_grad()
            loss.backward()
            adam.step()
            made = trainer.update(batch, 0.0)
            assert made.loss == pytest.approx(float(loss.detach()), rel=1e-4)
            assert made.parts["ddr"] == pytest.approx(float(divergence.detach()), rel=1e-3)
    finally:
        batches.close()


def test_the_score_is_that_of_all_test_sequences(tmp_path: Path) -> None:
    """In floats: with traffic of up to ±0.02, grey levels would be far off. Unclipped but for PSNR, as in OpenSTL."""
    path = write_flows(tmp_path / "a.npz", test=20, most=0.02)  # more than a batch
    truth, model, seen = whole(path, "test"), tau().eval(), []
    footage = opened(path, scored=True)
    found = validate(model, footage, 4, 4, lambda done, total: not seen.append((done, total)))  # type: ignore[func-returns-value]
    assert found is not None
    assert seen == [(16, 20), (20, 20)]
    guesses = np.stack(
        [rollout(model, to_tensor(model, [*footage.sequences[n, :4]]), 4)[0].numpy() for n in range(20)]
    ).astype(np.float64)
    assert found.mse == pytest.approx(((guesses - truth[:, 4:]) ** 2).sum((2, 3, 4)).mean(), rel=1e-5)
    for decibels, frames in (
        (found.quality.prediction, guesses[:, 0].clip(0, 1)),
        (found.quality.copy_last, truth[:, 3]),
    ):
        errors = ((frames - truth[:, 4]) ** 2).mean((1, 2, 3))
        assert decibels == pytest.approx((-10 * np.log10(errors)).mean(), abs=0.006)
    assert found.quality.data == "frame 5 of 20 TaxiBJ sequences it never saw"
    part = validate(model, footage, 4, 4, lambda done, total: False)
    assert part is not None
    assert part.quality.data == "frame 5 of 16 TaxiBJ sequences it never saw"


def test_a_sample_shows_both_channels(tmp_path: Path) -> None:
    footage = opened(write_flows(tmp_path / "a.npz"))
    drawn = strip(tau().eval(), footage, 4, 4)
    assert drawn.shape == (24 + 2 * 64, 7 * 128, 3)  # three given frames and four predicted; pixels of 2×2
    last = np.rint(footage.sequences[0, 3] * 255)
    assert np.array_equal(drawn[24 : 24 + 64 : 2, 256 : 256 + 128 : 2, 0], np.hstack([last[..., 0], last[..., 1]]))


@pytest.mark.parametrize(
    ("name", "view", "options", "message"),
    [
        ("clips", VIEW, {}, "takes 2 channels that are not a picture: give TaxiBJ's dataset.npz, not "),
        ("a.npz", VIEW, {"layout": "kth"}, "give TaxiBJ's dataset.npz without --layout"),
        (
            "a.npz",
            View((1, 64, 64), "GRAY", (64, 64)),
            {},
            "holds traffic and no pictures, but this network takes 64×64×1",
        ),
        (
            "a.npz",
            View((2, 16, 32), "NONE", (16, 32)),
            {},
            "holds 32×32×2, but this network takes 32×16×2: choose --set",
        ),
        ("a.npz", VIEW, {"frames": 20}, "have 8 frames, but this recipe takes 20: choose another --recipe"),
    ],
)
def test_data_that_does_not_fit(tmp_path: Path, name: str, view: View, options: dict[str, int], message: str) -> None:
    write_flows(tmp_path / "a.npz")
    (tmp_path / "clips").mkdir()
    with pytest.raises(OptionError) as caught:
        check_footage(tmp_path / name, view, tmp_path, scored=False, **options)  # type: ignore[arg-type]
    assert message in str(caught.value)
