"""The model ``edge`` in OpenCV and numpy: it mixes guesses of motion at the camera's own size, without training.

Each frame is *perceived* once, on a small lattice. Then a picture of any moment ahead can be *rendered*:

1. ``lattice``: the sizes of the small pictures, and how they are made.
2. ``flow``: where each point was one frame ago: dense inverse search, and one Lucas–Kanade correction.
3. ``trajectory``: where the content of a future point is now: constant velocity, and acceleration.
4. ``mixed`` for small pictures, ``warped`` for large ones: guesses of a moment ahead, one per assumption (motion
   continues, nothing moves, …), and their mixture at full size.
5. ``learn``: how to mix the guesses, by recursive least squares over the frames so far.

``Motion`` combines the stages. ``Seen`` is its state after a frame.
"""

from framecast.runtime.motion.motion import Motion, Seen

__all__ = ["Motion", "Seen"]
