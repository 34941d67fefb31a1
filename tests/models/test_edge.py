"""edge: the mixture is least squares, its hypotheses are what they say, and it finds out what a stream does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from framecast.errors import OptionError
from framecast.models.edge import BLOCK, LEVEL, MEMORY, SHARED, STEADY, TRUST, Edge, EdgeConfig, _solved
from framecast.models.motion import LucasKanade, Warp

HEIGHT, WIDTH = 64, 96


@pytest.fixture
def model() -> Edge:
    return Edge(EdgeConfig(HEIGHT, WIDTH, hidden=8, middle=8, deep=8)).eval()


def scene(height: int, width: int) -> Tensor:
    """A smooth picture [1, 3, height, width]."""
    coarse = torch.rand(1, 3, height // 8, width // 8)
    return functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)


def stepped(model: Edge, frames: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    state, predicted = model.init_state(len(frames[0])), []
    for frame in frames:
        prediction, state = model.step(frame, state)
        predicted.append(prediction[:, 0])
    return predicted, state


@torch.inference_mode()
def test_weights_are_least_squares_held_to_the_prior(model: Edge) -> None:
    """Against numpy's solver in float64, for the whole frame and then for each block."""
    count, blocks = model.count, (HEIGHT // BLOCK) * (WIDTH // BLOCK)
    samples = torch.randn(blocks, count + 1, 300) * torch.logspace(-3, -1, count + 1)[:, None]
    statistics = (samples @ samples.transpose(1, 2) / 300)[None]
    found = model.weights(statistics).flatten(2)[0].T.double().numpy()  # [blocks, N]
    products = statistics[0].double().numpy()
    a, b = products[:, :-1, :-1], products[:, :-1, -1:]
    prior, unit = np.zeros((count, 1)), STEADY * np.eye(count)
    prior[0] = 1 - TRUST
    whole, told = a.mean(axis=0), b.mean(axis=0)
    frame = prior + np.linalg.solve(whole + unit, told - whole @ prior)
    wanted = frame + np.linalg.solve(a + SHARED * (whole + 4 * unit), b - a @ frame)
    assert np.allclose(found, wanted[..., 0], rtol=2e-3, atol=2e-3)


@torch.inference_mode()
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
def test_weights_are_numbers_where_rounding_eats_the_digits(model: Edge, scale: float) -> None:
    """Hypotheses that are nearly the same, and a miss next to which their energy is huge."""
    count = model.count
    alike = torch.randn(300, 1, 1, 300) + torch.randn(300, 1, count, 300) * 10 ** (-6 * torch.rand(300, 1, count, 1))
    told = torch.cat([alike, alike[:, :, :1] + 1e-3 * torch.randn(300, 1, 1, 300)], dim=2)
    statistics = scale * (told @ told.transpose(2, 3)) / 300
    found = _solved(statistics[:, :, :-1], model.prior, STEADY * torch.eye(count))
    assert found.isfinite().all()


@torch.inference_mode()
def test_statistics_are_mean_products_of_what_was_said_and_what_came(model: Edge) -> None:
    frames = [torch.rand(1, *model.frame_shape) for _ in range(4)]
    _, before = stepped(model, frames[:3])
    _, after = model.step(frames[3], before)
    made, count = before["hypotheses"][0].double().numpy(), model.count
    coloured, grey = made[3:9].reshape(2, 3, *made.shape[1:]), made[9:]
    missed = frames[3][0, :, ::2, ::2].double().numpy() - made[:3]
    told = np.concatenate([coloured, np.repeat(grey[:, None], 3, axis=1), missed[None]])
    weight = 1 / (np.mean(missed**2) + LEVEL**2)
    for block, (row, column) in enumerate(np.ndindex(HEIGHT // BLOCK, WIDTH // BLOCK)):
        side = BLOCK // 2
        part = told[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side].reshape(count + 1, -1)
        wanted = MEMORY * before["statistics"][0, block].double().numpy() + weight * part @ part.T / part.shape[1]
        assert np.allclose(after["statistics"][0, block], wanted, atol=1e-4)


@torch.inference_mode()
def test_what_the_network_changes_counts_by_how_much_it_has_helped(model: Edge) -> None:
    """A network that always adds the same: on frames that brighten it is trusted more, on others no longer."""
    assert model.refine.changes.bias is not None
    model.refine.changes.bias[-3:] = 0.2  # the residual: 0.02 of the value range
    frame = 0.5 * scene(HEIGHT, WIDTH)
    grown: list[float] = []
    kept: list[float] = []
    for step, found in ((0.02, grown), (0.0, kept)):
        frames = [frame + step * index for index in range(12)]
        state = model.init_state()
        for index, now in enumerate(frames):
            prediction, state = model.step(now, state)
            mixture = state["corrected"][:, :3]
            found.append(float((prediction[0, 0, :, ::2, ::2] - mixture).mean()) / 0.02)
            assert index or found[0] == pytest.approx(1, abs=1e-3)
    assert kept[-1] < 0.2
    assert grown[-1] > kept[-1]


@torch.inference_mode()
def test_hypotheses_are_what_they_say(model: Edge) -> None:
    """Of a frame that moves by (4, −2) pixels after one that moved by (2, −1)."""
    frame, previous, predicted = (scene(HEIGHT, WIDTH) for _ in range(3))
    flow = torch.tensor([4.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, HEIGHT // 2, WIDTH // 2)
    reference, aligned, coloured, grey = model.hypotheses(frame, previous, predicted, flow, flow / 2)

    def pulled(picture: Tensor, x: float, y: float) -> Tensor:
        flow = torch.tensor([x, y]).view(1, 2, 1, 1).expand(1, 2, HEIGHT, WIDTH)
        warped: Tensor = Warp(HEIGHT, WIDTH)(picture, flow)
        return warped

    assert torch.allclose(reference, pulled(frame, 4, -2), atol=1e-5)
    assert torch.allclose(aligned, pulled(previous, 4, -2), atol=1e-5)
    copied, before = (reference + x for x in coloured)
    assert torch.allclose(copied, frame, atol=1e-6)
    assert torch.allclose(before, previous, atol=1e-6)
    light = frame.mean(1)
    wanted = {
        "aligned": aligned.mean(1),
        "earlier": pulled(previous, 8, -4).mean(1),
        "steady": pulled(frame, 3, -1.5).mean(1),
        "slower": pulled(frame, 1.5, -0.75).mean(1),
        "faster": pulled(frame, 6, -3).mean(1),
        "blurred": functional.avg_pool2d(functional.pad(reference.mean(1), (2,) * 4, mode="replicate"), 5, 1),
        "soft": functional.avg_pool2d(functional.pad(light, (2,) * 4, mode="replicate"), 5, 1),
        "carried": reference.mean(1),  # the same motion everywhere
        "filtered": pulled(predicted, 4, -2).mean(1),
    }
    assert list(wanted) == list(model.grey)
    for index, (name, picture) in enumerate(wanted.items()):
        assert torch.allclose(reference.mean(1) + grey[:, index], picture, atol=1e-5), name


@torch.inference_mode()
def test_motion_is_looked_up_where_it_comes_from(model: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows that grow to the right, in pixels of the frame though they are kept at half its size."""
    x = 2 * torch.arange(WIDTH // 2) + 0.5  # where the kept values lie, in pixels of the frame
    ramp = torch.stack([2 + 0.05 * x, torch.zeros(WIDTH // 2)])[None, :, None].expand(1, 2, HEIGHT // 2, -1)
    seen = {}

    def spied(*arguments: Tensor) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        seen["before"] = arguments[-1]
        return Edge.hypotheses(model, *arguments)

    monkeypatch.setattr(model, "hypotheses", spied)
    monkeypatch.setattr(model.flow, "forward", lambda *_: torch.tensor([8.0, 0.0]).view(1, 2, 1, 1).expand_as(ramp))
    frame = scene(HEIGHT, WIDTH)
    model(frame, {**model.init_state(), "flow": ramp})
    inner = slice(4, -8)
    assert torch.allclose(seen["before"][0, 0, 5, inner], (2 + 0.05 * (x + 8))[inner], atol=1e-4)

    reference, _, _, grey = model.hypotheses(frame, frame, frame, ramp, ramp)
    x = torch.arange(WIDTH)
    flow = torch.zeros(1, 2, HEIGHT, WIDTH)
    flow[:, 0] = 2 + 0.05 * (x + 2 + 0.05 * x)
    wanted = Warp(HEIGHT, WIDTH)(frame.mean(1, keepdim=True), flow)
    carried = reference.mean(1) + grey[:, model.grey.index("carried")]
    assert torch.allclose(carried[..., 8:-16], wanted[:, 0, :, 8:-16], atol=2e-3)


@torch.inference_mode()
def test_it_finds_out_what_a_stream_does(model: Edge) -> None:
    """A camera that shakes to and fro: the next frame is the one before, which no constant velocity foresees."""
    wide = scene(HEIGHT, WIDTH + 16)
    frames = [wide[..., 8 * (i % 2) : 8 * (i % 2) + WIDTH] for i in range(14)]
    predicted, _ = stepped(model, frames[:-1])
    first, last, copying = (
        (a - b).square().mean()
        for a, b in ((predicted[1], frames[2]), (predicted[-1], frames[-1]), (frames[-2], frames[-1]))
    )
    assert last < first / 20
    assert last < copying / 20


@torch.inference_mode()
def test_a_still_stream_is_copied_and_the_first_frame_too(model: Edge) -> None:
    frame = scene(HEIGHT, WIDTH)
    predicted, _ = stepped(model, [frame] * 4)
    assert all((p - frame).abs().max() < 1e-3 for p in predicted)


@torch.inference_mode()
def test_whatever_is_fed_back_stays_in_range(model: Edge) -> None:
    """Noise, and a network that answers wildly, fed their own predictions without end."""
    for name, parameter in model.named_parameters():
        if name.startswith(("refine.changes", "refine.correction")):
            torch.nn.init.normal_(parameter, std=10)
    predicted, state = stepped(model, [torch.rand(4, *model.frame_shape) for _ in range(2)])
    for _ in range(40):
        prediction, state = model.step(predicted[-1], state)
        predicted.append(prediction[:, 0])
        assert all(torch.isfinite(value).all() for value in state.values())
    assert all(frame.min() >= 0 and frame.max() <= 1 for frame in predicted)


@torch.inference_mode()
def test_weights_fit_every_resolution(model: Edge) -> None:
    other = Edge(EdgeConfig(96, 160, hidden=8, middle=8, deep=8)).eval()
    other.load_state_dict(model.state_dict())
    prediction, _ = other.step(torch.rand(1, 3, 96, 160), other.init_state())
    assert prediction.shape == (1, 1, 3, 96, 160)


@torch.inference_mode()
def test_selection_lets_motion_end_where_things_end() -> None:
    """Two halves that slide past each other: around the border each pixel should have the motion of one of them."""
    height, width = 96, 128
    left, right = scene(height + 8, width), scene(height + 8, width)

    def view(shift: int) -> Tensor:
        up, down = left[..., 4 + shift : 4 + shift + height, :], right[..., 4 - shift : 4 - shift + height, :]
        return torch.cat([up[..., : width // 2], down[..., width // 2 :]], dim=-1)

    truth = torch.ones(1, 1, height // 2, width // 2)
    truth[..., width // 4 :] = -1
    errors = []
    for select in (False, True):
        flow = LucasKanade(height, width, smooth=3 if select else 7, select=select)(view(1), view(0))
        near = (flow[:, 1:] - truth)[..., 8:-8, width // 4 - 6 : width // 4 + 6]
        errors.append(float(near.abs().mean()))
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("size", [(96, 100), (48, 96), (32, 96)])
def test_sizes_that_cannot_be_are_said(size: tuple[int, int]) -> None:
    with pytest.raises(OptionError, match="height and width must be multiples of 32, 64 or more, not"):
        Edge(EdgeConfig(*size))
