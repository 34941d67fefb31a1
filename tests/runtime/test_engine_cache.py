"""The cache returns exactly the engine stored for this library, GPU and artifact, or fails with the reason."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from framecast.errors import EngineError, SinkError
from framecast.files import sha256
from framecast.runtime.engines.tensorrt import cache
from framecast.runtime.engines.tensorrt import library as tensorrt
from framecast.runtime.engines.tensorrt.cache import Key, Record
from framecast.runtime.engines.tensorrt.library import Gpu, Library

ORIN = Gpu("Orin", "8.7", "12.6")
LIBRARY = Library("tensorrt", "10.3.0", None)
ENGINE = bytes(range(256)) * 64


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("FRAMECAST_CACHE", str(path))
    return path


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an artifact")
    return path


def put(artifact: Path, engine: bytes = ENGINE, **changes: Any) -> Path:
    key = Key(sha256(artifact), "tensorrt", "10.3.0", "Orin", "8.7", "fp16")
    key = dataclasses.replace(key, **changes)
    digest = sha256(engine)
    built = f"2026-01-01T00:00:{len(cache.records()):02d}"
    return cache.put(Record(key, "stip-edge", str(artifact.resolve()), digest, len(engine), 2.5, built), engine)


def find(artifact: Path, **options: Any) -> tuple[bytes, Record]:
    return cache.find(artifact, "stip-edge", LIBRARY, ORIN, **options)


def test_an_engine_is_stored_unchanged_and_only_for_us(artifact: Path, place: Path) -> None:
    path = put(artifact, camera=(640, 480))
    engine, record = find(artifact)
    assert engine == ENGINE
    assert (record.model, record.size, record.seconds) == ("stip-edge", len(ENGINE), 2.5)
    assert record.key.camera == (640, 480)
    assert path.name == f"{record.key.digest}.engine"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in place.iterdir()} == {0o600}
    words = json.loads(path.with_suffix(".json").read_text())
    assert words["key"]["gpu"] == "Orin"
    assert words["framecast"]


def test_every_field_changes_the_key(artifact: Path) -> None:
    key = Key("a", "tensorrt", "10.3.0", "Orin", "8.7", "fp16")
    others: dict[str, Any] = {"batch": 2, "camera": (640, 480), "recipe": 0}
    digests = {key.digest}
    for field in dataclasses.fields(Key):
        digests.add(dataclasses.replace(key, **{field.name: others.get(field.name, "other")}).digest)
    assert len(digests) == 1 + len(dataclasses.fields(Key))


def test_the_last_built_precision_is_taken_unless_one_is_named(artifact: Path) -> None:
    put(artifact)
    put(artifact, b"full", precision="fp32")
    assert find(artifact)[0] == b"full"
    assert find(artifact, precision="fp16")[0] == ENGINE


def test_an_engine_for_rtx_runs_on_every_gpu_of_its_capability(artifact: Path) -> None:
    put(artifact, library="tensorrt_rtx", version="1.7", gpu="", capability="8.9")
    rtx = Library("tensorrt_rtx", "1.7", None)
    for name in ("RTX 4090", "L4"):
        assert cache.find(artifact, "stip-edge", rtx, Gpu(name, "8.9", "13.0"))[0] == ENGINE
    with pytest.raises(EngineError, match=r"another GPU .*8\.9, not compute capability 12\.0"):
        cache.find(artifact, "stip-edge", rtx, Gpu("RTX 5090", "12.0", "13.0"))


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"version": "10.13.0"}, {}, "built with tensorrt 10.13.0, but 10.3.0 is installed: framecast build stip-edge"),
        ({"gpu": "Thor", "capability": "11.0"}, {}, "another GPU (Thor (compute capability 11.0), not Orin"),
        ({"gpu": "Other", "capability": "8.7"}, {}, "another GPU (Other"),
        ({"library": "tensorrt_rtx"}, {}, "built with tensorrt_rtx, but this run uses tensorrt"),
        ({}, {"batch": 2}, "of 1, not of 2 (open that one with batch=1): framecast build stip-edge --batch 2"),
        ({"batch": 4}, {}, "built for a batch of 4, not of 1 (open that one with batch=4): framecast build stip-edge"),
        ({"batch": 4}, {"precision": "fp32"}, "built in fp16, not in fp32: framecast build stip-edge --precision fp32"),
        ({}, {"precision": "fp32"}, "in fp16, not in fp32: framecast build stip-edge --precision fp32"),
        ({"recipe": 0}, {}, "by another version of framecast"),
    ],
)
def test_another_engine_is_refused_with_the_difference(
    artifact: Path, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    put(artifact, **changes)
    with pytest.raises(EngineError) as caught:
        find(artifact, **options)
    assert message in str(caught.value)


def test_the_engine_of_the_wanted_batch_is_taken(artifact: Path) -> None:
    put(artifact)
    put(artifact, b"four", batch=4)
    assert find(artifact)[0] == ENGINE
    assert find(artifact, batch=4)[0] == b"four"


def test_a_missing_engine_and_a_changed_artifact_have_different_errors(artifact: Path) -> None:
    with pytest.raises(EngineError, match="no engine of stip-edge has been built: framecast build stip-edge"):
        find(artifact)
    put(artifact)
    artifact.write_bytes(b"trained anew")
    with pytest.raises(EngineError, match="from another artifact \\(the file has changed since\\): framecast build"):
        find(artifact)


def test_damage_is_found_before_loading(artifact: Path) -> None:
    path = put(artifact)
    key = find(artifact)[1].key
    for damaged, message in [
        (ENGINE[:-1], "damaged: it has 16383 bytes instead of 16384"),
        (b"", "damaged: it has 0 bytes"),
        (ENGINE[:100] + bytes([ENGINE[100] ^ 1]) + ENGINE[101:], "damaged: its SHA-256"),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(EngineError, match=f"{message}.*: framecast build stip-edge"):
            find(artifact)
        with pytest.raises(EngineError, match=message):
            cache.load(key)
    put(artifact)  # a rebuild replaces it
    assert find(artifact)[0] == ENGINE
    for bits in (0o620, 0o602):
        path.chmod(bits)
        with pytest.raises(EngineError, match="another user owns it or can write to it"):
            find(artifact)


def test_a_damaged_record_or_that_of_another_engine_is_no_entry(artifact: Path) -> None:
    path = put(artifact)
    key, beside = find(artifact)[1].key, path.with_suffix(".json")
    text = beside.read_text()
    damaged = {
        "": "truncated",
        "[]": "array",
        "{}": "missing required field key",
        "[" * 50_000: "expected object, got array",
        text.replace('"format": 1', '"format": 9'): "format: invalid enum value 9",
        text.replace('"batch": 1', '"batch": 0'): r"key.batch: expected int >= 1",
        text.replace('"size": 16384', '"size": "big"'): "size: expected int, got str",
        text.replace('"camera": null', '"camera": [640]'): r"key.camera: expected array of length 2",
        text.replace('"fp16"', '"fp32"'): "belongs to another engine",
    }
    for bad, message in damaged.items():
        assert bad != text
        beside.write_text(bad)
        with pytest.raises(EngineError, match=rf"record of .* (cannot be read \(.*)?({message})") as caught:
            cache.load(key)
        assert "\n" not in str(caught.value)
        with pytest.raises(EngineError, match="no engine of stip-edge has been built"):
            find(artifact)
    beside.write_bytes(b"\xff" + text.encode())
    with pytest.raises(EngineError, match="cannot be read \\('utf-8' codec"):
        cache.load(key)
    beside.write_text(text.replace('"format": 1', '"format": 1, "new": [{}]'))
    assert cache.load(key) is not None
    beside.unlink()
    assert cache.load(key) is None


def test_a_folder_that_others_can_write_to_is_refused(artifact: Path, place: Path) -> None:
    put(artifact)
    for mode in (0o777, 0o770, 0o702):
        place.chmod(mode)
        with pytest.raises(EngineError, match=f"others can write to {place}.*chmod 700"):
            find(artifact)
    place.chmod(0o700)


def test_a_folder_of_another_user_is_refused(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(artifact)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(EngineError, match=r"belongs to another user.*FRAMECAST_CACHE"):
        find(artifact)


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRAMECAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "framecast"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache.folder() == tmp_path / ".cache" / "framecast"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == tmp_path / ".cache" / "framecast"
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path / "file"))
    with pytest.raises(EngineError, match="set FRAMECAST_CACHE to a folder of your own"):
        cache.folder()


WRITER = """
import sys
from pathlib import Path
from framecast.files import sha256
from framecast.runtime.engines.tensorrt import cache
key = cache.Key(sys.argv[1], "tensorrt", "10.3.0", "Orin", "8.7", "fp16")
for turn in range(int(sys.argv[3])):
    engine = bytes([int(sys.argv[2]) + turn]) * 3_000_000
    digest = sha256(engine)
    cache.put(cache.Record(key, "stip-edge", "model.onnx", digest, len(engine), 1.0, "2026"), engine)
    print(turn, flush=True)
