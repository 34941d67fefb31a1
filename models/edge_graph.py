"""edge as graphs: motion and mixture without training, in two functions, for GPUs. Not a published network.

``Perceive`` takes a frame and says how things move and how to mix guesses of what is to come; ``Render`` makes the
picture of any moment ahead of it. They are the graphs' form of :mod:`framecast.runtime.motion`, stage by stage, which
says why each stage is as it is, and whose constants they use. What differs:

- flow: a graph has no dense inverse search, so ``LatticeFlow`` is a pyramid of Lucas–Kanade steps;
- the mixture is that of large pictures (``motion/warped.py``) at every size;
- the horizons that have statistics of their own are fixed, and between two of them weights are interpolated, where the
  OpenCV form learns those that are asked for, and interpolates their statistics;
- a guess is made for a whole number of intervals ahead, when its frame comes, and compared at its lattice points only,
  so that no old pictures are kept; where frames come at other times by then, it is left out.

Everything is float32 in 0 to 1. A state of zeros is fresh, and nothing is ever NaN if frames and times are numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from framecast.errors import OptionError
from framecast.models.blocks import check_sizes
from framecast.models.lattice_flow import LatticeFlow
from framecast.models.mixing import products, updated, weights
from framecast.models.sampling import Between, Pick, Pull, Shrink, mean_around, resized
from framecast.models.step import History, MomentModel, State
from framecast.runtime.motion.lattice import Lattice
from framecast.runtime.motion.motion import FURTHEST, RECENT
from framecast.runtime.motion.warped import BLOCKS, BLUR, FASTEST, KEPT, SLOWER, TRUST, Warped

LEAST = 16  # pixels a side of the smallest picture
GREY = (0.114, 0.587, 0.299)  # of B, G, R: OpenCV's, from ITU-R BT.601
SOONEST = 1e-6  # seconds between two frames at least
PUNCTUAL = 0.25  # intervals: a frame that comes so far from when it was guessed for teaches nothing
NAMES = Warped.names


@dataclass(frozen=True)
class EdgeConfig:
    """Sizes of the graphs.

    Attributes:
        height: of the pictures.
        width: of the pictures.
        channels: 3: blue, green, red.
        reach: the furthest horizon, in intervals, that has statistics of its own; so have all powers of two below it.

    Raises:
        OptionError: there are no such graphs.
    """

    height: int
    width: int
    channels: int = 3
    reach: int = 8

    def __post_init__(self) -> None:
        check_sizes(self, {"height": LEAST, "width": LEAST})
        if self.channels != 3:
            raise OptionError(f"edge takes pictures of 3 channels, not of {self.channels}")
        if not (1 <= self.reach <= FURTHEST and self.reach & (self.reach - 1) == 0):
            raise OptionError(f"reach must be a power of two, {FURTHEST} at most, not {self.reach}")

    @property
    def horizons(self) -> tuple[int, ...]:
        """1, 2, 4, … intervals."""
        return tuple(1 << i for i in range(self.reach.bit_length()))


class Trajectories(nn.Module):
    """Where what will be at a lattice point, some time ahead, is now (``motion/trajectory.py``)."""

    def __init__(self, lattice: Lattice) -> None:
        super().__init__()
        width, height = lattice.coarse
        self.pull = Pull(torch.arange(width), torch.arange(height), width, height)

    def forward(self, velocity: Tensor, acceleration: Tensor, elapsed: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
        """The displacement at constant velocity, and what the acceleration adds to it.

        Args:
            velocity: [B, 2, h, w], lattice points a second.
            acceleration: [B, 2, h, w].
            elapsed: [B, 1]: seconds that the velocity is a mean over.
            ahead: [B, n]: seconds.

        Returns:
            Two [B, 2, n, h, w], lattice points.
        """
        since, times = elapsed[:, None, :, None, None], ahead[:, None, :, None, None]
        found = velocity.unsqueeze(2) * times
        near = times <= 1.5 * since  # then two rounds are enough
        for index in range(4):
            closer = self.pull(velocity, found) * times
            found = closer if index < 2 else torch.where(near, found, closer)
        return found, self.pull(acceleration, found) * (times * (times + since) / 2)


class Samples(nn.Module):
    """Guesses at the lattice's points of the full-size picture (``Warped.told``).

    Attributes:
        taken: reads what came at the same points.
    """

    def __init__(self, lattice: Lattice) -> None:
        super().__init__()
        x, y = (
            ((torch.arange(n) + 0.5) * float(scale)).clamp(0, length - 1).floor()
            for n, scale, length in zip(lattice.coarse, lattice.scale, lattice.size, strict=True)
        )
        on_lattice = [(at + 0.5) / float(s) - 0.5 for at, s in zip((x, y), lattice.scale, strict=True)]
        self.taken = Pick(x, y)
        self.read = Pull(x, y, *lattice.size)
        self.displaced = Between(on_lattice[0], on_lattice[1], *lattice.coarse)
        self.register_buffer("scale", torch.from_numpy(lattice.scale).reshape(1, 2, 1, 1, 1), persistent=False)

    scale: Tensor

    def forward(self, pictures: tuple[Tensor, Tensor, Tensor], found: Tensor, extra: Tensor) -> Tensor:
        """The guesses, but for the first as differences to it.

        Args:
            pictures: the frame, blurred, and filtered: [B, C, H, W] each.
            found: displacements on the lattice [B, 2, n, h, w], for n horizons.
            extra: what the acceleration adds to them.

        Returns:
            [B, 1 + N, C, n, h, w].
        """
        picture, blurred, filtered = pictures
        found, extra = (self.displaced(x) * self.scale for x in (found, extra))
        reference = self.read(picture, found)
        slower = self.read(picture, SLOWER * found)
        guesses = {
            "copy": self.taken(picture).unsqueeze(2) - reference,
            "velocity": (slower - reference) * (-1 / (1 - SLOWER)),
            "acceleration": self.read(picture, found + extra) - reference,
            "blurred": self.read(blurred, found) - reference,
            "filtered": self.read(filtered, found) - reference,
        }
        return torch.stack([reference, *(guesses[name] for name in NAMES)], dim=1)


class Edge(MomentModel):
    """The two graphs of one picture size.

    State, for pictures [C, H, W], a lattice [h, w] and N guesses beside the first:

    - ``newest`` [C, H, W]: the last frame; ``filtered`` [C, H, W]: a mean over the frames so far, pulled along;
    - ``started`` [1]: 0 until there has been a frame;
    - ``velocity`` [2, h, w]: lattice points a second, towards where each point came from;
    - ``intervals`` [RECENT]: seconds between the last frames, newest first; zeros until there were two;
    - ``statistics`` [horizons, blocks, N + 1, N + 1]: products of guesses and of what came, older ones counting less;
    - histories: ``told_K`` [1 + N, C, h, w]: the guesses for K intervals ahead; ``interval`` [1]: seconds of one, then.
    """

    warmup = 2  # the first frame has no motion

    def __init__(self, config: EdgeConfig) -> None:
        super().__init__()
        self.config = config
        self.lattice = lattice = Lattice(config.width, config.height)
        self.frame_shape = (config.channels, config.height, config.width)
        self.horizons = config.horizons
        width, height = lattice.coarse
        count, points = len(NAMES), (2, height, width)
        self.state_shapes = {
            "newest": self.frame_shape,
            "filtered": self.frame_shape,
            "started": (1,),
            "velocity": points,
            "intervals": (RECENT,),
            "statistics": (len(self.horizons), BLOCKS[0] * BLOCKS[1], count + 1, count + 1),
        }
        told = (1 + count, config.channels, height, width)
        self.histories = {f"told_{k}": History(k, told) for k in self.horizons}
        self.histories["interval"] = History(self.horizons[-1], (1,))
        self.fields = {
            "newest": self.frame_shape,
            "filtered": self.frame_shape,
            "velocity": points,
            "acceleration": points,
            "times": (2,),
            "weights": (len(self.horizons), count, *BLOCKS),
        }
        self.to_fine = Shrink(lattice.size, lattice.fine)
        self.to_coarse = Shrink(lattice.fine, lattice.coarse)
        self.flow = LatticeFlow(lattice)
        self.trajectories = Trajectories(lattice)
        self.samples = Samples(lattice)
        self.full = Pull(torch.arange(config.width), torch.arange(config.height), config.width, config.height)
        prior = torch.zeros(count, 1)
        prior[NAMES.index("copy")] = 1 - TRUST
        self.register_buffer("grey", torch.tensor(GREY).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", self.samples.scale[:, :, 0], persistent=False)
        self.register_buffer("prior", prior, persistent=False)
        self.register_buffer("steps", torch.tensor([self.horizons], dtype=torch.float32), persistent=False)

    grey: Tensor
    scale: Tensor
    prior: Tensor
    steps: Tensor

    def perceive(self, frame: Tensor, elapsed: Tensor, state: State) -> tuple[State, State]:
        """See :meth:`MomentModel.perceive`."""
        started = state["started"].reshape(-1, 1, 1, 1)
        since = elapsed.reshape(-1, 1).clamp(min=SOONEST)
        flow = started * self.flow(*self._greys(frame), *self._greys(state["newest"]))
        mean = KEPT * state["filtered"] + (1 - KEPT) * state["newest"]
        filtered = started * self._pulled(mean, flow) + (1 - started) * frame

        known = state["intervals"]
        shifted = torch.cat([since, known[:, :-1]], dim=1)
        intervals = state["started"] * torch.where(known[:, :1] > 0, shifted, since.expand_as(shifted))
        interval = intervals.topk(RECENT // 2 + 1, dim=1).values[:, -1:]  # their median

        velocity = flow / since[..., None, None]
        before = known[:, :1, None, None]
        change = velocity - self.trajectories.pull(state["velocity"], flow.unsqueeze(2)).squeeze(2)
        acceleration = torch.where(before > 0, change * (2 / (since[..., None, None] + before)), 0.0)

        statistics, taught = self._taught(frame, state, intervals)
        pictures = frame, mean_around(frame, BLUR, "reflect"), filtered
        ahead = torch.cat([k * interval for k in self.horizons], dim=1)
        told = self.samples(pictures, *self.trajectories(velocity, acceleration, since, ahead))
        fields = {
            "acceleration": acceleration,
            "times": torch.cat([interval, intervals[:, :1]], dim=1),
            "weights": self._weights(taught),
        }
        return fields, {
            "newest": frame,
            "filtered": filtered,
            "started": torch.ones_like(state["started"]),
            "velocity": velocity,
            "intervals": intervals,
            "statistics": statistics,
            **{f"told_{k}": told[:, :, :, i] for i, k in enumerate(self.horizons)},
            "interval": interval,
        }

    def render(self, fields: State, ahead: Tensor) -> Tensor:
        """See :meth:`MomentModel.render`."""
        newest, interval, elapsed = fields["newest"], fields["times"][:, :1], fields["times"][:, 1:]
        steps = ahead.reshape(-1, 1) / interval.clamp(min=SOONEST)
        mixed = resized(self._between(fields["weights"], steps), self.lattice.coarse)  # [B, N, h, w]
        guess = {name: mixed[:, i : i + 1] for i, name in enumerate(NAMES)}
        times = elapsed, ahead.reshape(-1, 1)
        moved = self.trajectories(fields["velocity"], fields["acceleration"], *times)
        found, extra = (x.squeeze(2) for x in moved)
        found = found * (1 + guess["velocity"].clamp(-FASTEST, FASTEST)) + guess["acceleration"].clamp(-1, 1) * extra
        late = resized(torch.cat([guess[name] for name in ("filtered", "blurred", "copy")], dim=1), self.lattice.size)
        source = _blended(newest, fields["filtered"], late[:, :1])
        source = _blended(source, mean_around(newest, BLUR, "reflect"), late[:, 1:2])
        return _blended(self._pulled(source, found), newest, late[:, 2:])

    def _greys(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """The brightness of ``frame`` on the lattice, and at the size that corrects the flow."""
        fine = self.to_fine((frame * self.grey).sum(dim=1, keepdim=True))
        return self.to_coarse(fine), fine

    def _pulled(self, picture: Tensor, found: Tensor) -> Tensor:
        """``picture`` [B, C, H, W], pulled along displacements on the lattice, [B, 2, h, w]."""
        pulled: Tensor = self.full(picture, resized(found * self.scale, self.lattice.size).unsqueeze(2))
        return pulled.squeeze(2)

    def _taught(self, frame: Tensor, state: State, intervals: Tensor) -> tuple[Tensor, Tensor]:
        """The statistics with what was guessed for this frame's moment, and what came.

        Returns:
            What each horizon has learned itself, zeros where nothing; and the same, but for zeros what the next nearer
            one has learned: [B, horizons, blocks, N + 1, N + 1] each.
        """
        told = torch.stack([state[f"told_{k}.{k - 1}"] for k in self.horizons], dim=1)
        interval = torch.cat([state[f"interval.{k - 1}"] for k in self.horizons], dim=1)  # [B, horizons]
        since = torch.cat([intervals[:, :k].sum(dim=1, keepdim=True) for k in self.horizons], dim=1)
        late = since / interval.clamp(min=SOONEST) - self.steps
        counts = ((interval > 0) & (late.abs() <= PUNCTUAL)).to(frame.dtype)[..., None, None, None]
        miss = self.samples.taken(frame).unsqueeze(1) - told[:, :, 0]
        new = products(torch.cat([told[:, :, 1:], miss.unsqueeze(2)], dim=2), *BLOCKS)
        statistics = state["statistics"]
        known = (statistics.abs().amax(dim=(2, 3, 4), keepdim=True) > 0).to(frame.dtype)
        own, nearest = [updated(statistics[:, :1], new[:, :1], counts[:, :1])], []
        nearest.append(own[0])
        for i in range(1, len(self.horizons)):
            one = slice(i, i + 1)
            before = known[:, one] * statistics[:, one] + (1 - known[:, one]) * nearest[-1]
            learned = torch.maximum(known[:, one], counts[:, one])
            own.append(learned * updated(before, new[:, one], counts[:, one]))
            nearest.append(learned * own[-1] + (1 - learned) * nearest[-1])
        return torch.cat(own, dim=1), torch.cat(nearest, dim=1)

    def _weights(self, statistics: Tensor) -> Tensor:
        """[B, horizons, N, rows, columns]."""
        found = weights(statistics, self.prior, range(len(NAMES)))
        return found.transpose(2, 3).reshape(-1, len(self.horizons), len(NAMES), *BLOCKS)

    def _between(self, weights: Tensor, steps: Tensor) -> Tensor:
        """The weights [B, N, rows, columns] for ``steps`` [B, 1] intervals ahead."""
        mixed = weights[:, 0]
        for index, (below, above) in enumerate(zip(self.horizons, self.horizons[1:], strict=False)):
            share = ((steps - below) / (above - below)).clamp(0, 1).reshape(-1, 1, 1, 1)
            mixed = mixed + share * (weights[:, index + 1] - weights[:, index])
        return mixed * steps.clamp(0, 1).reshape(-1, 1, 1, 1)


def _blended(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """``first`` + ``weight`` · (``second`` − ``first``), within 0 to 1: bytes that overflow are clipped in OpenCV."""
    return (first + weight * (second - first)).clamp(0, 1)
