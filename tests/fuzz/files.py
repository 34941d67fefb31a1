"""Other files that framecast reads: engines with their records, digits and sequences, decoded frames, secrets."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import random
import shutil
import zipfile
from pathlib import Path

import msgspec
import numpy as np

from framecast.camera.moving_mnist import read_idx
from framecast.camera.taxibj import open_split
from framecast.cli import secret
from framecast.evaluation.samples import open_sequences
from framecast.files import sha256
from framecast.runtime.engines.tensorrt import cache
from framecast.runtime.engines.tensorrt.cache import Key, Record
from framecast.runtime.engines.tensorrt.library import Gpu, Library

from .kind import Kind, only
from .mutate import as_json, changed, damaged, words

GPU, LIBRARY = Gpu("Orin", "8.7", "12.6"), Library("tensorrt", "10.3.0", None)
ENGINE = bytes(range(256)) * 64


class Engines(Kind):
    """The engine cache with a damaged engine, a wrong record, or both exchanged. No TensorRT reads it here.

    Whatever is changed, an engine is found only with the bytes that were put there.
    """

    inputs = 800

    def __init__(self, folder: Path) -> None:
        self.artifact = folder / "model.onnx"
        self.artifact.write_bytes(b"an artifact")
        self.cache = folder / "cache"
        os.environ["FRAMECAST_CACHE"] = str(self.cache)
        key = Key(sha256(self.artifact), LIBRARY.name, LIBRARY.version, GPU.name, GPU.capability, "fp16")
        for one in (key, dataclasses.replace(key, camera=(640, 480), precision="fp32")):
            record = Record(one, "stip-edge", "model.onnx", sha256(ENGINE), len(ENGINE), 2.5, "2026-01-01", {"a": [1]})
            cache.put(record, ENGINE)
        cache.put_timing(cache.timing(LIBRARY, "a"), b"timings")
        self.whole = {path.name: path.read_bytes() for path in sorted(self.cache.iterdir())}

    def make(self, chance: random.Random, folder: Path) -> None:
        for name, data in self.whole.items():
            (folder / name).write_bytes(data)
        path = folder / chance.choice([*self.whole])
        data = path.read_bytes()
        match chance.randrange(4) if path.suffix == ".json" else 4:
            case 0:
                path.write_bytes(damaged(data, chance))
            case 1:
                path.write_bytes(as_json(json.loads(data), chance))
            case 2:  # well-formed, and under the name of what it says
                record = json.loads(data)
                record["key"] = changed(record["key"], chance)
                path.unlink()
                try:
                    digest = msgspec.convert(record["key"], Key).digest
                except (msgspec.ValidationError, ValueError):
                    digest = path.stem
                if chance.randrange(2):  # the others do not fit
                    for other in [*folder.iterdir()]:
                        other.unlink()
                (folder / f"{digest}.json").write_text(json.dumps(record))
                (folder / f"{digest}.engine").write_bytes(ENGINE)
            case 3:
                path.unlink()
                chance.choice((path.mkdir, lambda: path.symlink_to("none"), lambda: path.symlink_to(path.name)))()
            case _:
                path.write_bytes(damaged(data, chance))
        if chance.randrange(4) == 0:
            (folder / f"{chance.choice(('x', '0' * 64))}.json").write_bytes(damaged(data, chance))

    def attempt(self, folder: Path) -> None:
        shutil.rmtree(self.cache)
        shutil.copytree(folder, self.cache, symlinks=True)
        self.cache.chmod(0o700)
        cache.get_timing(cache.timing(LIBRARY, "a"))
        cache.records()
        engine, _ = cache.find(self.artifact, "stip-edge", LIBRARY, GPU)
        assert engine == ENGINE


class Data(Kind):
    """Digits in IDX files, gzipped or not, sequences in NumPy's files, and TaxiBJ in its archives."""

    inputs = 500

    def __init__(self, folder: Path) -> None:
        rng, file = np.random.default_rng(4), io.BytesIO()
        digits = rng.integers(0, 256, (3, 28, 28), np.uint8).tobytes()
        idx = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (3, 28, 28)) + digits
        np.save(file, rng.integers(0, 256, (4, 2, 8, 8), np.uint8))
        flows, archive = rng.uniform(-1, 1, (3, 2, 2, 4, 4)).astype(np.float32), io.BytesIO()
        np.savez_compressed(archive, X_test=flows, Y_test=flows)
        self.whole = {
            "idx": idx,
            "idx.gz": gzip.compress(idx, mtime=0),
            "a.npy": file.getvalue(),
            "a.npz": archive.getvalue(),
        }
        self.bombs = [gzip.compress(idx + bytes(more), 1, mtime=0) for more in (1 << 20, 1 << 29)]
        self.header = file.getvalue()[10 : -4 * 2 * 8 * 8].decode()

    def make(self, chance: random.Random, folder: Path) -> None:
        name = chance.choice([*self.whole])
        data = damaged(self.whole[name], chance)
        if name == "a.npy" and chance.randrange(3):
            text = words(self.header, chance)
            if chance.randrange(8) == 0:
                text = text.replace("(", "(" * chance.choice((10, 100, 1000, 9000)), 1)
            head = text.encode("latin-1", "replace")[:65535]
            data = self.whole[name][:8] + len(head).to_bytes(2, "little") + head + self.whole[name][-512:]
        elif name == "idx.gz" and chance.randrange(8) == 0:
            data = self.bombs[chance.randrange(2)]
        elif name == "idx.gz" and chance.randrange(2):
            data = gzip.compress(damaged(self.whole["idx"], chance), mtime=0)
        elif name == "a.npz" and chance.randrange(2):
            data = self._archived(chance)
        (folder / name).write_bytes(data)

    def _archived(self, chance: random.Random) -> bytes:
        """TaxiBJ with damaged arrays in a whole archive, whose checksums fit."""
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(self.whole["a.npz"])) as whole, zipfile.ZipFile(out, "w") as archive:
            for name in whole.namelist():
                data = whole.read(name)
                if chance.randrange(2):  # its header ends with a line break
                    end = data.index(b"\n") + 1
                    text = words(data[10:end].decode("latin-1"), chance).encode("latin-1", "replace")[:65535]
                    data = data[:8] + len(text).to_bytes(2, "little") + text + data[end:]
                archive.writestr(zipfile.ZipInfo(name), damaged(data, chance) if chance.randrange(2) else data)
        return out.getvalue()

    def attempt(self, folder: Path) -> None:
        path = only(folder)
        if path.suffix == ".npz":
            assert -1e-6 <= open_split(path, test=True).read().min() <= 1
        elif path.suffix == ".npy":
            assert open_sequences(str(path)).sum() >= 0
        else:
            assert read_idx(path).shape[1:] == (28, 28)


class Secrets(Kind):
    """Files and variables with a camera's address or the page's token."""

    inputs = 500

    def __init__(self, folder: Path) -> None:
        self.whole = ("rtsp://user:password@camera/stream\n", "a-token-of-the-owner-of-it\n")

    def make(self, chance: random.Random, folder: Path) -> None:
        text = chance.choice(self.whole)
        data = damaged(text.encode(), chance) if chance.randrange(2) else words(text, chance).encode("utf-8", "replace")
        path = folder / chance.choice(("address", "token"))
        path.write_bytes(data)
        path.chmod(0o600)  # a line would warn of one that others can read

    def attempt(self, folder: Path) -> None:
        path = only(folder)
        os.environ["CAMERA"] = os.fsdecode(path.read_bytes().replace(b"\0", b""))
        if path.name == "token":
            assert secret.token(path)
        else:
            assert secret.address("env:CAMERA").split()
            assert secret.address(f"@{path}").split()