"""


def writer(artifact: Path, first: int, turns: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, sha256(artifact), str(first), str(turns)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_concurrent_writers_and_readers_never_see_a_mixture(artifact: Path) -> None:
    put(artifact)
    writers = [writer(artifact, first, 12) for first in (1, 101)]
    seen = set()
    while any(process.poll() is None for process in writers):
        seen.add(find(artifact)[0][:1])  # raises if engine and record do not belong together
    for process in writers:
        assert process.communicate()[0].count("\n") == 12
        assert process.returncode == 0
    assert find(artifact)[0][:1] in (bytes([12]), bytes([112]))
    assert len(seen) > 1


def test_a_writer_killed_at_any_moment_leaves_a_whole_engine_or_an_error(artifact: Path, place: Path) -> None:
    put(artifact)
    for attempt in range(6):
        process = writer(artifact, 1, 100)
        assert process.stdout
        process.stdout.readline()
        time.sleep(0.007 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        try:
            engine, record = find(artifact)
            assert len(engine) == record.size
        except EngineError as error:  # killed between the two files
            assert "damaged" in str(error)  # noqa: PT017
            put(artifact)
    for path in (place / "old.partial", place / "new.partial"):
        path.touch()
    os.utime(place / "old.partial", (0, 0))
    put(artifact)
    assert not (place / "old.partial").exists()
    assert (place / "new.partial").exists()


def test_a_full_disk_keeps_the_old_engine(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(artifact)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SinkError, match=r"No space left on device .*FRAMECAST_CACHE"):
        put(artifact, b"another")
    assert find(artifact)[0] == ENGINE


def test_timings_are_stored_and_those_of_others_are_not_read() -> None:
    path = cache.timing(LIBRARY, "Orin")
    assert cache.get_timing(path) == b""
    cache.put_timing(path, b"measured")
    assert cache.get_timing(path) == b"measured"
    assert path != cache.timing(LIBRARY, "Thor")
    path.chmod(0o666)
    assert cache.get_timing(path) == b""


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_without_tensorrt_both_ways_to_get_it_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "tensorrt", "tensorrt_rtx")
    with pytest.raises(EngineError, match=r"no TensorRT here: tensorrt: .*JetPack.*; tensorrt_rtx: pip install"):
        tensorrt.library()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("__version__ = '8.6.1'\nclass Builder: pass", "tensorrt 8.6.1 is too old: framecast needs 10.0 or newer"),
        ("", "this tensorrt has only the Python bindings, not the libraries: it comes with JetPack"),
        (
            "raise ImportError('libnvinfer.so.10: cannot open')",
            "cannot be loaded (libnvinfer.so.10, cannot open): it comes",
        ),
        ("raise FileNotFoundError('nvinfer')", "tensorrt is installed but cannot be loaded (nvinfer)"),
    ],
)
def test_a_tensorrt_that_cannot_be_used_says_why(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineError) as caught:
        tensorrt.library()
    sys.modules.pop("tensorrt", None)  # monkeypatch would restore it
    assert message in str(caught.value)


class Driver:
    """A fake libcuda with one GPU, and only the functions that framecast calls: no driver is here."""

    def __init__(self, code: int = 0) -> None:
        self.code = code

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.code

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    def cuDriverGetVersion(self, value: Any) -> int:  # noqa: N802
        value._obj.value = 12060
        return 0


def test_the_driver_describes_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert tensorrt.gpu() == Gpu("Orin", "8.7", "12.6")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(100))
    with pytest.raises(EngineError, match=r"finds no GPU .*error 100.*nvidia-smi"):
        tensorrt.gpu()

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(EngineError, match=r"no NVIDIA driver here.*--gpus all"):
        tensorrt.gpu()


def test_a_record_cannot_control_the_terminal(artifact: Path) -> None:
    put(artifact, version="10\x1b[31m\n3")
    with pytest.raises(EngineError, match=r"built with tensorrt 10 \[31m 3, but 10\.3\.0 is installed") as caught:
        find(artifact)
    assert str(caught.value).isprintable()
