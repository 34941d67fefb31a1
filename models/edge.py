"""``edge`` as graphs for GPUs: motion, and a mixture of guesses, without training. Not a published network.

There are two functions. ``perceive`` takes a frame; it returns the motion, and the weights with which to mix guesses of
the future. ``render`` makes the picture of any moment after that frame. Stage by stage, they compute the same as the
OpenCV form, :mod:`framecast.runtime.motion`, with its constants. That package explains each stage. The differences:

- Flow: graphs have no operator for dense inverse search, so ``LatticeFlow`` is a pyramid of Lucas–Kanade steps.
- Mixture: every picture size uses the mixture for large pictures (``motion/warped.py``).
- Horizons: only a fixed set of horizons has its own statistics; between two of them, the weights are interpolated. The
  OpenCV form learns the horizons that are requested, and interpolates their statistics.
- Updates: each frame updates all horizons. In the OpenCV form, each frame updates half of the requested ones.
- Guesses: they are made when the source frame arrives, for whole numbers of intervals ahead, and stored only at the
  sample points. If no frame arrives at the guessed time, the guesses do not update the statistics. The OpenCV form
  keeps old frames instead, and guesses for exactly the time that has passed.
- Blur far ahead: its radius is limited to the lattice's length along an axis minus one. It reaches this limit only many
  seconds ahead.
- Guesses far ahead read the blurred picture on the lattice, not an enlarged copy. Only the rounding differs.

Everything is float32, with pictures from 0 to 1. A state of zeros is a fresh state. Nothing is ever NaN if frames and
times are finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from framecast.errors import OptionError
from framecast.models.blocks import check_sizes
from framecast.models.lattice_flow import LatticeFlow
from framecast.models.mixing import products, updated, weights
from framecast.models.sampling import Box, Pick, Pull, Shrink, mean_around, resized
from framecast.models.step import History, MomentModel, State
from framecast.runtime.motion.lattice import Lattice
from framecast.runtime.motion.motion import RECENT, SHORTEST
from framecast.runtime.motion.trajectory import CALM, CALMEST, CONVERGED, FAR, FRESH, HALF, LONG
from framecast.runtime.motion.warped import APART, BLOCKS, BLUR, DERIVED, LIMITS, SPREAD, TRUST, Warped

FURTHEST = 8  # intervals; below RECENT, the number of intervals that the state keeps
LEAST = 48  # minimum width and height of a picture, in pixels
GREY = (0.114, 0.587, 0.299)  # weights of B, G and R, as in OpenCV (ITU-R BT.601)
PUNCTUAL = 0.25  # intervals: a frame further than this from the guessed time does not update the statistics
NAMES = Warped.names
WAYS = NAMES[-len(LIMITS) :]  # guesses whose displacement differs from constant velocity


@dataclass(frozen=True)
class EdgeConfig:
    """Sizes of the graphs.

    Attributes:
        height: height of the pictures.
        width: width of the pictures.
        channels: 3: blue, green, red.
        reach: longest horizon with its own statistics, in intervals; all lower powers of two have their own too.

    Raises:
        OptionError: no graphs can be built with these sizes.
    """

    height: int
    width: int
    channels: int = 3
    reach: int = 8

    def __post_init__(self) -> None:
        check_sizes(self, {"height": LEAST, "width": LEAST})
        if self.channels != 3:
            raise OptionError(f"edge takes pictures with 3 channels, not {self.channels}")
        if not (1 <= self.reach <= FURTHEST and self.reach & (self.reach - 1) == 0):
            raise OptionError(f"reach must be a power of two up to {FURTHEST}, not {self.reach}")

    @property
    def horizons(self) -> tuple[int, ...]:
        """Horizons with their own statistics: 1, 2, 4, … intervals."""
        return tuple(1 << i for i in range(self.reach.bit_length()))


class Trajectories(nn.Module):
    """Finds the current position of the content of each future point (``Warped._paths``, ``motion/trajectory.py``).

    Args:
        lattice: lattice of the velocities.
        x: columns of the grid of points, [w], in lattice coordinates.
        y: rows of the grid, [h].
    """

    def __init__(self, lattice: Lattice, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.pull = Pull(x, y, *lattice.coarse)
        self.calm = Box(*lattice.coarse)
        self.limit = float(max(lattice.coarse))
        self.register_buffer("still", torch.zeros(1, 2, 1, len(y), len(x)), persistent=False)

    still: Tensor

    def forward(self, fields: State, elapsed: Tensor, ahead: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the displacement at constant velocity, and the other displacements' differences from it.

        Args:
            fields: ``velocity``, ``acceleration`` and ``steady``, [B, 2, H, W] each, in lattice points and seconds.
            elapsed: seconds over which the velocity was averaged, [B, 1].
            ahead: seconds ahead, [B, n].

        Returns:
            [B, 2, n, h, w] each, in lattice points. There is one difference per entry of ``LIMITS``.
        """
        motion = torch.cat([fields[name] for name in ("velocity", "acceleration", "steady")], dim=1)
        radius = (CALM * self.limit * (ahead / elapsed.clamp(min=SHORTEST) - 1)).round().clamp(0, CALMEST)
        calmed = self.calm(motion, radius).flatten(0, 1)  # [B · n, 6, H, W]
        velocity, acceleration, steady = calmed.chunk(3, dim=1)
        since, times = (x.reshape(-1, 1, 1, 1, 1) for x in (elapsed.expand_as(ahead), ahead))
        distant = far(since, times)
        found = self.pull(velocity, self.still * times) * times
        for index in range(FAR):
            closer = self.pull(velocity, found) * times
            near = closer if index < CONVERGED else found  # fewer iterations if not far
            found = torch.where(distant, HALF * closer + (1 - HALF) * found, near)
        found = torch.where(distant, found.clamp(-self.limit, self.limit), found)
        gained = self.pull(acceleration, found) * (times * (times + since) / 2)
        steadied = self.pull(steady, found) * times - found
        count = ahead.shape[1]
        found, gained, steadied = (together(x, count) for x in (found, gained, steadied))
        return found, [DERIVED * found, gained, steadied]


