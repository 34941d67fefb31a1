"""The cache of engines: ``<key>.engine`` with its record ``<key>.json``, in a folder that only its user can write.

An engine file is executable code, and TensorRT's own checks pass files that were tampered with. So engines are loaded
from here only, and only once their bytes are those of the record.
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
from framecast.errors import EngineError, first_line
from framecast.files import sha256, write
from framecast.parsing import decode
from framecast.runtime.engines.tensorrt.library import Gpu, Library

ENVIRONMENT = "FRAMECAST_CACHE"
FORMAT: Literal[1] = 1  # of the record
# Of what a build makes of an artifact. Raise it when other code gives an engine other inputs, outputs or numbers.
# 2: the inputs ``keep`` and ``pick``.
RECIPE = 2
_ELSEWHERE = f"set {ENVIRONMENT} to a folder of your own"
_Whole = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class Key:
    """All that decides whether an engine can be used: if any of it is otherwise, it is another engine.

    Attributes:
        artifact: SHA-256 of the ONNX file.
        library: as in :data:`framecast.runtime.engines.tensorrt.library.NAMES`.
        version: of the library; engines of one version are not read by another.
        gpu: its name; empty for TensorRT for RTX, whose engines are for every GPU of a compute capability.
        capability: compute capability, as ``8.7``.
        precision: ``fp16`` or ``fp32``.
        batch: how many cameras.
        camera: (width, height) of the pictures that it resizes, or None where they come at the model's size.
        rung: of the ladder of plugins: ``plain`` is standard operators only.
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
        """SHA-256 over all of it: the entry's name."""
        return sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode())

    @property
    def device(self) -> str:
        """What it is built for, in words."""
        capability = f"compute capability {self.capability}"
        return f"{self.gpu} ({capability})" if self.gpu else capability


@dataclass(frozen=True)
class Record:
    """What is kept beside an engine.

    Attributes:
        key: what it is.
        model: name of its configuration.
        path: of the artifact, when it was built.
        sha256: of the engine file.
        size: of the engine file, in bytes.
        seconds: that the build took.
        built: when, in UTC.
        layers: what was found in it; see :mod:`framecast.export.tensorrt`.
        manifest: of the artifact, as JSON.
        framecast: version that built it.
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
        """One JSON object, to be read by people too."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read what :meth:`to_json` wrote; raises ValueError, whose message is one line, where it did not."""
        return decode(text, cls)


def folder() -> Path:
    """Where engines are kept: made for this user alone if it is not there.

    Raises:
        EngineError: it is not a folder, belongs to another user, or others may write into it.
    """
    path = Path(os.environ.get(ENVIRONMENT) or platformdirs.user_cache_path("framecast"))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise EngineError(f"no cache of engines at {path} ({error.strerror}): {_ELSEWHERE}") from error
    if found.st_uid != os.getuid():
        raise EngineError(f"{path} belongs to another user, whose engines are not to be run: {_ELSEWHERE}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(f"others may write into {path}, and an engine is code: chmod 700 {path}, or {_ELSEWHERE}")
    return path


def put(record: Record, engine: bytes) -> Path:
    """Keep an engine; one of the same key is replaced. Returns its path.

    Raises:
        EngineError: the folder cannot be used.
        SinkError: it cannot be written.
    """
    place = folder()
    path = place / f"{record.key.digest}.engine"
    with _locked(place, fcntl.LOCK_EX):
        _tidy(place)
        _store(path, engine)
        _store(path.with_suffix(".json"), record.to_json().encode())
    return path


def load(key: Key) -> tuple[bytes, Record] | None:
    """The engine of a key, verified, and its record; None where there is none.

    Raises:
        EngineError: it is damaged, or others may write to it; or the folder cannot be used.
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
    """The engine to run an artifact with, verified, and its record.

    Args:
        artifact: path of the ONNX file.
        model: as the user named it, for the message.
        library: that is to run it.
        gpu: that is to run it.
        precision: ``fp16`` or ``fp32``; by default, as with all that is not said, the one that was built last.
        batch: how many cameras it steps at once. It is never the one that was built last: a batch of 4 takes 4 frames.

    Raises:
        EngineError: nothing was built for this, or for another GPU, version, artifact or size; or it is damaged. The
            message says which, and what to build.
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
    "library": "with {0.library}, and {1.library} is to run it",
    "version": "with {0.library} {0.version}, and {1.version} is here",
    "gpu": "for another GPU ({0.device}, not {1.device})",
    "capability": "for another GPU ({0.device}, not {1.device})",
    "precision": "in {0.precision}, not in {1.precision}",
    "batch": "for a batch of {0.batch}, not of {1.batch}",
    "camera": "for pictures of another size",
    "rung": "with other plugins ({0.rung}, not {1.rung})",
    "recipe": "by another version of framecast",
}


