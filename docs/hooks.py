"""MkDocs hooks: they add files from outside of ``docs/`` to the site, and point links at them."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from griffe import Extension, Function
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
FOLDERS = {
    "benchmarks/results/training": "results/training",
    "benchmarks/results/papers": "results/papers",
    "benchmarks/results": "results",
    "examples": "examples",
}
PLAIN = ("LICENSE", "NOTICE")
PUBLIC = {"benchmark", "evaluate", "load", "open", "run"}  # functions on the API page


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, results and examples from outside of ``docs/``."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for name in PLAIN:
        files.append(File.generated(config, f"{name}.txt", abs_src_path=str(ROOT / name)))
    for folder, place in FOLDERS.items():
        for path in sorted((ROOT / folder).iterdir()):
            if path.is_file():
                files.append(File.generated(config, f"{place}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Change links so that they lead to the files' places in the site."""

    def target(found: re.Match[str]) -> str:
        path, anchor = found[1], found[2] or ""
        moved = path.removeprefix("../").removeprefix("docs/")
        for folder, place in FOLDERS.items():
            if moved.startswith(f"{folder}/") and moved != f"{folder}/":
                moved = f"{place}/{moved.removeprefix(f'{folder}/')}"
                break
        moved = {**PAGES, "examples/": "examples.md", **{name: f"{name}.txt" for name in PLAIN}}.get(moved, moved)
        return f"]({moved}{anchor})"

    return re.sub(r"\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)", target, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Remove Sphinx roles in docstrings, which Markdown does not know."""
    return re.sub(r":(?:mod|class|func|meth|attr|data|exc):(?=<code>)", "", html)


class Defaults(Extension):
    """Shows the default of a public function's parameter as a value, where the code names a constant."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Replace each default by its value, if that is a plain one."""
        if func.name not in PUBLIC or not (func.parent and func.parent.is_module):
            return
        code = getattr(import_module(func.parent.path), func.name)
        for name, parameter in inspect.signature(code).parameters.items():
            if isinstance(parameter.default, (str, int, float, tuple)):
                func.parameters[name].default = repr(parameter.default)