class Samples(nn.Module):
    """Guesses at sample points of the full-size picture, about every second lattice point (``Warped.told``).

    Attributes:
        size: number of columns and rows of sample points.
        taken: reads a frame at the sample points.
    """

    scale: Tensor

    def __init__(self, lattice: Lattice) -> None:
        super().__init__()
        x, y = (
            ((torch.arange(APART // 2, count, APART) + 0.5) * length / count).floor()
            for count, length in zip(lattice.coarse, lattice.size, strict=True)
        )
        on_lattice = [(at + 0.5) / float(s) - 0.5 for at, s in zip((x, y), lattice.scale, strict=True)]
        self.size = (len(x), len(y))
        self.taken = Pick(x, y)
        self.trajectories = Trajectories(lattice, *on_lattice)
        self.read = Pull(x, y, *lattice.size)
        self.spread = Box(*lattice.coarse, mirrored=True)
        self.register_buffer("scale", torch.tensor(lattice.scale.tolist()).reshape(1, 2, 1, 1, 1), persistent=False)

    def forward(self, frame: Tensor, small: Tensor, fields: State, elapsed: Tensor, ahead: Tensor) -> Tensor:
        """Return the first guess, and the differences of all others from it.

        Args:
            frame: [B, C, H, W].
            small: the frame on the lattice, [B, C, …].
            fields: fields of motion, as for :class:`Trajectories`.
            elapsed: [B, 1], as for :class:`Trajectories`.
            ahead: [B, n], as for :class:`Trajectories`.

        Returns:
            [B, 1 + N, C, n, h, w].
        """
        found, ways = self.trajectories(fields, elapsed, ahead)
        # Read the blurred picture on the lattice, without enlarging it for each horizon.
        soft = self.spread(small, spread(ahead)).flatten(0, 1)
        soft = together(self.trajectories.pull(soft, found.transpose(1, 2).flatten(0, 1).unsqueeze(2)), ahead.shape[1])
        distant = far(elapsed, ahead)[:, None, :, None, None]
        found, *ways = (x * self.scale for x in (found, *ways))
        reference = self.read(frame, found)
        soft = torch.where(distant, soft, self.read(blurred(frame), found))
        others = [self.taken(frame).unsqueeze(2), soft]
        others += [self.read(frame, found + way) for way in ways]
        return torch.stack([reference, *(guess - reference for guess in others)], dim=1)


class Edge(MomentModel):
    """The two graphs for one picture size.

    State, for pictures [C, H, W], a lattice [h, w] and N guesses besides the first:

    - ``newest`` [C, H, W]: the last frame; ``started`` [1]: 0 before the first frame, then 1;
    - ``velocity`` [2, h, w]: lattice points per second, pointing to where the content of each point came from;
      ``steady`` [2, h, w]: running mean of the velocity of the content at each point;
    - ``intervals`` [RECENT]: seconds between the last frames, newest first; zeros before the second frame;
    - ``statistics`` [horizons, blocks, N + 1, N + 1]: products of guesses and ground truth; older ones count less;
    - histories: ``told_K`` [1 + N, C, h', w']: guesses for K intervals ahead, at the sample points; ``interval`` [1]:
      length of an interval when they were made, in seconds.
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
        self.samples = Samples(lattice)
        self.state_shapes = {
            "newest": self.frame_shape,
            "started": (1,),
            "velocity": points,
            "steady": points,
            "intervals": (RECENT,),
            "statistics": (len(self.horizons), BLOCKS[0] * BLOCKS[1], count + 1, count + 1),
        }
        told = (1 + count, config.channels, *reversed(self.samples.size))
        self.histories = {f"told_{k}": History(k, told) for k in self.horizons}
        self.histories["interval"] = History(self.horizons[-1], (1,))
        self.fields = {
            "newest": self.frame_shape,
            "velocity": points,
            "steady": points,
            "acceleration": points,
            "small": (config.channels, height, width),
            "times": (2,),
            "weights": (len(self.horizons), count, *BLOCKS),
        }
        self.to_fine = Shrink(lattice.size, lattice.fine)
        self.to_coarse = Shrink(lattice.fine, lattice.coarse)
        self.flow = LatticeFlow(lattice)
        self.trajectories = Trajectories(lattice, torch.arange(width), torch.arange(height))
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
        since = elapsed.reshape(-1, 1).clamp(min=SHORTEST)
        small, *greys = self._shrunk(frame)
        flow = self.flow(*greys, *self._shrunk(state["newest"])[1:])
        flow = state["started"].reshape(-1, 1, 1, 1) * flow
        known = state["intervals"]
        shifted = torch.cat([since, known[:, :-1]], dim=1)
        intervals = state["started"] * torch.where(known[:, :1] > 0, shifted, since.expand_as(shifted))
        interval = intervals.topk(RECENT // 2 + 1, dim=1).values[:, -1:]  # their median
        motion = self._motion(flow, since[..., None, None], known[:, :1, None, None], state)
        statistics, nearest = self._taught(frame, state, intervals)
        ahead = torch.cat([k * interval for k in self.horizons], dim=1)
        told = self.samples(frame, small, motion, since, ahead)
        fields = {
            "acceleration": motion["acceleration"],
            "small": small,
            "times": torch.cat([interval, intervals[:, :1]], dim=1),
            "weights": self._weights(nearest),
        }
        return fields, {
            "newest": frame,
            "started": torch.ones_like(state["started"]),
            "velocity": motion["velocity"],
            "steady": motion["steady"],
            "intervals": intervals,
            "statistics": statistics,
            **{f"told_{k}": told[:, :, :, i] for i, k in enumerate(self.horizons)},
            "interval": interval,
        }

    def render(self, fields: State, ahead: Tensor) -> Tensor:
        """See :meth:`MomentModel.render`."""
        newest, interval, elapsed = fields["newest"], fields["times"][:, :1], fields["times"][:, 1:]
        ahead = ahead.reshape(-1, 1)
        steps = ahead / interval.clamp(min=SHORTEST)
        shares = resized(self._between(fields["weights"], steps), self.lattice.coarse)  # [B, N, h, w]
        found, ways = self.trajectories(fields, elapsed, ahead)
        found = found.squeeze(2)
        for way, name, limit in zip(ways, WAYS, LIMITS, strict=True):
            found = found + way.squeeze(2) * _of(shares, name).clamp(-limit, limit)
        late = resized(torch.cat([_of(shares, "blurred"), _of(shares, "copy")], dim=1), self.lattice.size)
        soft = resized(self.samples.spread(fields["small"], spread(ahead)).squeeze(1), self.lattice.size)
        soft = torch.where(far(elapsed, ahead)[..., None, None], soft, blurred(newest))
        source = _blended(newest, soft, late[:, :1])
        moved = self.full(source, resized(found * self.scale, self.lattice.size).unsqueeze(2)).squeeze(2)
        return _blended(moved, newest, late[:, 1:])

    def _motion(self, flow: Tensor, since: Tensor, before: Tensor, state: State) -> State:
        """Return the motion at a frame (``trajectory.field``), from the flow to the frame ``since`` seconds earlier.

        ``before`` is the time in seconds over which the velocity in ``state`` was averaged; 0 if there is none yet.
        Both are [B, 1, 1, 1].
        """
        velocity = flow / since
        shift = flow.unsqueeze(2)
        change = velocity - self.trajectories.pull(state["velocity"], shift).squeeze(2)
        steady = FRESH * velocity + (1 - FRESH) * self.trajectories.pull(state["steady"], shift).squeeze(2)
        return {
            "velocity": velocity,
            "acceleration": torch.where(before > 0, change * (2 / (since + before)), 0.0),
            "steady": torch.where(before > 0, steady, velocity),
        }

    def _shrunk(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``frame`` on the lattice, its brightness there, and its brightness at the lattice's finer size."""
        fine = self.to_fine(frame)
        coarse = self.to_coarse(fine)
        coarse_grey, fine_grey = ((x * self.grey).sum(dim=1, keepdim=True) for x in (coarse, fine))
        return coarse, coarse_grey, fine_grey

    def _taught(self, frame: Tensor, state: State, intervals: Tensor) -> tuple[Tensor, Tensor]:
        """Update the statistics with this frame and the guesses that were made for its time.

        Returns:
            Two tensors [B, horizons, blocks, N + 1, N + 1]. The first has each horizon's statistics, or zeros before
            its first update. In the second, the next shorter horizon's statistics replace such zeros.
        """
        told = torch.stack([state[f"told_{k}.{k - 1}"] for k in self.horizons], dim=1)
        interval = torch.cat([state[f"interval.{k - 1}"] for k in self.horizons], dim=1)  # [B, horizons]
        since = torch.cat([intervals[:, :k].sum(dim=1, keepdim=True) for k in self.horizons], dim=1)
        late = since / interval.clamp(min=SHORTEST) - self.steps
        counts = ((interval > 0) & (late.abs() <= PUNCTUAL)).to(frame.dtype)[..., None, None, None]
        miss = self.samples.taken(frame).unsqueeze(1) - told[:, :, 0]
        new = products(torch.cat([told[:, :, 1:], miss.unsqueeze(2)], dim=2), *BLOCKS)
        statistics = state["statistics"]
        known = (statistics.abs().amax(dim=(2, 3, 4), keepdim=True) > 0).to(frame.dtype)
        own, before, nearest = [], torch.zeros_like(statistics[:, :1]), torch.zeros_like(statistics[:, :1])
        every = []
        for i in range(len(self.horizons)):
            one = slice(i, i + 1)
            before = known[:, one] * statistics[:, one] + (1 - known[:, one]) * before
            learned = torch.maximum(known[:, one], counts[:, one])
            own.append(learned * updated(before, new[:, one], counts[:, one]))
            nearest = own[-1] + (1 - learned) * nearest
            every.append(nearest)
        return torch.cat(own, dim=1), torch.cat(every, dim=1)

    def _weights(self, statistics: Tensor) -> Tensor:
        """Return the weights of the guesses, [B, horizons, N, rows, columns]."""
        found = weights(statistics, self.prior, range(len(NAMES)))
        return found.transpose(2, 3).reshape(-1, len(self.horizons), len(NAMES), *BLOCKS)

    def _between(self, weights: Tensor, steps: Tensor) -> Tensor:
        """Interpolate the weights for ``steps`` [B, 1] intervals ahead, [B, N, rows, columns]."""
        mixed = weights[:, 0]
        for index, (below, above) in enumerate(zip(self.horizons, self.horizons[1:], strict=False)):
            share = ((steps - below) / (above - below)).clamp(0, 1).reshape(-1, 1, 1, 1)
            mixed = mixed + share * (weights[:, index + 1] - weights[:, index])
        return mixed * steps.clamp(0, 1).reshape(-1, 1, 1, 1)


def far(elapsed: Tensor, ahead: Tensor) -> Tensor:
    """Return whether ``ahead`` seconds are far for motion measured over ``elapsed`` seconds (``trajectory.far``)."""
    return ahead > LONG * elapsed


def spread(ahead: Tensor) -> Tensor:
    """Return the radius of the blur for far moments, in lattice points, ``ahead`` seconds ahead."""
    return (SPREAD * ahead).round()


def together(x: Tensor, count: int) -> Tensor:
    """Reshape [B · ``count``, C, 1, h, w] to [B, C, ``count``, h, w]."""
    return x.reshape(-1, count, x.shape[1], *x.shape[3:]).transpose(1, 2)


def blurred(picture: Tensor) -> Tensor:
    """Blur ``picture`` [B, C, H, W] with the radius for near moments."""
    return mean_around(picture, BLUR, "reflect")


def _of(shares: Tensor, name: str) -> Tensor:
    """Return the weights of one guess, [B, 1, h, w], from those of all, [B, N, h, w]."""
    index = NAMES.index(name)
    return shares[:, index : index + 1]


def _blended(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Return first + weight · (second − first), clamped to 0 to 1, as OpenCV clips bytes that overflow."""
    return (first + weight * (second - first)).clamp(0, 1)
