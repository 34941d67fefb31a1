"""Opens every model of a benchmark in every engine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Protocol

from framecast.errors import ArtifactError, EngineError, OptionError
from framecast.runtime.engines import ENGINES, Engine, choose, open_engine
from framecast.runtime.shipped import find, labels, shipped

ALL = "all"  # every shipped model; every engine that works here

Place = str | os.PathLike[str]


class Artifacts(Protocol):
    """A model that supplies an artifact for each engine, because some engines need a different file."""

    @property
    def given(self) -> str:
        """The name that the user gave."""

    def artifact(self, engine: str) -> AbstractContextManager[Path]:
        """Return a context manager that yields the file to open; the file exists inside the ``with`` block."""


Models = Place | Sequence[Place | Artifacts] | Mapping[str, Place | Artifacts]


@dataclass(frozen=True)
class Opened:
    """A model that is open in an engine.

    Attributes:
        name: unique name of the case.
        path: file that the engine opened.
        asked: the engine as the user named it.
        threads: CPU threads of the engine.
        engine: the open engine; its owner closes it.
    """

    name: str
    path: Path
    asked: str
    threads: int
    engine: Engine

    @property
    def title(self) -> str:
        """The name, with a note if the weights are random."""
        return titled(self.name, trained=self.engine.manifest.trained)


def titled(name: str, *, trained: bool) -> str:
    """Return a case's name for tables, with a note if its weights are random."""
    return name if trained else f"{name} (random weights)"


def open_all(stack: ExitStack, models: Models, engines: Sequence[str], threads: int) -> tuple[list[Opened], list[str]]:
    """Open every model in every engine. The stack closes them.

    Returns:
        The open cases; and with ``all``, why each of the others cannot open, one a line.

    Raises:
        OptionError: no model is named, or an engine does not exist.
        ArtifactError: a model does not exist.
        EngineError: a named engine is not available here, or no engine is.
    """
    every = ALL in engines
    asked = list(ENGINES) if every else list(engines)
    for engine in asked:
        choose(engine, threads)
    named = _named(models)
    if not named or not asked:
        raise OptionError("nothing to measure: name a model and an engine")
    opened: list[Opened] = []
    missing: list[str] = []
    cases = _distinct(f"{name} {engine}" if len(asked) > 1 else name for (name, _), engine in product(named, asked))
    for case, ((_, model), engine) in zip(cases, product(named, asked), strict=True):
        try:
            path = _path(stack, model, engine)
            made = stack.enter_context(open_engine(path, engine, threads=threads))
        except (EngineError, ArtifactError) as error:
            if not every:
                raise
            missing.append(f"{case}: not run: {error}")
            continue
        opened.append(Opened(case, path, engine, threads, made))
    if not opened:
        raise EngineError(f"no engine is available here ({missing[0]})")
    return opened, missing


def _path(stack: ExitStack, model: Place | Artifacts, engine: str) -> Path:
    return find(model) if isinstance(model, (str, os.PathLike)) else stack.enter_context(model.artifact(engine))


def _named(models: Models) -> list[tuple[str, Place | Artifacts]]:
    if isinstance(models, Mapping):
        return list(models.items())
    given: Sequence[Place | Artifacts] = [models] if isinstance(models, (str, os.PathLike)) else models
    every: list[Place | Artifacts] = []
    for model in given:
        every += [*shipped()] if model == ALL else [model]
    names = []
    for model in every:
        if isinstance(model, (str, os.PathLike)):
            find(model)  # raises before the first model is opened
            names.append(os.fspath(model))
        else:
            names.append(model.given)
    return list(zip(labels(names), every, strict=True))


def _distinct(names: Iterable[str]) -> list[str]:
    """Number repeated names. Measuring a model against itself shows how much two equal measurements differ."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return found
