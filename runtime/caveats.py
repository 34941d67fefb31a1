"""Warnings about a run's figures. The terminal, the report and the page show the same text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from framecast.runtime.lookahead import Lookahead
from framecast.runtime.sinks.sink import Output
from framecast.runtime.telemetry import Snapshot

ENOUGH = 50  # minimum scored predictions to judge a run by
SHARE = 0.2  # minimum share of predictions that are scored
JUDGED = 100  # minimum frames before any warning,
LATEST = 10.0  # unless this many seconds have passed, or the run has ended
DROPPED = 0.1  # share of dropped frames above which to warn
BELOW = 0.1  # dB below copying above which to warn


def trusted(snapshot: Snapshot) -> bool:
    """Whether enough predictions are scored, in number and as a share of all, to report a gain."""
    return snapshot.score.n >= max(ENOUGH, SHARE * snapshot.frames)


def warnings(snapshot: Snapshot, lookahead: Lookahead) -> list[str]:
    """One line for each problem with a run so far. Most lines also say what to do."""
    came, score = snapshot.frames + snapshot.dropped, snapshot.score
    if not snapshot.frames or (came < JUDGED and snapshot.seconds < LATEST and snapshot.ended is None):
        return []
    found = []
    interval = snapshot.interval or math.inf
    if snapshot.dropped > DROPPED * came:
        found.append(
            f"{snapshot.dropped / came:.0%} of the frames are dropped: a step takes longer than the camera's interval, "
            f"{1e3 * interval:.0f} ms (try a faster engine or model, or fewer or smaller frames)"
        )
    late = 1e-3 * snapshot.latency.percentile(50)
    ahead = snapshot.ahead or 0.0
    if lookahead.now:
        if snapshot.wanted is not None and snapshot.wanted > lookahead.most:
            found.append(
                f"cannot show the present: the picture is {1e3 * snapshot.wanted:.0f} ms late, but the lookahead is "
                f"limited to {1e3 * lookahead.most:.0f} ms (raise --max-ahead, or reduce the camera's delay)"
            )
        elif snapshot.shown is not None and snapshot.shown.spread > interval:
            found.append(
                f"the moment shown is off by up to {1e3 * snapshot.shown.spread:.0f} ms (p95), more than a frame: the "
                "machine is busy, or the step's time varies"
            )
        if snapshot.shown is not None and snapshot.shown.arrivals > interval / 2:
            found.append(
                f"frames arrive up to {1e3 * snapshot.shown.arrivals:.0f} ms early or late (p95): if the camera's own "
                "delay varies as much, the moment shown is off by as much"
            )
    elif late > ahead:
        found.append(
            f"predictions arrive {1e3 * late:.0f} ms after their frame but look only {1e3 * ahead:.0f} ms ahead: they "
            "come too late (look further ahead with --now or --ahead, or use a faster engine)"
        )
    if not trusted(snapshot):
        found.append(
            f"only {score.n} of {snapshot.frames} predictions are scored, too few to judge by (at least {ENOUGH} and "
            f"{SHARE:.0%} of all are needed)"
        )
    elif (score.prediction or 0.0) < (score.copy_last or 0.0) - BELOW:
        below = (score.copy_last or 0.0) - (score.prediction or 0.0)
        found.append(f"predictions are {below:.1f} dB below copying the last picture: this stream is hard to predict")
    return found


def out(camera: str | None, engine: str | None) -> list[str]:
    """One line for what does not answer now: the camera, or a model server."""
    return [*([f"the camera is out: {camera}"] if camera else []), *([engine] if engine else [])]


def faulty(faults: Mapping[str, int]) -> list[str]:
    """One line for each kind of fault of a source (:attr:`framecast.Source.faults`) or of the engine."""
    found = []
    if damaged := faults.get("damaged"):
        found.append(
            f"{damaged} damaged {'picture was' if damaged == 1 else 'pictures were'} left out (make the file again, or "
            "check the camera's cable and network)"
        )
    if mended := faults.get("times_mended"):
        found.append(f"{mended} {'time' if mended == 1 else 'times'} of frames repeated or ran back, and were mended")
    if unanswered := faults.get("unanswered"):
        found.append(
            f"{unanswered} {'frame' if unanswered == 1 else 'frames'} got no answer from the model server: a copy of "
            "the newest frame was shown instead (check the server and the network)"
        )
    return found


def lacking(outputs: Iterable[Output]) -> list[str]:
    """One line for each output that is lost, or was."""
    found = []
    for output in outputs:
        missed = f"{output['missed']} {'picture is' if output['missed'] == 1 else 'pictures are'} missing"
        if output["trouble"] is not None:
            found.append(f"{output['trouble']}: {missed}")
        elif output["lost"]:
            times = "once" if output["lost"] == 1 else f"{output['lost']} times"
            found.append(f"{output['asked']} was lost {times}: {missed}")
    return found
