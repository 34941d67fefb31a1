"""What the browser page's server knows of one camera: its newest result, its figures, and who watches it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from framecast.runtime.sinks import page
from framecast.runtime.sinks.health import Pulse
from framecast.runtime.sinks.page.pictures import Encoder, Newest, tile
from framecast.runtime.sinks.page.scores import Scores
from framecast.runtime.sinks.sink import Result

STATS_INTERVAL = 0.25  # seconds between snapshots of the figures


@dataclass(eq=False)
class Viewer:
    """One open page.

    Attributes:
        show: the pictures that it wants.
        news: the next update for it.
        scores: the number of scores that it has received.
        stats: the last figures that it received.
    """

    show: frozenset[str]
    news: asyncio.Queue[page.Update] = field(default_factory=lambda: asyncio.Queue(maxsize=1))
    scores: int = 0
    stats: Mapping[str, object] | None = None

    def needs(self, newest: Newest | None) -> bool:
        """Whether ``newest`` holds something new for it. A later moment of a frame changes only the "now" picture."""
        return newest is None or not newest.shown.between or "now" in self.show or self.stats is None


class Feed:
    """One camera on the page. Its own thread calls :meth:`show`, and the server's thread everything else.

    Args:
        snapshot: returns the camera's figures.
        check: raises SinkError if the server has failed.
        notify: tells the server's thread that there is something new.

    Attributes:
        pulse: how the camera is.
        scores: of its predictions.
        viewers: the open pages that show it.
    """

    def __init__(
        self,
        snapshot: Callable[[], Mapping[str, object]],
        check: Callable[[], object],
        notify: Callable[[], object],
    ) -> None:
        self._snapshot, self._check, self._notify = snapshot, check, notify
        self.pulse = Pulse()
        self.scores = Scores()
        self.viewers: set[Viewer] = set()
        self._newest: Newest | None = None  # replaced as a whole, so it needs no lock
        self._encoder = Encoder()
        self._sent: Newest | None = None
        self._figures: Mapping[str, object] = {}
        self._figures_time = -math.inf
        self._small: tuple[Newest, bytes] | None = None

    def show(self, result: Result) -> None:
        """Leave the result for the viewers, and return at once.

        Raises:
            SinkError: the server has failed.
        """
        self._check()
        self.pulse.see(result)
        self.scores.add(result)
        self._newest = Newest.after(self._newest, result)
        self._notify()

    def figures(self) -> Mapping[str, object]:
        """The camera's figures, at most ``STATS_INTERVAL`` old."""
        if time.monotonic() - self._figures_time >= STATS_INTERVAL:
            self._figures_time = time.monotonic()
            self._figures = self._snapshot()
        return self._figures

    def tile(self) -> bytes | None:
        """The newest prediction as a small JPEG for the grid; None before the first."""
        newest = self._newest
        if newest is None:
            return None
        if self._small is None or self._small[0] is not newest:
            self._small = newest, tile(newest.shown.prediction.image)
        return self._small[1]

    def news(self) -> None:
        """Give the newest result to the viewers, if it is new."""
        if self._newest is not self._sent or any(viewer.stats is None for viewer in self.viewers):
            self._sent = self._newest
            self._publish([viewer for viewer in self.viewers if viewer.needs(self._newest)])

    def heartbeat(self) -> None:
        """Give figures without pictures to the viewers that have nothing else to read."""
        self._publish([viewer for viewer in self.viewers if viewer.news.empty()], pictures=False)

    def farewell(self) -> None:
        """Give the last picture and the last figures to the viewers."""
        self._figures_time = -math.inf
        self._publish([*self.viewers])

    def release(self) -> None:
        """Let viewers go that still wait for news, after a failure."""
        for viewer in self.viewers:
            if viewer.news.empty():
                viewer.news.put_nowait(page.Update({"age_s": self.pulse.age}))

    def _publish(self, viewers: Iterable[Viewer], *, pictures: bool = True) -> None:
        viewers = [*viewers]
        if not viewers:
            return
        newest, age = self._newest, self.pulse.age
        moment: dict[str, object] = {"age_s": None if age is None else round(age, 1)}
        encoded: dict[str, bytes] = {}
        if newest is not None and pictures:
            moment |= _moment(newest)
            encoded = self._encoder.encode(newest, frozenset().union(*(viewer.show for viewer in viewers)))
        update = page.Update(moment, encoded, self.figures())
        for viewer in viewers:
            if viewer.news.full():
                viewer.news.get_nowait()  # the newest wins
            viewer.news.put_nowait(update)


def _moment(newest: Newest) -> dict[str, object]:
    """What a page needs besides the pictures: data of the newest frame, and the score of the newest scored frame."""
    frame, scored = newest.frame.frame, newest.scored
    ahead = round(1e3 * newest.shown.prediction.ahead, 1)
    score = {"psnr": scored.psnr, "psnr_copy": scored.psnr_copy} if scored else {"psnr": None, "psnr_copy": None}
    shown = newest.shown
    mark = "last" if shown.last else shown.concealed
    return {"index": frame.index, "time": frame.time, "ahead_ms": ahead, "concealed": mark, **score}
