"""The objective of an update over streams, sequences or clips, and that of STIP's discriminator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from framecast.models.step import State, StepModel
from framecast.models.tau import TAU
from framecast.training import losses
from framecast.training.discriminator import Discriminator
from framecast.training.recipes import Recipe


@dataclass(frozen=True, eq=False)
class Objective:
    """The result of one forward pass.

    Attributes:
        loss: a scalar with a gradient.
        parts: the unweighted terms of the loss, and other values for the log.
        state: the streams' state, detached.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    state: State | None = None


def over_streams(model: StepModel, recipe: Recipe, frames: Tensor, starts: Tensor, state: State | None) -> Objective:
    """Return the loss of each next frame over a stretch of streams, for truncated back-propagation.

    At the start of an episode the state is reset, and the prediction does not count.

    Args:
        model: the network to train.
        recipe: names the loss.
        frames: [T+1, B, C, H, W], 0 to 1.
        starts: [T+1, B].
        state: state after the previous stretch; None before the first frame.
    """
    state = state or model.init_state(frames.shape[1])
    total = frames.new_zeros(())
    for t in range(len(frames) - 1):
        keep = (~starts[t]).float()
        state = {name: value * keep.view(-1, *[1] * (value.dim() - 1)) for name, value in state.items()}
        prediction, state = model.step(frames[t], state)
        total = total + ((~starts[t + 1]) * _per_sample(recipe, prediction[:, 0], frames[t + 1])).mean()
    loss = total / (len(frames) - 1)
    return Objective(loss, {recipe.loss: loss.detach()}, {name: value.detach() for name, value in state.items()})


def _per_sample(recipe: Recipe, prediction: Tensor, truth: Tensor) -> Tensor:
    """Return the loss per sample, [B], of two [B, C, H, W]."""
    if recipe.loss == "log_mse":
        return losses.log_mse(prediction, truth)
    return (prediction.float() - truth).square().flatten(1).mean(1)


def predict_sequences(model: StepModel, recipe: Recipe, frames: Tensor, truth: float) -> tuple[Tensor, Tensor]:
    """Predict whole sequences, [T, B, C, H, W], each from a zero state.

    For a recurrent network all T − 1 next frames count. For TAU only the frames after the given ones count, because it
    takes all given frames at once.

    Args:
        model: the network to train.
        recipe: number of given frames.
        frames: values from 0 to 1.
        truth: probability that an input after the given ones is the true frame; see :func:`next_frames`.

    Returns:
        The predicted and the true frames, [B, T', C, H, W] each.
    """
    if isinstance(model, TAU):
        predicted = predict_clip(model, frames[: recipe.given], len(frames) - recipe.given)
    else:
        predicted = next_frames(model, frames, recipe.given, truth)
    return predicted, frames[-predicted.shape[1] :].transpose(0, 1)


def of_discriminator(discriminator: Discriminator, predicted: Tensor, wanted: Tensor) -> Tensor:
    """Return the discriminator's loss on predicted and true frames, [B, T', C, H, W] each, with a gradient for it."""
    return losses.discrimination(discriminator(wanted)[0], discriminator(predicted.detach())[0])


def over_sequences(
    recipe: Recipe, predicted: Tensor, wanted: Tensor, discriminator: Discriminator | None = None
) -> Objective:
    """Return the loss of predicted sequences, [B, T', C, H, W].

    Args:
        recipe: names the loss and the weights of its terms.
        predicted: see :func:`predict_sequences`.
        wanted: the true frames.
        discriminator: gets no gradient. In STIP's Algorithm 1 and in its released code it has already learnt from these
            frames.
    """
    if recipe.loss == "mse":
        loss = losses.mse(predicted, wanted, recipe.reduction)
    else:
        loss = losses.log_mse(predicted.flatten(0, 1), wanted.flatten(0, 1)).mean()
    parts: dict[str, Tensor] = {recipe.loss: loss}
    if recipe.ddr:
        parts["ddr"] = losses.differential_divergence(predicted, wanted, reduction=recipe.reduction)
        loss = loss + recipe.ddr * parts["ddr"]
    if discriminator is not None:
        discriminator.requires_grad_(False)
        scores, features = discriminator(predicted)
        parts["perceptual"] = losses.learned_perceptual(features, discriminator(wanted)[1])
        parts["adversarial"] = losses.adversarial(scores)
        loss = loss + recipe.perceptual * parts["perceptual"] + recipe.adversarial * parts["adversarial"]
        discriminator.requires_grad_(True)
    return Objective(loss, {name: value.detach() for name, value in parts.items()})


def next_frames(model: StepModel, frames: Tensor, given: int, truth: float) -> Tensor:
    """Predict every next frame of sequences [T, B, C, H, W] from a zero state, [B, T−1, C, H, W].

    With scheduled sampling, each sample's input after the ``given`` ones is the true frame with probability ``truth``.
    Otherwise it is the network's own prediction of that frame, not clamped and with its gradient. The draws use torch's
    CPU generator.
    """
    state = model.init_state(frames.shape[1])
    drawn = torch.rand(len(frames) - 1, frames.shape[1]) < truth
    predicted: list[Tensor] = []
    for t in range(len(frames) - 1):
        frame = frames[t]
        if t >= given:
            frame = torch.where(drawn[t].to(frame.device)[:, None, None, None], frame, predicted[-1].to(frame.dtype))
        prediction, state = model.step(frame, state)
        predicted.append(prediction[:, 0])
    return torch.stack(predicted, dim=1)


def predict_clip(model: TAU, frames: Tensor, count: int) -> Tensor:
    """Predict frames after T frames, [T, B, C, H, W] to [B, count, C, H, W], as in TAU's training: without a state.

    For more frames than the network predicts at once, the predicted blocks are fed back, with their gradient. This
    needs a network that predicts T frames.
    """
    predicted: list[Tensor] = []
    while sum(block.shape[1] for block in predicted) < count:
        clip = predicted[-1].transpose(0, 1) if predicted else frames
        embeddings, skips = model.encode(clip.flatten(0, 1))
        predicted.append(model.predict(list(embeddings.chunk(len(clip))), list(skips.chunk(len(clip)))))
    return torch.cat(predicted, dim=1)[:, :count]
