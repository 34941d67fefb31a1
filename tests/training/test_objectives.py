"""The objectives of whole sequences: TAU's clips, and STIP's updates in the order of its released code."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from framecast.models.blocks import patchify
from framecast.models.tau import TAU
from framecast.training.objectives import of_discriminator, over_sequences, predict_clip, predict_sequences
from framecast.training.recipes import Recipe, choose
from framecast.training.sampling import rollout
from framecast.training.settings import Settings, network
from framecast.training.trainer import Trainer

from .test_training import random_batch, small, tau  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)


def test_a_clip_at_once_matches_the_clip_step_by_step() -> None:
    model = tau().eval()
    frames = torch.rand(4, 2, *model.frame_shape)
    with torch.no_grad():
        at_once = predict_clip(model, frames, 4)
        state = model.init_state(2)
        for frame in frames:
            prediction, state = model.step(frame, state)
        assert torch.allclose(at_once, prediction, atol=1e-5)
        assert torch.equal(rollout(model, frames, 3), at_once[:, :3])
        blocks = rollout(model, frames, 6)  # for more than K frames, the predicted block is fed back
        for frame in prediction.unbind(1):
            following, state = model.step(frame, state)
        assert torch.allclose(predict_clip(model, frames, 6), blocks, atol=1e-5)  # as KTH's 20 frames are trained
    assert torch.allclose(blocks, torch.cat([prediction, following[:, :2]], dim=1), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "frames", "given", "predicted", "outputs"),
    [("tau-kth", 10, 10, 20, 10), ("tau-caltech", 10, 10, 1, 1), ("tau-taxibj", 4, 4, 4, 4), ("tau-kth", 4, 4, 4, 4)],
)
def test_tau_predicts_as_many_frames_as_its_recipe_says(
    config: str, frames: int, given: int, predicted: int, outputs: int, tmp_path: Path
) -> None:
    options = {"height": 8, "width": 8, "hidden_spatial": 2, "hidden_temporal": 4, "frames": frames, "mlp_ratio": 1}
    name, recipe = choose(config)
    model, adapted = network(Settings(config, tmp_path, tmp_path, options, name, recipe, tmp_path, device="cpu"))
    assert (adapted.given, adapted.predicted, model.outputs) == (given, predicted, outputs)
    assert isinstance(model, TAU)
    assert model.config.drop_path == 0.1
    made, wanted = predict_sequences(model, adapted, torch.rand(adapted.frames, 2, *model.frame_shape), 1.0)
    assert made.shape == wanted.shape == (2, predicted, *model.frame_shape)


@torch.no_grad()
def test_tau_is_trained_on_the_frames_after_its_clip() -> None:
    model, recipe = tau(), Recipe("sequences", 10, 2, 1e-3, given=4, predicted=4, ddr=0.1)
    frames = torch.rand(8, 2, *model.frame_shape)
    objective = over_sequences(recipe, *predict_sequences(model, recipe, frames, 1.0))
    mse = (predict_clip(model, frames[:4], 4) - frames[4:].transpose(0, 1)).square().mean()
    assert float(objective.parts["mse"]) == pytest.approx(float(mse), rel=1e-5)
    assert float(objective.loss) == pytest.approx(float(mse + 0.1 * objective.parts["ddr"]), rel=1e-5)


@pytest.mark.parametrize(("done", "length"), [(0.0, 3), (0.6, 5), (1.0, 6)])
def test_a_curriculum_trains_on_the_start_of_each_sequence(done: float, length: int) -> None:
    model = small()
    batch = random_batch(model, 6)
    begun = dataclasses.replace(batch, frames=batch.frames[:length], starts=batch.starts[:length])
    grown = Recipe("sequences", 10, 2, 1e-3, given=2, predicted=4, curriculum=1.0)
    short = dataclasses.replace(grown, predicted=length - 2, curriculum=0.0)
    first = Trainer(copy.deepcopy(model), grown).update(batch, done)
    second = Trainer(copy.deepcopy(model), short).update(begun, done)
    assert (first.loss, first.norm) == (second.loss, second.norm)


def test_one_iteration_of_stips_algorithm() -> None:
    model = small()
    recipe = Recipe("sequences", 10, 2, 1e-3, given=3, predicted=1, perceptual=0.01, adversarial=0.001)
    trainer = Trainer(model, recipe)
    discriminator = trainer.discriminator
    assert discriminator is not None
    frames = torch.rand(4, 2, *model.frame_shape)
    predicted, wanted = predict_sequences(model, recipe, frames, 1.0)
    objective = over_sequences(recipe, predicted, wanted, discriminator)
    parts = objective.parts
    total = parts["mse"] + 0.01 * parts["perceptual"] + 0.001 * parts["adversarial"]
    assert float(objective.loss.detach()) == pytest.approx(float(total), rel=1e-5)
    objective.loss.backward()
    assert all(p.grad is None for p in discriminator.parameters())
    model.zero_grad()
    of_discriminator(discriminator, predicted, wanted).backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in discriminator.parameters())
    before = [p.detach().clone() for net in (model, discriminator) for p in net.parameters()]
    made = trainer.update(random_batch(model, 4), 0.0)
    assert set(made.parts) == {"mse", "perceptual", "adversarial", "discriminator"}
    after = [p for net in (model, discriminator) for p in net.parameters()]
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert sum(changed) > 0.9 * len(changed)


def test_three_updates_of_stip_equal_the_released_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a plain loop in float64: the discriminator's update first, then the network's with the new judge."""
    torch.manual_seed(0)
    recipe = Recipe("sequences", 10, 2, 5e-3, given=3, predicted=1, perceptual=0.01, adversarial=0.001)
    trainer = Trainer(small().double(), recipe)
    assert trainer.discriminator is not None
    trainer.discriminator.double()
    objective = trainer._objective
    monkeypatch.setattr(trainer, "_objective", lambda frames, *others: objective(frames.double(), *others))
    network, judge = copy.deepcopy(trainer.model), copy.deepcopy(trainer.discriminator)
    ours = torch.optim.Adam(network.parameters(), lr=5e-3)
    theirs = torch.optim.Adam(judge.parameters(), lr=5e-4)
    bce, mse = torch.nn.BCELoss(), torch.nn.MSELoss()
    batches = [random_batch(network, 4) for _ in range(3)]

    def probability(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As released: the mean over time of each frame's probability, and the last features."""
        patches = patchify(frames.flatten(0, 1), 2)
        features = judge.main(patches).flatten(1)
        return torch.sigmoid(judge.linear(features)).view(frames.shape[:2]).mean(1), features

    for batch in batches:
        made = trainer.update(batch, 0.0)
        frames = (torch.from_numpy(batch.frames).permute(1, 0, 4, 2, 3).float() / 255).double()  # [B, T, C, H, W]
        state, predicted = network.init_state(2), []
        for t in range(3):
            prediction, state = network.step(frames[:, t], state)
            predicted.append(prediction[:, 0])
        after, wanted = torch.stack(predicted, 1), frames[:, 1:]
        theirs.zero_grad()
        loss_d = bce(probability(after.detach())[0], torch.zeros(2).double())
        loss_d = loss_d + bce(probability(wanted)[0], torch.ones(2).double())
        loss_d.backward()
        theirs.step()
        ours.zero_grad()
        score, features = probability(after)
        parts = mse(after, wanted), mse(features, probability(wanted)[1]), bce(score, torch.ones(2).double())
        (parts[0] + 0.01 * parts[1] + 0.001 * parts[2]).backward()
        ours.step()
        assert made.parts["discriminator"] == pytest.approx(loss_d.item(), rel=1e-6)
        assert [made.parts[name] for name in ("mse", "perceptual", "adversarial")] == pytest.approx(
            [part.item() for part in parts], rel=1e-6
        )
    for got, expected in zip(trainer.model.parameters(), network.parameters(), strict=True):
        assert torch.allclose(got, expected, atol=1e-7)
