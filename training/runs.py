"""The folder of a run: its settings, its log, and its checkpoint. Files are replaced as a whole or not at all."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from framecast.camera import Image
from framecast.errors import ArtifactError, OptionError, SinkError, first_line, one_line
from framecast.files import check_writable, write
from framecast.parsing import convert, decode

SHOWN = 3  # differences to name in an error


class Run:
    """The folder of one training run.

    ``run.json`` has everything needed to repeat the run. ``log.csv`` has its progress, and ``samples/`` has pictures of
    its predictions. The run resumes from ``checkpoint.pt``. Its result is ``weights.safetensors``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = folder / "weights.safetensors"
        self._facts, self._log, self._checkpoint = (folder / n for n in ("run.json", "log.csv", "checkpoint.pt"))

    def check(self, resume: bool) -> None:
        """Check that a run may begin or resume here.

        Raises:
            OptionError: the folder is not empty, is a file, or has no run to resume.
            SinkError: the folder cannot be written.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise OptionError(f"{self.folder} is not a folder: choose another --output")
        if resume and not self._facts.is_file():
            raise OptionError(f"no run to resume in {self.folder}: leave out --resume")
        if not resume and self.folder.exists() and any(self.folder.iterdir()):
            raise OptionError(f"{self.folder} exists already: continue with --resume, or choose another --output")
        new = not self.folder.exists()
        check_writable(self._facts)
        if new:
            self.folder.rmdir()  # the run creates the folder again when it has something to write

    def sessions(self, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the sessions of a run so far; none of a new one. Nothing is written.

        Args:
            facts: everything that determines the result; a resumed run must have the same facts.

        Raises:
            OptionError: the run began with other facts.
            ArtifactError: the recorded facts cannot be read.
        """
        facts = json.loads(json.dumps(facts))
        sessions: list[dict[str, Any]] = []
        if self._facts.is_file():
            try:
                before = decode(self._facts.read_bytes(), dict[str, Any])
                sessions = convert(before.pop("sessions", None), list[dict[str, Any]])
            except (OSError, ValueError) as error:
                reason = first_line(error)
                raise ArtifactError(f"{self._facts} cannot be read ({reason}): train into another --output") from error
            if changes := list(_differences(before, facts)):
                more = f", and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
                raise OptionError(
                    f"{self.folder} has a run with other settings: {'; '.join(changes[:SHOWN])}{more} "
                    "(repeat its settings, or leave out --resume and choose another --output)"
                )
        return sessions

    def begin(self, facts: Mapping[str, Any], session: Mapping[str, Any]) -> None:
        """Record a new run, or a new session of a resumed run. The folder must be locked (:meth:`alone`).

        Args:
            facts: see :meth:`sessions`.
            session: everything that may change on resuming: machine, versions, the command.

        Raises:
            FramecastError: see :meth:`sessions`; or the record cannot be written.
        """
        text = json.dumps({**facts, "sessions": [*self.sessions(facts), session]}, indent=2)
        self._write(self._facts, f"{text}\n".encode())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder against other processes. Nothing in it may be changed without the lock.

        Raises:
            OptionError: another run has locked it.
            SinkError: the folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise SinkError(f"cannot write {self.folder}: {error.strerror} (choose another --output)") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OptionError(
                    f"{self.folder} is in use by another run: wait, or choose another --output"
                ) from error
            yield
        finally:
            os.close(handle)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint.

        Raises:
            SinkError: it cannot be written; the previous checkpoint is unchanged.
        """
        data = io.BytesIO()  # torch would name a full disk by a line of its own code
        torch.save(dict(state), data)
        self._write(self._checkpoint, data.getvalue())

    def load(self) -> dict[str, Any] | None:
        """Load the checkpoint to the CPU; None before the first one.

        Raises:
            ArtifactError: the checkpoint is damaged.
        """
        if not self._checkpoint.is_file():
            return None
        with self.restoring():
            state: dict[str, Any] = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        return state

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Turn whatever a damaged checkpoint raises inside into one line. torch's warnings about it are not shown.

        Raises:
            ArtifactError: the checkpoint is damaged.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as error:  # torch may raise anything for damaged bytes
            raise ArtifactError(f"{self._checkpoint} is damaged: start another run") from error

    def save_weights(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write weights for ``framecast export``.

        Raises:
            SinkError: they cannot be written; the previous weights are unchanged.
        """
        data = to_safetensors({name: value.cpu().contiguous() for name, value in tensors.items()}, dict(metadata))
        self._write(self.weights, data)

    def sample(self, update: int, picture: Image) -> None:
        """Write a picture of the predictions after ``update`` updates.

        Raises:
            SinkError: it cannot be written.
        """
        data = cv2.imencode(".png", picture)[1].tobytes()
        self._write(self.folder / "samples" / f"{update:06d}.png", data)

    def log(self, row: Mapping[str, object]) -> None:
        """Add a row to the log; the first one names the columns.

        Raises:
            SinkError: it cannot be written.
        """
        try:
            with self._log.open("a", newline="") as file:
                writer = csv.DictWriter(file, list(row))
                if not file.tell():
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise SinkError(f"cannot write {self._log}: {error.strerror} (make room, then --resume)") from error

    def cut_log(self, updates: int) -> None:
        """Remove the log's rows of later updates, which will be repeated.

        Raises:
            ArtifactError: the log is damaged.
            SinkError: it cannot be written.
        """
        if not self._log.is_file():
            return
        kept = io.StringIO()
        try:
            with self._log.open(newline="") as file:
                header, *rows = [*csv.reader(file)] or [[]]
            complete = (row for row in rows if len(row) == len(header))  # a killed run may leave half a row
            csv.writer(kept).writerows([header, *(row for row in complete if int(row[0]) <= updates)])
        except (OSError, ValueError, csv.Error, IndexError) as error:
            reason = first_line(error)
            raise ArtifactError(f"{self._log} cannot be read ({reason}): remove it, then --resume") from error
        self._write(self._log, kept.getvalue().encode())

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        write(path, data, "make room, then --resume")


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield the differences between two nested dicts, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{one_line(name)} was {_short(before)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
