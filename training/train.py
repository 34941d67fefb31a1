"""``framecast train``: trains weights on videos, digits or traffic. A run can be stopped and resumed at any time."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import cv2
import torch

from framecast.errors import OptionError
from framecast.training import rendered
from framecast.training.batches import Batches, Position
from framecast.training.footage import Digits, check_footage, open_footage
from framecast.training.runs import Run
from framecast.training.sampling import SCORABLE, Validation, Watch, strip, validate
from framecast.training.settings import Settings, enough_memory, network
from framecast.training.trainer import Made, Trainer
from framecast.training.view import View

LOGGED = 50  # maximum number of updates per row of the log
_FADE = 0.95  # decay of the running averages in the progress display
# Shares of a timed run: time spent at the start to measure how long scoring takes, and maximum time reserved for
# scoring at the end.
_PROBED, _KEPT = 0.05, 0.5


@dataclass(frozen=True)
class Progress:
    """The progress of a run.

    Attributes:
        updates: number of updates so far.
        done: share of the run that is done.
        left: minutes left; NaN if not known yet.
        loss: mean loss of the last few updates.
        fps: frames per second over the last few updates.
        skipped: number of updates that were not finite.
        scoring: progress of the scoring, in words; empty during training.
    """

    updates: int
    done: float
    left: float
    loss: float
    fps: float
    skipped: int
    scoring: str = ""


class Training:
    """One training run.

    Args:
        settings: settings of the run.
        say: called with messages for the user, one line each.

    Raises:
        FramecastError: the run cannot begin or resume; nothing has changed.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.settings, self.say = settings, say
        self.run = Run(settings.out)
        self.run.check(settings.resume)
        with enough_memory(settings):
            model, recipe = network(settings)
            self.trainer, self.recipe = Trainer(model, recipe), recipe
        view = View.of(settings.config, model.frame_shape)
        shortest = 2 if recipe.batching == "streams" else recipe.frames
        cache, layout = settings.cache, settings.layout
        frames = recipe.given + recipe.predicted
        for path, scored in ((settings.data, False), *([(settings.val, True)] if settings.val else [])):
            check_footage(path, view, cache, scored=scored, layout=layout, frames=frames)
        say(f"preparing {settings.data} for {settings.config} ({view}), recipe {settings.name}")
        self.footage = open_footage(
            settings.data, view, cache, shortest, say, scored=False, layout=layout, augment=recipe.augment
        )
        self.scored = settings.val and open_footage(
            settings.val, view, cache, SCORABLE, say, scored=True, layout=layout
        )
        self._check_apart()
        saved = self.run.load()
        self.run.sessions(self._facts()[0])  # raises if the run to resume has other settings
        self.minutes = 0.0
        self.cpu_minutes = 0.0  # of all threads: pauses and other programs do not count
        self._position: Position | None = None
        if saved is not None:
            with self.run.restoring():
                self.trainer.load_state_dict(saved["trainer"])
                self.minutes, self.cpu_minutes, self._position = (
                    float(saved["minutes"]),
                    float(saved["cpu_minutes"]),
                    tuple((int(at), int(clip)) for at, clip in saved["position"]),
                )
        self._rows: list[Made] = []
        self._show: Callable[[Progress], None] = lambda at: None
        self._shown = Progress(self.trainer.updates, 0.0, math.nan, 0.0, 0.0, 0)
        self._kept = 0.0  # minutes to keep for the last score

    def _check_apart(self) -> None:
        """Check that no clip is used for both training and scoring, which would make the score meaningless."""
        if not self.scored:
            return
        trained = {*self.footage.parts().values()}
        for name, digest in self.scored.parts().items():
            if digest in trained:
                raise OptionError(f"{name} of --val is also training data: score on other data")

    @property
    def done(self) -> float:
        """Share of the run that is done."""
        if self.settings.minutes is not None:
            return self.minutes / (self.settings.minutes - self._kept)
        return self.trainer.updates / self.recipe.updates

    def go(self, show: Callable[[Progress], None], stopped: Callable[[], bool], *, score: bool = False) -> bool:
        """Train to the end, or until ``stopped`` returns True after an update; return whether the run has ended.

        If ``score`` is true, a stopped run is scored and saved; otherwise it is only saved, which is quicker.

        The minutes of a timed run include the last score. The run first measures how long scoring takes. If scoring all
        frames would take more than half of the minutes, it scores only as many frames as fit into that half.

        Raises:
            FramecastError: the run cannot go on; the last checkpoint is unchanged.
        """
        recipe, carried = self.recipe, self.recipe.batching == "streams"
        batches = self._batches()
        before, since, loss, seconds = self.minutes, time.monotonic(), 0.0, 0.0
        unused = time.process_time() - 60 * self.cpu_minutes
        self._show = show

        def elapsed() -> float:
            return before + (time.monotonic() - since) / 60

        with enough_memory(self.settings):
            self._kept = self._scoring_time()
        self.minutes = elapsed()
        recorded, at_first = before, self.done
        with closing(batches), self.run.alone(), enough_memory(self.settings):
            self.run.check(self.settings.resume)
            self.run.begin(*self._facts())
            self.run.cut_log(self.trainer.updates)
            while self.done < 1:
                begun = time.monotonic()
                batch = next(batches)
                made = self.trainer.update(batch, self.done)
                self._position = batch.after
                self.minutes, self.cpu_minutes = elapsed(), (time.process_time() - unused) / 60
                self._note(made)
                fade = _FADE if loss else 0
                loss = fade * loss + (1 - fade) * made.loss if made.finite else loss
                seconds = fade * seconds + (1 - fade) * (time.monotonic() - begun)
                gained = self.done - at_first
                left = (self.minutes - before) * (1 - self.done) / gained if gained > 0 else math.nan
                fps = recipe.batch * (recipe.frames - carried) / seconds
                done = min(1.0, self.done)
                self._shown = Progress(self.trainer.updates, done, left, loss, fps, self.trainer.skipped)
                show(self._shown)
                if self.done < 1 and stopped():
                    if score:
                        self._record()
                        return False
                    self._save()
                    self._log({})
                    self._save_weights(None)
                    return False
                if self.done < 1 and self.minutes - recorded >= self.settings.every:
                    self._record()
                    recorded = elapsed()
            self._record(60 * self._kept if self._kept else None)
            self.minutes = elapsed()
        return True

    def _batches(self) -> Batches | rendered.Rendered:
        recipe, seed, device = self.recipe, self.settings.seed, self.trainer.device
        carried = recipe.batching == "streams"
        if isinstance(self.footage, Digits) and not carried and device.type in rendered.DEVICES:
            return rendered.Rendered(self.footage, recipe.frames, recipe.batch, seed, device, position=self._position)
        return Batches(self.footage, recipe.frames, recipe.batch, seed, carried=carried, position=self._position)

    def _scoring_time(self) -> float:
        """Return the minutes to keep for the last score of a timed run, from a trial on a few frames."""
        if self.settings.minutes is None or not self.scored:
            return 0.0
        begun, seen = time.monotonic(), (0, 1)

        def watch(done: int, total: int) -> bool:
            nonlocal seen
            seen = done, total
            return time.monotonic() - begun < 60 * _PROBED * wanted

        wanted = self.settings.minutes
        self._validate(watch)
        done, total = seen
        return min((time.monotonic() - begun) / 60 * total / max(1, done), _KEPT * wanted)

    def _validate(self, watch: Watch) -> Validation | None:
        if not self.scored:
            return None
        recipe = self.recipe
        return validate(self.trainer.average, self.scored, recipe.given, recipe.predicted, watch)

    def _note(self, made: Made) -> None:
        """Keep an update's figures for the log. If the update was skipped, say so instead."""
        if not made.finite:
            what = "loss or gradient is not finite: skipped the batch and reset the streams"
            self.say(f"update {self.trainer.updates}: {what}")
            return
        self._rows.append(made)
        if len(self._rows) == LOGGED:
            self._log({})

    def _log(self, scores: Mapping[str, float]) -> None:
        if rows := self._rows:
            means = {
                "loss": sum(row.loss for row in rows) / len(rows),
                **{name: sum(row.parts[name] for row in rows) / len(rows) for name in rows[0].parts},
                "gradient_norm": sum(row.norm for row in rows) / len(rows),
            }
            self.run.log(
                {
                    "update": self.trainer.updates,
                    "minutes": f"{self.minutes:.3f}",
                    "cpu_minutes": f"{self.cpu_minutes:.3f}",
                    "lr": f"{rows[-1].lr:.4g}",
                    **{name: f"{value:.6g}" for name, value in means.items()},
                    "skipped": self.trainer.skipped,
                    **{name: scores.get(name, "") for name in ("val_psnr", "val_psnr_copy", "val_mse")},
                }
            )
        self._rows = []

    def _save(self) -> None:
        times = {"minutes": self.minutes, "cpu_minutes": self.cpu_minutes}
        position = [list(place) for place in self._position or ()]
        self.run.save({"trainer": self.trainer.state_dict(), **times, "position": position})

    def _record(self, most: float | None = None) -> None:
        """Write checkpoint, score, weights, pictures and log, so that a crash loses only what comes after.

        Scoring takes up to ``most`` seconds, if given.
        """
        self._save()
        begun, whole = time.monotonic(), True

        def watch(done: int, total: int) -> bool:
            nonlocal whole
            self._show(dataclasses.replace(self._shown, scoring=f"{done} of {total}"))
            whole = most is None or time.monotonic() - begun < most or done == total
            return whole

        recipe = self.recipe
        found = self._validate(watch)
        scores: dict[str, float] = {}
        if found is None and self.scored:
            self.say(f"update {self.trainer.updates}: not scored, because each frame of --val repeats the previous one")
        if found is not None:
            scores = {"val_psnr": found.quality.prediction, "val_psnr_copy": found.quality.copy_last}
            if found.mse is not None:
                scores["val_mse"] = round(found.mse, 3)
            copied = f"copying {found.quality.copy_last:.2f} dB"
            if not whole:
                copied += f"; {found.quality.data}, because --minutes leaves no time for more"
            self.say(f"update {self.trainer.updates}: {found.quality.prediction:.2f} dB, {copied}")
        self._save_weights(json.dumps(dataclasses.asdict(found.quality)) if found else None)
        picture = strip(self.trainer.average, self.scored or self.footage, recipe.given, recipe.predicted)
        self.run.sample(self.trainer.updates, picture)
        self._log(scores)

    def _save_weights(self, quality: str | None) -> None:
        settings, recipe = self.settings, self.recipe
        size = f"{recipe.batch}x{recipe.unroll if recipe.batching == 'streams' else recipe.frames}"
        made = f"{self.footage.name}: {self.footage.kind}, {self.trainer.updates} updates of {size} frames"
        metadata = {
            "config": settings.config,
            "options": json.dumps(dict(settings.options)),
            "weights": made + (f", from {settings.start.name} ({settings.start.made})" if settings.start else ""),
            "licence": settings.licence,
            "recipe": settings.name,
            **({"quality": quality} if quality else {}),
        }
        self.run.save_weights(self.trainer.average.state_dict(), metadata)

    def _facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the facts that determine the result, and those that may change on resuming."""
        settings, footage = self.settings, self.footage
        facts = {
            "config": settings.config,
            "options": dict(settings.options),
            "recipe": {"name": settings.name, **dataclasses.asdict(self.recipe)},
            "minutes": settings.minutes,
            "seed": settings.seed,
            "weights": {"file": settings.start.name, "sha256": settings.start.sha256} if settings.start else None,
            "data": {"name": footage.name, "kind": footage.kind, "files": footage.files, "layout": settings.layout},
        }
        session = {
            "command": settings.command,
            "skipped": dict(footage.skipped),
            "scored_on": {"name": self.scored.name, "files": self.scored.files} if self.scored else None,
            "device": str(self.trainer.device),
            "threads": torch.get_num_threads(),
            "machine": platform.platform(),
            "versions": {
                "framecast": version("framecast"),
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "numpy", "safetensors")},
                "opencv": cv2.__version__,  # from opencv-python or its headless build
            },
        }
        return facts, session
