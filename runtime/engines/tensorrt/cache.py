"""The engine cache: ``<key>.engine`` with its record ``<key>.json``, in a folder that only its user can write.

An engine file is executable code, and TensorRT's own checks accept files that were tampered with. So engines are loaded
only from here, and only if their bytes match the record.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import platformdirs
from msgspec import Meta

from framecast import __version__
from framecast.errors import EngineError, first_line, one_line
from framecast.files import sha256, write
from framecast.parsing import decode
from framecast.runtime.engines.tensorrt.library import Gpu, Library

ENVIRONMENT = "FRAMECAST_CACHE"
FORMAT: Literal[1] = 1  # of the record
# Version of the build. Increase it when a code change alters an engine's inputs, outputs or results.
# 2: added the inputs ``keep`` and ``pick``.
RECIPE = 2
_ELSEWHERE = f"set {ENVIRONMENT} to a folder of your own"
_Whole = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class Key:
    """Everything that decides whether an engine is usable. Engines with different keys are different engines.

    Attributes:
        artifact: SHA-256 of the ONNX file.
        library: as in :data:`framecast.runtime.engines.tensorrt.library.NAMES`.
        version: version of the library, which does not read engines of other versions.
        gpu: the GPU's name; empty for TensorRT for RTX, whose engines run on every GPU of a compute capability.
        capability: compute capability, such as ``8.7``.
        precision: ``fp16`` or ``fp32``.
        batch: the number of cameras.
        camera: (width, height) of the pictures that the engine resizes, or None if they come at the model's size.
        rung: rung on the ladder of plugins; ``plain`` means only standard operators.
        recipe: ``RECIPE`` of the framecast that built it.
    """

    artifact: str
    library: str
    version: str
    gpu: str
    capability: str
    precision: str
    batch: _Whole = 1
    camera: tuple[_Whole, _Whole] | None = None
    rung: str = "plain"
    recipe: int = RECIPE

    @property
    def digest(self) -> str:
        """SHA-256 over all fields: the entry's name."""
        return sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode())

    @property
    def device(self) -> str:
        """The device that the engine was built for, in words."""
        capability = f"compute capability {self.capability}"
        return f"{self.gpu} ({capability})" if self.gpu else capability


@dataclass(frozen=True)
class Record:
    """The record stored beside an engine.

    Attributes:
        key: identifies the engine.
        model: name of its configuration.
        path: path of the artifact at the time of the build.
        sha256: SHA-256 of the engine file.
        size: size of the engine file in bytes.
        seconds: duration of the build.
        built: time of the build, in UTC.
        layers: a summary of the engine's layers; see :mod:`framecast.export.tensorrt`.
        manifest: the artifact's manifest, as JSON.
        framecast: version of the framecast that built it.
    """

    key: Key
    model: str
    path: str
    sha256: str
    size: _Whole
    seconds: Annotated[float, Meta(ge=0)]
    built: str
    layers: dict[str, Any] = field(default_factory=dict)
    manifest: str = ""
    framecast: str = __version__
    format: Literal[1] = FORMAT

    def to_json(self) -> str:
        """One JSON object, indented for human readers."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read what :meth:`to_json` wrote. Raises ValueError with a one-line message for anything else."""
        return decode(text, cls)


