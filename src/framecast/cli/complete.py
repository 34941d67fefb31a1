"""The values that a shell completes after ``framecast --install-completion``."""

from __future__ import annotations

from collections.abc import Iterable

LAYOUTS_HELP = "One of kth, ucf-sports, human36m, sjtu4k, kitti-caltech."


def complete_models(incomplete: str) -> list[str]:
    """Names of models and configurations."""
    from framecast.models.configs import CONFIGS
    from framecast.runtime.shipped import shipped

    return _starting({**shipped(), **CONFIGS}, incomplete)


def complete_configs(incomplete: str) -> list[str]:
    """Names of configurations."""
    from framecast.models.configs import CONFIGS

    return _starting(CONFIGS, incomplete)


def complete_layouts(incomplete: str) -> list[str]:
    """Return the layouts of data sets that start with ``incomplete``."""
    from framecast.camera.layouts import LAYOUTS

    return _starting(LAYOUTS, incomplete)


def complete_engine(incomplete: str) -> list[str]:
    """Names of engines, with and without a precision."""
    from framecast.runtime.engines import ENGINES

    forms = [(name, *(f"{name}:{precision}" for precision in row.precisions)) for name, row in ENGINES.items()]
    return _starting(["auto", *(form for names in forms for form in names)], incomplete)


def complete_engines(incomplete: str) -> list[str]:
    """Several engines, separated by commas, or ``all``."""
    before, comma, last = incomplete.rpartition(",")
    names = complete_engine(last) + ([] if comma else _starting(["all"], last))
    return [f"{before}{comma}{name}" for name in names]


def complete_precisions(incomplete: str) -> list[str]:
    """Precisions of a TensorRT engine."""
    from framecast.runtime.engines import ENGINES

    return _starting(ENGINES["tensorrt"].precisions, incomplete)


def complete_configurations(incomplete: str) -> list[str]:
    """TOML files, and the folders that may hold some."""
    from pathlib import Path

    folder, slash, name = incomplete.rpartition("/")
    place = Path(folder + slash)
    try:
        found = [path.name + "/" * path.is_dir() for path in place.iterdir() if path.suffix == ".toml" or path.is_dir()]
    except (OSError, ValueError):
        return []
    return [folder + slash + one for one in _starting(sorted(found), name) if name or not one.startswith(".")]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
