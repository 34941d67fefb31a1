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
from framecast.models.sampling import Pick, Pull, Shrink, mean_around, resized
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
    """Where what will be at a lattice point, some time ahead, is now (``motion/trajectory.py``).

    Displacements and velocities are in lattice points and seconds, [B, 2, h, w]; times [B, 1, 1, 1].
    """

    def __init__(self, lattice: Lattice) -> None:
        super().__init__()
        width, height = lattice.coarse
        self.pull = Pull(torch.arange(width), torch.arange(height), width, height)

    def forward(self, velocity: Tensor, acceleration: Tensor, elapsed: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
        """The displacement ``ahead`` at constant velocity, and what the acceleration adds to it."""
        scaled = velocity * ahead
        found = scaled
        near = ahead <= 1.5 * elapsed  # then two rounds are enough
        for index in range(4):
            closer = self.pull(scaled, found)
            found = closer if index < 2 else torch.where(near, found, closer)
        return found, self.pull(acceleration, found) * (ahead * (ahead + elapsed) / 2)


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
        self.displaced = Pull(on_lattice[0], on_lattice[1], *lattice.coarse)
        self.register_buffer("scale", torch.from_numpy(lattice.scale).reshape(1, 2, 1, 1), persistent=False)

    scale: Tensor

    def forward(self, pictures: tuple[Tensor, Tensor, Tensor], found: Tensor, extra: Tensor) -> Tensor:
        """The guesses, but for the first as differences to it.

        Args:
            pictures: the frame, blurred, and filtered: [B, C, H, W] each.
            found: displacements on the lattice [B, 2, h, w].
            extra: what the acceleration adds to them.

        Returns:
            [B, 1 + N, C, h, w].
        """
        picture, blurred, filtered = pictures
        found, extra = (self.displaced(x, torch.zeros_like(x)) * self.scale for x in (found, extra))
        reference = self.read(picture, found)
        slower = self.read(picture, SLOWER * found)
        guesses = {
            "copy": self.taken(picture) - reference,
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
        self.register_buffer("scale", self.samples.scale, persistent=False)
        self.register_buffer("prior", prior, persistent=False)

    grey: Tensor
    scale: Tensor
    prior: Tensor

    def perceive(self, frame: Tensor, elapsed: Tensor, state: State) -> tuple[State, State]:
        """See :meth:`MomentModel.perceive`."""
        started = state["started"].reshape(-1, 1, 1, 1)
        since = elapsed.reshape(-1, 1).clamp(min=SOONEST)
        flow = started * self.flow(*self._greys(frame), *self._greys(state["newest"]))
        mean = KEPT * state["filtered"] + (1 - KEPT) * state["newest"]
        filtered = started * self.full(mean, self._at_full_size(flow)) + (1 - started) * frame

        known = state["intervals"]
        shifted = torch.cat([since, known[:, :-1]], dim=1)
        intervals = state["started"] * torch.where(known[:, :1] > 0, shifted, since.expand_as(shifted))
        interval = intervals.topk(RECENT // 2 + 1, dim=1).values[:, -1:]  # their median

        velocity = flow / since.reshape(-1, 1, 1, 1)
        before = known[:, :1].reshape(-1, 1, 1, 1)
        change = velocity - self.trajectories.pull(state["velocity"], flow)
        acceleration = torch.where(before > 0, change * (2 / (since.reshape(-1, 1, 1, 1) + before)), 0.0)

        taught, told = self._taught(frame, state, intervals), {}
        pictures = frame, mean_around(frame, BLUR, "reflect"), filtered
        for k in self.horizons:
            ahead = (k * interval).reshape(-1, 1, 1, 1)
            moved = self.trajectories(velocity, acceleration, since.reshape(-1, 1, 1, 1), ahead)
            told[f"told_{k}"] = self.samples(pictures, *moved)
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
            "statistics": torch.stack(taught, dim=1),
            **told,
            "interval": interval,
        }

    def render(self, fields: State, ahead: Tensor) -> Tensor:
        """See :meth:`MomentModel.render`."""
        newest, interval, elapsed = fields["newest"], fields["times"][:, :1], fields["times"][:, 1:]
        steps = ahead.reshape(-1, 1) / interval.clamp(min=SOONEST)
        mixed = resized(self._between(fields["weights"], steps), self.lattice.coarse)  # [B, N, h, w]
        guess = {name: mixed[:, i : i + 1] for i, name in enumerate(NAMES)}
        times = elapsed.reshape(-1, 1, 1, 1), ahead.reshape(-1, 1, 1, 1)
        found, extra = self.trajectories(fields["velocity"], fields["acceleration"], *times)
        found = found * (1 + guess["velocity"].clamp(-FASTEST, FASTEST)) + guess["acceleration"].clamp(-1, 1) * extra
        late = resized(torch.cat([guess[name] for name in ("filtered", "blurred", "copy")], dim=1), self.lattice.size)
        source = _blended(newest, fields["filtered"], late[:, :1])
        source = _blended(source, mean_around(newest, BLUR, "reflect"), late[:, 1:2])
        return _blended(self.full(source, self._at_full_size(found)), newest, late[:, 2:])

    def _greys(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """The brightness of ``frame`` on the lattice, and at the size that corrects the flow."""
        fine = self.to_fine((frame * self.grey).sum(dim=1, keepdim=True))
        return self.to_coarse(fine), fine

    def _at_full_size(self, found: Tensor) -> Tensor:
        """Displacements in pixels of the picture, [B, 2, H, W], from those on the lattice."""
        return resized(found * self.scale, self.lattice.size)

    def _taught(self, frame: Tensor, state: State, intervals: Tensor) -> list[Tensor]:
        """Each horizon's statistics with what was guessed for this frame's moment, and what came."""
        came = self.samples.taken(frame)
        taught: list[Tensor] = []
        for index, k in enumerate(self.horizons):
            told = state[f"told_{k}.{k - 1}"]
            interval = state[f"interval.{k - 1}"]  # [B, 1]
            late = intervals[:, :k].sum(dim=1, keepdim=True) - k * interval
            counts = ((interval > 0) & (late.abs() <= PUNCTUAL * interval)).to(frame.dtype).reshape(-1, 1, 1, 1)
            miss = came - told[:, 0]
            new = products(torch.cat([told[:, 1:], miss.unsqueeze(1)], dim=1), *BLOCKS)
            own = state["statistics"][:, index]
            known = _any(own)
            nearer = torch.where(known, own, taught[-1]) if taught else own
            taught.append(torch.where(known | (counts > 0), updated(nearer, new, counts), 0.0))
        return taught

    def _weights(self, taught: list[Tensor]) -> Tensor:
        """Of each horizon's statistics; where it has none yet, of the next nearer one's: [B, horizons, N, rows, columns]."""
        found, known = [], taught[0]
        for own in taught:
            known = torch.where(_any(own), own, known)
            found.append(weights(known, self.prior, tuple(range(len(NAMES)))))
        return torch.stack(found, dim=1).transpose(2, 3).reshape(-1, len(self.horizons), len(NAMES), *BLOCKS)

    def _between(self, weights: Tensor, steps: Tensor) -> Tensor:
        """The weights [B, N, rows, columns] for ``steps`` [B, 1] intervals ahead."""
        mixed = weights[:, 0]
        for index, (below, above) in enumerate(zip(self.horizons, self.horizons[1:], strict=False)):
            share = ((steps - below) / (above - below)).clamp(0, 1).reshape(-1, 1, 1, 1)
            mixed = mixed + share * (weights[:, index + 1] - weights[:, index])
        return mixed * steps.clamp(0, 1).reshape(-1, 1, 1, 1)


def _any(statistics: Tensor) -> Tensor:
    """Whether anything was learned yet: [B, 1, 1, 1]."""
    return statistics.abs().amax(dim=(1, 2, 3), keepdim=True) > 0


def _blended(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """``first`` + ``weight`` · (``second`` − ``first``), within 0 to 1: bytes that overflow are clipped in OpenCV."""
    return (first + weight * (second - first)).clamp(0, 1)
