"""What training and import leave on disk: files of weights, released checkpoints, and the folder of a run."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from framecast.export.load_network import load_trained
from framecast.models.checkpoints import read_checkpoint
from framecast.models.configs import build
from framecast.models.stau import STAUConfig
from framecast.training.recipes import Recipe
from framecast.training.runs import Run
from framecast.training.trainer import Trainer

from ..models.test_stau import released_shapes
from .kind import Kind, only
from .mutate import as_json, changed, damaged, words

CONFIG = "stau-mnist"
SMALL = {"hidden": 2, "height": 16, "width": 16, "layers": 1, "stages": 1}
OPTIONS = (
    *("layers", "hidden", "height", "width", "channels", "patch", "kernel", "stages", "tau", "theta", "residual"),
    *("recall", "scaled", "frames", "outputs", "eifag", "nothing"),
)


def saved_by_torch(state: Any) -> bytes:
    """The bytes of a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


class Weights(Kind):
    """A file of weights: its bytes, its table of tensors, and its metadata."""

    inputs = 600

    def __init__(self, folder: Path) -> None:
        model = build(CONFIG, SMALL)
        quality = {"data": "clips", "prediction": 31.5, "copy_last": 30, "clips": {"a": [31.5, 30.25]}}
        texts = {"config": CONFIG, "options": json.dumps(SMALL), "quality": json.dumps(quality), "interval": "0.04"}
        texts |= {"weights": "clips", "licence": "Apache-2.0"}
        self.whole = save({name: value.contiguous() for name, value in model.state_dict().items()}, texts)
        (size,) = struct.unpack_from("<Q", self.whole)
        self.header, self.data = json.loads(self.whole[8 : 8 + size]), self.whole[8 + size :]

    def make(self, chance: random.Random, folder: Path) -> None:
        (folder / "a.safetensors").write_bytes(self._content(chance))

    def _content(self, chance: random.Random) -> bytes:
        header: dict[str, Any] = {**self.header, "__metadata__": dict(self.header["__metadata__"])}
        texts = header["__metadata__"]
        match chance.randrange(6):
            case 0:
                return damaged(self.whole, chance)
            case 1:
                text = as_json(self.header, chance)
                return struct.pack("<Q", len(text)) + text + self.data
            case 2:
                name = chance.choice(("options", "quality"))
                texts[name] = as_json(json.loads(texts[name]), chance).decode("utf-8", "replace")
            case 3:
                options = {**SMALL, chance.choice(OPTIONS): 1}
                texts["options"] = json.dumps(changed(options, chance))
            case 4:
                name = chance.choice([*texts])
                texts[name] = words(texts[name], chance).encode("utf-8", "replace").decode()
            case _:
                header = changed(header, chance)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + self.data

    def attempt(self, folder: Path) -> None:
        load_trained(None, only(folder))


class Checkpoints(Kind):
    """A released checkpoint of plain tensors: damaged, of other shapes, or with code in it."""

    inputs = 500

    def __init__(self, folder: Path) -> None:
        self.model = build(CONFIG, SMALL)
        rng = torch.Generator().manual_seed(0)
        shapes = released_shapes(STAUConfig(16, 16, 1, hidden=2, layers=1, stages=1))
        self.state = {name: torch.rand(shape, generator=rng) for name, shape in shapes.items()}
        self.whole = saved_by_torch(self.state)

    def make(self, chance: random.Random, folder: Path) -> None:
        content = damaged(self.whole, chance)
        if chance.randrange(2):
            state: dict[Any, Any] = dict(self.state)
            name = chance.choice([*state])
            shape = [chance.choice((0, 1, 2, 3)) for _ in range(chance.randrange(6))]
            odd: tuple[object, ...] = (
                *(torch.zeros(shape), torch.zeros(shape, dtype=torch.int64), torch.full(shape, torch.nan), None, 3, {}),
                *(torch.zeros(1).expand(10**9), torch.zeros(shape, dtype=torch.complex64), torch.zeros(3).to_sparse()),
                *(torch.empty(shape, device="meta"), torch.zeros(shape, dtype=torch.bfloat16), torch.nn.Parameter()),
            )
            match chance.randrange(3):
                case 0:
                    state[chance.choice((name, 3, "", "x\ny", None))] = chance.choice(odd)
                case 1:
                    state[name] = chance.choice(odd)
                case _:
                    del state[name]
            holder = chance.choice((None, "state_dict", "net_param"))
            content = saved_by_torch({holder: state} if holder else state)
        (folder / "a.pth").write_bytes(content)

    def attempt(self, folder: Path) -> None:
        read_checkpoint(only(folder), self.model, CONFIG)


class Runs(Kind):
    """The folder of a training run that is to be resumed: its settings, its log, its checkpoint."""

    inputs = 500

    def __init__(self, folder: Path) -> None:
        self.facts = {"config": CONFIG, "recipe": {"lr": 0.001, "frames": 20}, "files": {"a.mp4": {"sha256": "0" * 64}}}
        run = Run(folder / "run")
        run.folder.mkdir()
        run.begin(self.facts, {"machine": "a"})
        run.log({"updates": 1, "loss": 0.5})
        run.log({"updates": 2, "loss": 0.25})
        self.trainer = Trainer(build(CONFIG, SMALL), Recipe("streams", 10, 1, 1e-3))
        times = {"minutes": 0.5, "cpu_minutes": 0.4}
        self.saved = {"trainer": self.trainer.state_dict(), **times, "position": [[1, 2]]}
        run.save(self.saved)
        self.whole = {path.name: path.read_bytes() for path in sorted(run.folder.iterdir())}

    def make(self, chance: random.Random, folder: Path) -> None:
        which = chance.choice([*self.whole])
        for name, data in self.whole.items():
            content = data
            if name == which and name == "run.json" and chance.randrange(4):
                content = as_json(json.loads(data), chance)
            elif name == which and name == "log.csv" and chance.randrange(2):
                content = words(data.decode(), chance).encode("utf-8", "replace")
            elif name == which and name == "checkpoint.pt" and chance.randrange(2):
                content = saved_by_torch(self._exchanged(chance))
            elif name == which:
                content = damaged(data, chance)
            (folder / name).write_bytes(content)

    def _exchanged(self, chance: random.Random) -> Any:
        """The checkpoint with one part of another kind, or without it."""
        whole: dict[str, Any] = {"": copy.deepcopy(self.saved)}
        holder, name = whole, ""
        while isinstance(holder[name], dict) and holder[name] and chance.randrange(4):
            holder, name = holder[name], chance.choice([*holder[name]])
        if chance.randrange(3) or not name:
            holder[name] = chance.choice((None, 3, "x", {}, [], torch.zeros(2), 1e300, True))
        else:
            del holder[name]
        return whole[""]

    def attempt(self, folder: Path) -> None:
        run = Run(folder)
        run.check(resume=True)
        saved = run.load()
        run.begin(self.facts, {"machine": "b"})
        if saved is not None:
            with run.restoring():
                self.trainer.load_state_dict(saved["trainer"])
        run.cut_log(1)
