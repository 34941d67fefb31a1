"""Motion and mixture at the camera's own size, without training: what the model ``edge`` does, on OpenCV and numpy.

Each frame is *perceived* once, on a small lattice; then a picture of any moment ahead can be *rendered*:

1. ``lattice``: the sizes of the small pictures, and how they are made.
2. ``flow``: where each point was one frame ago: dense inverse search, and one Lucas–Kanade correction.
3. ``trajectory``: where what is seen at a point, some time ahead, is now: constant velocity, and its acceleration.
4. ``guesses``: pictures of a moment ahead that follow from it: one per assumption (it goes on, it stays, …).
5. ``learn``: how to mix the guesses, by recursive least squares over the frames that have come.
6. ``render``: the mixture at full size.

``Motion`` puts the stages together; ``Seen`` is what it knows after a frame.
"""

from framecast.runtime.motion.motion import Motion, Seen

__all__ = ["Motion", "Seen"]
