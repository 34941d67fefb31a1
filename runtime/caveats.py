"""What a reader must know before believing a run's figures. Terminal, report and page say it in the same words."""

from __future__ import annotations

from framecast.runtime.lookahead import Lookahead
from framecast.runtime.telemetry import Snapshot

ENOUGH = 50  # scored predictions: fewer say little
SHARE = 0.2  # of the predictions that should be scored
JUDGED = 100  # frames that came: before so many it is too early to warn,
LATEST = 10.0  # unless so many seconds have passed, or the run has ended
DROPPED = 0.1  # of the frames: more are worth a warning
BELOW = 0.1  # dB below copying: more is worth a warning


def trusted(snapshot: Snapshot) -> bool:
    """Whether enough predictions are scored, in number and as a share of all, to call a gain a gain."""
    return snapshot.score.n >= max(ENOUGH, SHARE * snapshot.frames)


def warnings(snapshot: Snapshot, lookahead: Lookahead) -> list[str]:
    """One line for each thing that is wrong with a run so far, with what to do about it."""
    came, score = snapshot.frames + snapshot.dropped, snapshot.score
    if not snapshot.frames or (came < JUDGED and snapshot.seconds < LATEST and snapshot.ended is None):
        return []
    found = []
    if snapshot.dropped > DROPPED * came:
        found.append(
            f"{snapshot.dropped / came:.0%} of the frames are dropped: a step takes longer than the camera's interval, "
            f"{1e3 * snapshot.interval:.0f} ms (try a faster engine or model, or fewer or smaller frames)"
        )
    late = 1e-3 * snapshot.latency.percentile(50)
    ahead = snapshot.ahead or 0.0
    if lookahead.now:
        if snapshot.wanted is not None and snapshot.wanted > lookahead.most:
            found.append(
                f"what is shown is not now: the picture is {1e3 * snapshot.wanted:.0f} ms late, but the lookahead ends "
                f"at {1e3 * lookahead.most:.0f} ms (allow more with --max-ahead, or make the camera's way shorter)"
            )
        elif snapshot.shown is not None and snapshot.shown.spread > snapshot.interval:
            found.append(
                f"moments shown are off by up to {1e3 * snapshot.shown.spread:.0f} ms (p95), more than a frame: the "
                "machine is busy, or the step's time varies"
            )
        if snapshot.shown is not None and snapshot.shown.arrivals > snapshot.interval / 2:
            found.append(
                f"frames come up to {1e3 * snapshot.shown.arrivals:.0f} ms early or late (p95): if the camera's own "
                "delay wanders like that, what is shown is now only to within as much"
            )
    elif late > ahead:
        found.append(
            f"predictions arrive {1e3 * late:.0f} ms after their frame but look only {1e3 * ahead:.0f} ms ahead: they "
            "come too late (look further ahead, with --now or --ahead, or use a faster engine)"
        )
    if not trusted(snapshot):
        found.append(
            f"only {score.n} of {snapshot.frames} predictions are scored: their mean says little (at least {ENOUGH} "
            f"and {SHARE:.0%} are wanted)"
        )
    elif (score.prediction or 0.0) < (score.copy_last or 0.0) - BELOW:
        below = (score.copy_last or 0.0) - (score.prediction or 0.0)
        found.append(f"predictions are {below:.1f} dB below copying the last picture: this stream is not foreseen well")
    return found