def folder() -> Path:
    """The folder of the engine cache. Creates it, for this user alone, if it does not exist.

    Raises:
        EngineError: it is not a folder, belongs to another user, or others can write to it.
    """
    path = Path(os.environ.get(ENVIRONMENT) or platformdirs.user_cache_path("framecast"))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise EngineError(f"cannot use {path} as the engine cache ({error.strerror}): {_ELSEWHERE}") from error
    if found.st_uid != os.getuid():
        raise EngineError(f"{path} belongs to another user, whose engines are not safe to run: {_ELSEWHERE}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(f"others can write to {path}, and an engine is code: chmod 700 {path}, or {_ELSEWHERE}")
    return path


def put(record: Record, engine: bytes) -> Path:
    """Store an engine and return its path. It replaces an engine with the same key.

    Raises:
        EngineError: the folder cannot be used.
        SinkError: the engine cannot be written.
    """
    place = folder()
    path = place / f"{record.key.digest}.engine"
    with _locked(place, fcntl.LOCK_EX):
        _tidy(place)
        _store(path, engine)
        _store(path.with_suffix(".json"), record.to_json().encode())
    return path


def load(key: Key) -> tuple[bytes, Record] | None:
    """Load and verify the engine of a key. Returns it with its record, or None if there is none.

    Raises:
        EngineError: the engine is damaged, others can write to it, or the folder cannot be used.
    """
    place = folder()
    with _locked(place, fcntl.LOCK_SH):
        path = place / f"{key.digest}.engine"
        if not path.exists() or not path.with_suffix(".json").exists():
            return None
        return _verified(path, key)


def find(
    artifact: Path,
    model: str,
    library: Library,
    gpu: Gpu,
    *,
    precision: str | None = None,
    batch: int = 1,
) -> tuple[bytes, Record]:
    """Find, load and verify the engine for an artifact. Returns it with its record. If several fit, the newest wins.

    Args:
        artifact: path of the ONNX file.
        model: as the user named it, for the message.
        library: the TensorRT to run it.
        gpu: the GPU to run it.
        precision: ``fp16`` or ``fp32`` (default: that of the newest engine).
        batch: the number of cameras per step (default: 1, even if the newest engine has another batch size, because
            an engine for a batch of 4 takes 4 frames).

    Raises:
        EngineError: no engine was built, or it was built for another GPU, version, artifact or size, or it is damaged.
            The message gives the reason and the command that builds the engine.
    """
    wanted = Key(
        artifact=sha256(artifact),
        library=library.name,
        version=library.version,
        gpu="" if library.rtx else gpu.name,
        capability=gpu.capability,
        precision=precision or "",
        batch=batch,
    )
    ignore = ("rung", "camera") if precision else ("rung", "camera", "precision")
    fitting = [record for record in records() if not differences(record.key, wanted, ignore)]
    if not fitting:
        raise EngineError(f"{missing(wanted, model, artifact, ignore)}: {cure(model, wanted)}")
    newest = max(fitting, key=lambda record: record.built)
    try:
        found = load(newest.key)
    except EngineError as error:
        raise EngineError(f"{error}: {cure(model, newest.key)}") from error
    if found is None:
        raise EngineError(f"the engine of {model} has just been removed: {cure(model, newest.key)}")
    return found


_WORDS = {
    "artifact": "from another artifact (the file has changed since)",
    "library": "with {0.library}, but this run uses {1.library}",
    "version": "with {0.library} {0.version}, but {1.version} is installed",
    "gpu": "for another GPU ({0.device}, not {1.device})",
    "capability": "for another GPU ({0.device}, not {1.device})",
    "precision": "in {0.precision}, not in {1.precision}",
    "batch": "for a batch of {0.batch}, not of {1.batch}",
    "camera": "for pictures of another size",
    "rung": "with other plugins ({0.rung}, not {1.rung})",
    "recipe": "by another version of framecast",
}


def differences(built: Key, wanted: Key, ignore: tuple[str, ...] = ()) -> list[str]:
    """The differences between two keys, most important first, in words that complete "its engine was built …"."""
    names = [n for n in _WORDS if n not in ignore and getattr(built, n) != getattr(wanted, n)]
    return list(dict.fromkeys(one_line(_WORDS[name].format(built, wanted)) for name in names))


def missing(wanted: Key, model: str, artifact: Path, ignore: tuple[str, ...] = ()) -> str:
    """The reason why there is no such engine: none was built for the artifact, or the built ones differ."""
    known = [r for r in records() if r.key.artifact == wanted.artifact or r.path == str(artifact.resolve())]
    if not known:
        return f"no engine of {model} has been built"
    nearest = min(known, key=lambda record: len(differences(record.key, wanted, ignore))).key
    words = differences(nearest, wanted, ignore)
    if not words:
        return f"the engine of {model} is not in the cache"
    only_batch = not differences(nearest, wanted, (*ignore, "batch"))
    instead = f" (open that one with batch={nearest.batch})" if only_batch else ""
    return f"the engine of {model} was built {words[0]}{instead}"


def cure(model: str, key: Key) -> str:
    """The command that builds the engine."""
    options = [
        f" --precision {key.precision}" if key.precision == "fp32" else "",
        f" --batch {key.batch}" if key.batch != 1 else "",
        f" --camera {key.camera[0]}x{key.camera[1]}" if key.camera else "",
    ]
    return f"framecast build {model}{''.join(options)}"


def records() -> list[Record]:
    """The records of all engines in the cache. Unreadable records are skipped."""
    found = []
    for path in sorted(folder().glob("*.json")):
        with suppress(OSError, ValueError):
            record = Record.from_json(path.read_text())
            if record.key.digest == path.stem:
                found.append(record)
    return found


def timing(library: Library, device: str) -> Path:
    """The file of TensorRT's kernel timings for one library and GPU. They make the next build faster."""
    name = sha256(f"{library.name} {library.version} {device}".encode())
    return folder() / f"{name}.timing"


def put_timing(path: Path, data: bytes) -> None:
    """Store TensorRT's kernel timings.

    Raises:
        SinkError: they cannot be written.
    """
    with _locked(path.parent, fcntl.LOCK_EX):
        _store(path, data)


def get_timing(path: Path) -> bytes:
    """TensorRT's kernel timings so far; empty if there are none, or if others could have written them."""
    try:
        return path.read_bytes() if _private(path) else b""
    except OSError:
        return b""


def _verified(path: Path, key: Key) -> tuple[bytes, Record]:
    """Load an entry's bytes and check them against its record."""
    try:
        record = Record.from_json(path.with_suffix(".json").read_text())
    except (OSError, ValueError) as error:
        raise EngineError(f"the record of {path} cannot be read ({first_line(error)})") from error
    if record.key != key:
        raise EngineError(f"the record of {path} belongs to another engine")
    if not _private(path):
        raise EngineError(f"cannot trust {path}, because another user owns it or can write to it")
    try:
        engine = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror})") from error
    if len(engine) != record.size:
        raise EngineError(f"{path} is damaged: it has {len(engine)} bytes instead of {record.size}")
    if sha256(engine) != record.sha256:
        raise EngineError(f"{path} is damaged: its SHA-256 does not match its record")
    return engine, record


def _private(path: Path) -> bool:
    """Whether only this user can have written a file."""
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _store(path: Path, data: bytes) -> None:
    def private(file: BinaryIO) -> None:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)

    write(path, private, _ELSEWHERE)


def _tidy(place: Path) -> None:
    """Remove half-written files of killed builds that are more than an hour old."""
    for path in place.glob("*.partial"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 3600:
                path.unlink()


@contextmanager
def _locked(place: Path, kind: int) -> Iterator[None]:
    """Lock the folder, so that an engine and its record change together, and only one process writes at a time."""
    handle = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)