def differences(built: Key, wanted: Key, ignore: tuple[str, ...] = ()) -> list[str]:
    """In what two keys differ, in words that end "its engine was built …", the weightiest first."""
    names = [n for n in _WORDS if n not in ignore and getattr(built, n) != getattr(wanted, n)]
    return list(dict.fromkeys(_WORDS[name].format(built, wanted) for name in names))


def missing(wanted: Key, model: str, artifact: Path, ignore: tuple[str, ...] = ()) -> str:
    """Why there is no such engine: nothing was built for the artifact, or what was built is otherwise."""
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
    """The command that builds it."""
    options = [
        f" --precision {key.precision}" if key.precision == "fp32" else "",
        f" --batch {key.batch}" if key.batch != 1 else "",
        f" --camera {key.camera[0]}x{key.camera[1]}" if key.camera else "",
    ]
    return f"framecast build {model}{''.join(options)}"


def records() -> list[Record]:
    """Of every engine in the cache; what cannot be read as a record is no entry."""
    found = []
    for path in sorted(folder().glob("*.json")):
        with suppress(OSError, ValueError):
            record = Record.from_json(path.read_text())
            if record.key.digest == path.stem:
                found.append(record)
    return found


def timing(library: Library, device: str) -> Path:
    """Where TensorRT's measurements of kernels are kept, which make the next build quicker; of one library and GPU."""
    name = sha256(f"{library.name} {library.version} {device}".encode())
    return folder() / f"{name}.timing"


def put_timing(path: Path, data: bytes) -> None:
    """Keep TensorRT's measurements.

    Raises:
        SinkError: they cannot be written.
    """
    with _locked(path.parent, fcntl.LOCK_EX):
        _store(path, data)


def get_timing(path: Path) -> bytes:
    """TensorRT's measurements so far: none where there are none, or where others may have written them."""
    try:
        return path.read_bytes() if _private(path) else b""
    except OSError:
        return b""


def _verified(path: Path, key: Key) -> tuple[bytes, Record]:
    """An entry's bytes, held to its record."""
    try:
        record = Record.from_json(path.with_suffix(".json").read_text())
    except (OSError, ValueError) as error:
        raise EngineError(f"the record of {path} cannot be read ({first_line(error)})") from error
    if record.key != key:
        raise EngineError(f"the record of {path} is of another engine")
    if not _private(path):
        raise EngineError(f"{path} is another user's, or others may write to it: it is not loaded")
    try:
        engine = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror})") from error
    if len(engine) != record.size:
        raise EngineError(f"{path} is damaged: {len(engine)} bytes, of {record.size}")
    if sha256(engine) != record.sha256:
        raise EngineError(f"{path} is damaged: its SHA-256 is not that of its record")
    return engine, record


def _private(path: Path) -> bool:
    """Whether nobody but this user can have written a file."""
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _store(path: Path, data: bytes) -> None:
    def private(file: BinaryIO) -> None:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)

    write(path, private, _ELSEWHERE)


def _tidy(place: Path) -> None:
    """Remove what a build that was killed left half written, an hour ago or more."""
    for path in place.glob("*.partial"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 3600:
                path.unlink()


@contextmanager
def _locked(place: Path, kind: int) -> Iterator[None]:
    """Hold the folder: an engine and its record change together, and one writer writes at a time."""
    handle = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)
