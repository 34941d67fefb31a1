"""edge: motion hypotheses, mixed by how well each has done so far, and refined by a network. Not a published network.

Where a pixel will come from is a guess: it may go on as it did, speed up, slow down, stay. Each guess gives a picture.
How to mix the pictures is learned while running, by recursive least squares over the frames that have come (Haykin,
Adaptive Filter Theory, chapter 10): a camera's noise, jitter and pace are found out within a few frames. What the
training adds is a convolutional network that sees the hypotheses and what went wrong last time, and corrects the
mixture pixel by pixel. No layer is bound to a resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from framecast.errors import OptionError
from framecast.models.blocks import check_sizes
from framecast.models.motion import REACH, LucasKanade, Warp, box, enlarge
from framecast.models.step import State, StepModel

PATCH = 4  # the network's resolution is a quarter of the frame's
BLOCK = 32  # pixels a side of what has weights of its own
MEMORY = 0.93  # how much of the statistics is kept from one frame to the next
LEVEL = 1 / 255  # one grey level
STEADY = 0.01  # energy of a difference between hypotheses, as a share of the miss, too small to tell them apart
HUGE = 1e12  # in an elimination: far beyond what is exact, far from what overflows
SHARED = 0.3  # how firmly a block is held to the weights of the whole frame
LARGEST = 8.0  # weight: rounding may give larger ones where hypotheses are nearly the same
TRUST = 0.7  # in the extrapolated frame against the plain last one, while nothing is known
FLOW_UNIT = 4.0  # pixels: flows are divided by it where they are features
ERROR_UNIT = 0.1  # of the value range: differences between frames are divided by it where they are features
RESIDUAL_UNIT = 0.1  # of the value range: what the network adds is multiplied by it, so that it starts with small steps


@dataclass(frozen=True)
class EdgeConfig:
    """Sizes of the network.

    Raises:
        OptionError: there is no network of such sizes.
    """

    height: int
    width: int
    channels: int = 3
    hidden: int = 64
    middle: int = 96
    deep: int = 160

    def __post_init__(self) -> None:
        check_sizes(self, {"channels": 1, "hidden": 1, "middle": 1, "deep": 1})
        if self.height % BLOCK or self.width % BLOCK or min(self.height, self.width) < 2 * BLOCK:
            sizes = f"not {self.height} and {self.width}"
            raise OptionError(f"height and width must be multiples of {BLOCK}, {2 * BLOCK} or more, {sizes}")


class Edge(StepModel):
    """The network of this file.

    State, for frames [C, H, W] and N hypotheses beside the first:

    - ``previous`` [C, H, W]: the last frame; ``predicted`` [C, H, W]: what had been predicted for it, 0 to 1;
    - ``flow`` [2, H/2, W/2]: from it to the one before, in pixels of the frame;
    - ``hypotheses`` [3·C + N − 2, H/2, W/2]: every other pixel of the first one, and of what the others differ by;
    - ``statistics`` [blocks, N + 1, N + 1]: products of the hypotheses and of what came, summed up over the frames,
      older ones counting less;
    - ``corrected`` [2·C, H/2, W/2]: every other pixel of the mixture, and of what the network changed of it;
    - ``helped`` [2, 1, 1]: as the statistics: products of that change with itself, and with what it should have been;
    - ``started`` [1, 1, 1]: 0 until there has been a frame.
    """

    warmup = 2  # the first step knows no motion
    coloured = ("copy", "previous")  # hypotheses that cost nothing, in colour; the others in brightness only:
    grey = ("aligned", "earlier", "steady", "slower", "faster", "blurred", "soft", "carried", "filtered")

    def __init__(self, config: EdgeConfig) -> None:
        super().__init__()
        self.config = config
        height, width, channels = config.height, config.width, config.channels
        self.frame_shape = (channels, height, width)
        count, half = len(self.coloured) + len(self.grey), (height // 2, width // 2)
        self.count = count
        self.state_shapes = {
            "previous": self.frame_shape,
            "predicted": self.frame_shape,
            "flow": (2, *half),
            "hypotheses": ((1 + len(self.coloured)) * channels + len(self.grey), *half),
            "statistics": ((height // BLOCK) * (width // BLOCK), count + 1, count + 1),
            "corrected": (2 * channels, *half),
            "helped": (2, 1, 1),
            "started": (1, 1, 1),
        }
        self.flow = LucasKanade(height, width, smooth=3, select=True)
        self.warp = Warp(height, width)
        self.warp_half = Warp(*half)
        prior = torch.zeros(count, 1)
        prior[0] = 1 - TRUST
        self.register_buffer("prior", prior, persistent=False)
        self.refine = Refine(config, 4 * channels + count, 4 + count + 1, count, (count + 1 + channels, 2))

    prior: Tensor

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: see :meth:`StepModel.forward`."""
        started = state["started"]
        previous, predicted = (started * state[name] + (1 - started) * frame for name in ("previous", "predicted"))
        told = started.unsqueeze(1) * self.compared(state["hypotheses"], frame)
        products = self.products(told)
        # A frame counts by how well it could be foreseen, as in the PSNR: one cut does not drown what came before.
        share = 1 / (products[..., -1:, -1:].mean(dim=1, keepdim=True) + LEVEL**2)  # [B, 1, 1, 1]
        statistics = MEMORY * state["statistics"] + share * products
        helped = MEMORY * state["helped"] + share * self.help(frame, state)
        weights = self.weights(statistics)  # [B, N, H/32, W/32]

        flow = self.flow(frame, previous)
        before = self.warp_half(state["flow"], flow / 2)  # a flow is in pixels of the frame
        reference, aligned, coloured, grey = self.hypotheses(frame, previous, predicted, flow, before)
        fine = enlarge(weights, BLOCK)
        mixture = reference + _mixed(fine, coloured, grey)

        changed = [x - frame for x in (predicted, mixture, aligned)] + [_brightness(x) for x in coloured] + [grey]
        views = [frame - 0.5, *(x / ERROR_UNIT for x in changed)]
        missed = told.mean(dim=2)
        misses = torch.cat([missed[:, -1:], missed[:, -1:] - missed[:, :-1]], dim=1).abs() / ERROR_UNIT
        flows = torch.cat([flow / FLOW_UNIT, (flow - before) / FLOW_UNIT, misses], dim=1)
        changes, correction = self.refine(torch.cat(views, dim=1), flows, enlarge(weights, BLOCK // PATCH))
        gates, moving, residual = torch.split(changes, [self.count, 1, self.config.channels], dim=1)
        moved = self.warp(frame, enlarge(flow + correction.clamp(-REACH, REACH), 2))
        change = _mixed(gates, coloured, grey) + moving * (moved - mixture) + RESIDUAL_UNIT * residual
        worth = (helped[:, 1:] + STEADY) / (helped[:, :1] + STEADY)  # 1 while nothing is known
        # It is an input again, without end, here and where a predictor looks ahead: so it is bounded.
        prediction = (mixture + worth.clamp(0, 2) * change).clamp(0, 1)
        # Before there was motion, hypotheses differ by rounding only, from which nothing is to be learned.
        made = torch.cat([reference, *(started * picture for picture in (*coloured, grey))], dim=1)
        return prediction.unsqueeze(1), {
            "previous": frame,
            "predicted": prediction,
            "flow": flow,
            "hypotheses": made[..., ::2, ::2],
            "statistics": statistics,
            "corrected": torch.cat([mixture, change], dim=1)[..., ::2, ::2],
            "helped": helped,
            "started": torch.ones_like(started),
        }

    def hypotheses(
        self, frame: Tensor, previous: Tensor, predicted: Tensor, flow: Tensor, before: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """The pictures that may come next.

        Args:
            frame: [B, C, H, W].
            previous: the frame before it.
            predicted: what had been predicted for ``frame``.
            flow: from ``frame`` to ``previous``, [B, 2, H/2, W/2].
            before: the flow one frame earlier, of what is now at each pixel.

        Returns:
            The frame pulled along its flow, which is constant velocity [B, C, H, W]; the frame before, pulled so that
            it lies on this one [B, C, H, W]; by how much the others differ from the first: those in colour
            [B, C, H, W] each, and those in brightness only [B, N, H, W].
        """
        now, mean = enlarge(flow, 2), enlarge((flow + before) / 2, 2)
        reference, aligned = self.warp(frame, now), self.warp(previous, now)
        light, dark = _brightness(frame), _brightness(reference)
        pictures = [
            _brightness(aligned),
            self.warp(_brightness(previous), 2 * now),
            self.warp(light, mean),
            self.warp(light, mean / 2),
            self.warp(light, 3 * now - 2 * mean),  # 2 · flow − before: it gains as much speed again
            box(dark, 5),
            box(light, 5),
            self.warp(light, enlarge(self.warp_half(flow, flow / 2), 2)),  # motion goes along with what moves
            self.warp(_brightness(predicted), now),  # all frames so far: noise averages out
        ]
        return reference, aligned, [frame - reference, previous - reference], torch.cat(pictures, dim=1) - dark

    def compared(self, hypotheses: Tensor, frame: Tensor) -> Tensor:
        """What the hypotheses before ``frame`` said and, last, what came, as differences to the first hypothesis.

        [B, N + 1, C, H/2, W/2]; of ``frame`` [B, C, H, W] every other pixel.
        """
        channels, count = self.config.channels, len(self.coloured)
        reference, *coloured, grey = torch.split(hypotheses, [channels] * (1 + count) + [len(self.grey)], dim=1)
        missed = frame[..., ::2, ::2] - reference
        told = [torch.stack(coloured, dim=1), grey.unsqueeze(2).expand(-1, -1, channels, -1, -1), missed.unsqueeze(1)]
        return torch.cat(told, dim=1)

    def help(self, frame: Tensor, state: State) -> Tensor:
        """Mean products of the network's last change with itself, and with what it should have been: [B, 2, 1, 1]."""
        mixture, change = state["corrected"].chunk(2, dim=1)
        wanted = frame[..., ::2, ::2] - mixture
        return torch.stack([change * change, change * wanted], dim=1).mean(dim=(2, 3, 4)).reshape(-1, 2, 1, 1)

    def products(self, told: Tensor) -> Tensor:
        """Mean products of the hypotheses and, last, what came, with each other, for each block.

        ``told`` [B, N + 1, C, H/2, W/2] to [B, blocks, N + 1, N + 1].
        """
        count, channels, height, width = told.shape[1:]
        side = BLOCK // 2
        blocks = told.reshape(-1, count, channels, height // side, side, width // side, side).permute(
            0, 3, 5, 1, 2, 4, 6
        )
        blocks = blocks.reshape(-1, (height // side) * (width // side), count, channels * side**2)
        return blocks @ blocks.transpose(2, 3) / blocks.shape[-1]

    def weights(self, statistics: Tensor) -> Tensor:
        """Least squares for the whole frame, held to the prior, then for each block, held to that.

        ``statistics`` [B, blocks, N + 1, N + 1] to [B, N, H/32, W/32].
        """
        whole = statistics.mean(dim=1, keepdim=True)
        unit = STEADY * torch.eye(self.count, dtype=statistics.dtype, device=statistics.device)
        frame = _solved(whole[..., :-1, :], self.prior, unit)
        block = _solved(statistics[..., :-1, :], frame, SHARED * (whole[..., :-1, :-1] + 4 * unit))
        block = block.clamp(-LARGEST, LARGEST)
        rows, columns = self.config.height // BLOCK, self.config.width // BLOCK
        return block.transpose(1, 2).reshape(-1, self.count, rows, columns)


class Refine(nn.Module):
    """A U-Net of three scales; untrained it gives zeros, and so leaves the mixture as it is.

    Args:
        config: its widths.
        views: channels at the frame's resolution.
        flows: channels at half of it.
        weights: channels at a quarter of it.
        outputs: channels of what it gives at the frame's resolution, and at half of it.
    """

    def __init__(self, config: EdgeConfig, views: int, flows: int, weights: int, outputs: tuple[int, int]) -> None:
        super().__init__()
        fine, middle, deep = config.hidden, config.middle, config.deep
        self.views = nn.Conv2d(views, fine, PATCH, stride=PATCH)
        self.flows = nn.Conv2d(flows, fine, PATCH // 2, stride=PATCH // 2, bias=False)
        self.weights = nn.Conv2d(weights, fine, 1, bias=False)
        self.enter = _conv(fine, fine)
        self.down = nn.Sequential(_conv(fine, middle, stride=2), _conv(middle, middle))
        self.bottom = nn.Sequential(_conv(middle, deep, stride=2), _conv(deep, deep), _conv(deep, middle, 1))
        self.middle = nn.Sequential(_conv(middle, middle), _conv(middle, fine, 1))
        self.leave = nn.Sequential(_conv(fine, fine), _conv(fine, fine, 1))
        self.changes = nn.ConvTranspose2d(fine, outputs[0], PATCH, stride=PATCH)
        self.correction = nn.ConvTranspose2d(fine, outputs[1], PATCH // 2, stride=PATCH // 2)
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or name.startswith(("changes", "correction")):
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter, a=0.2)

    def forward(self, views: Tensor, flows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W], [B, C, H/2, W/2], [B, C, H/4, W/4] to [B, C, H, W], [B, C, H/2, W/2]."""
        entered = self.views(views) + self.flows(flows) + self.weights(weights)
        fine = self.enter(functional.leaky_relu(entered, 0.2))
        middle = self.down(fine)
        middle = middle + enlarge(self.bottom(middle), 2)
        out = self.leave(fine + enlarge(self.middle(middle), 2))
        return self.changes(out), self.correction(out)


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.LeakyReLU(0.2))


def _brightness(picture: Tensor) -> Tensor:
    """[B, C, H, W] to [B, 1, H, W]."""
    return picture.mean(dim=1, keepdim=True)


def _mixed(weights: Tensor, coloured: list[Tensor], grey: Tensor) -> Tensor:
    """Sum of hypotheses, each weighted by pixel: ``weights`` [B, N, H, W] to [B, C, H, W]."""
    count = len(coloured)
    sum_ = (weights[:, count:] * grey).sum(dim=1, keepdim=True)
    for index, picture in enumerate(coloured):
        sum_ = sum_ + weights[:, index : index + 1] * picture
    return sum_


def _solved(statistics: Tensor, prior: Tensor, firmness: Tensor) -> Tensor:
    """The weights w that minimise the mean squared error plus (w − prior)ᵀ · firmness · (w − prior).

    Gauss–Jordan elimination, written out: graphs have no operator for it; a positive definite matrix needs no pivot.

    Args:
        statistics: [..., N, N + 1]: products of the hypotheses with each other, and with what came.
        prior: [..., N, 1].
        firmness: [..., N, N], its eigenvalues ``STEADY`` at least.

    Returns:
        [..., N, 1].
    """
    count = statistics.shape[-2]
    products, told = torch.split(statistics, [count, 1], dim=-1)
    system = torch.cat([products + firmness, told - products @ prior], dim=-1)
    unit = torch.eye(count, dtype=statistics.dtype, device=statistics.device)
    for i in range(count):
        row = system[..., i : i + 1, :]
        # A pivot is the least eigenvalue of the firmness at least, and nothing grows far: but for rounding, where
        # hypotheses are nearly the same and what came was foreseen exactly. Then too it must be a number.
        row = row / row[..., i : i + 1].clamp(min=STEADY)
        system = (system - (system[..., i : i + 1] - unit[:, i : i + 1]) * row).clamp(-HUGE, HUGE)
    return prior + system[..., count:]
