"""The real sdist and wheel, built from a copy of the tree; and the wheel in a bare environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("bench", "camera", "evaluation", "export", "graph", "kernels", "models", "runtime", "training")
TEXTS = ("README.md", "CHANGELOG.md", "LICENSE", "NOTICE")
PARTS = (*ROOMS, "src", "tests", "pyproject.toml", "setup.py", "MANIFEST.in", *TEXTS)
# The installed package must not find the checkout, neither by import path nor by working directory.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def version() -> str:
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    return found[1]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd="/",
        env=ENVIRONMENT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def build(tree: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``python -m build`` with the installed setuptools: no network, no second environment."""
    return run(sys.executable, "-m", "build", "--no-isolation", *options, tree)


def copy_tree(target: Path) -> Path:
    """Copy the tree as a clone has it: links stay links, and no files of earlier builds."""
    target.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / part, target / part, symlinks=True, ignore=ignore)
        else:
            shutil.copy(ROOT / part, target / part)
    return target


def package_files(tree: Path) -> dict[str, bytes]:
    """Every file of the package that must ship, by its path under the import root; links are followed."""
    files = {}
    for folder, _, names in os.walk(tree / "src" / "framecast", followlinks=True):
        for path in (Path(folder, name) for name in names):
            data = path.name == "py.typed" or {"assets", "page"} & set(path.parts)
            if path.suffix == ".py" or data:
                files[path.relative_to(tree / "src").as_posix()] = path.read_bytes()
    return files


def test_networks_in_the_package_name_no_files_of_the_machine_that_made_them() -> None:
    networks = sorted((ROOT / "src/framecast/assets").glob("*.onnx"))
    assert networks
    for path in networks:
        assert b".py" not in path.read_bytes(), path.name


def wheel_files(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("package") / "tree")


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    """The wheel built from the tree with its links, as ``pip install .`` does."""
    out = tree.parent / "wheel"
    done = build(tree, "--wheel", "--outdir", out)
    assert done.returncode == 0, done.stdout
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def released(tree: Path) -> Path:
    """A folder with the sdist and the wheel built from that sdist."""
    out = tree.parent / "released"
    done = build(tree, "--outdir", out)
    assert done.returncode == 0, done.stdout
    return out


def test_the_wheel_holds_the_whole_package_and_nothing_else(tree: Path, wheel: Path) -> None:
    files = wheel_files(wheel)
    expected = package_files(tree)
    for room in ROOMS:
        assert f"framecast/{room}/__init__.py" in expected
    assert "framecast/py.typed" in expected
    networks = ("stip-edge", "stip-mini", "stau-mini", "mau-mini", "astm-mini", "tau-mini")
    assets = ("demo.mp4", "digits.idx.gz", "edge.json", *(f"{name}.onnx" for name in networks))
    assert {f"framecast/assets/{name}" for name in assets} <= set(expected)
    assert any(name.startswith("framecast/runtime/sinks/page/") for name in expected)

    information = f"framecast-{version()}.dist-info"
    assert {name for name in files if not name.startswith(information)} == set(expected)
    assert {name: files[name] for name in expected} == expected
    assert f"{information}/licenses/LICENSE" in files
    assert f"{information}/licenses/NOTICE" in files
    assert files[f"{information}/top_level.txt"].split() == [b"framecast"]


def test_the_sdist_holds_the_package_as_real_files_and_no_tests(tree: Path, released: Path) -> None:
    (path,) = released.glob("*.tar.gz")
    root = f"framecast-{version()}"
    with tarfile.open(path) as archive:
        members = {member.name.removeprefix(f"{root}/"): member for member in archive.getmembers()}
    assert not [name for name, member in members.items() if not (member.isfile() or member.isdir())]
    files = {name for name, member in members.items() if member.isfile()}
    assert files >= {f"src/{name}" for name in package_files(tree)}
    assert files >= {*TEXTS, "pyproject.toml", "setup.py"}
    assert {name.split("/")[0] for name in files if "/" in name} == {"src"}


def test_the_wheel_from_the_sdist_is_the_wheel_from_the_tree(wheel: Path, released: Path) -> None:
    (from_sdist,) = released.glob("*.whl")
    assert from_sdist.name == wheel.name
    one, other = wheel_files(from_sdist), wheel_files(wheel)
    assert set(one) == set(other)
    assert [name for name in one if one[name] != other[name] and not name.endswith("/RECORD")] == []


def test_the_wheel_works_in_a_bare_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "venv", environment).check_returncode()
    done = run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    assert done.returncode == 0, done.stdout

    # Without its dependencies it can be imported, and it installs no package with a generic name.
    code = (
        "import framecast, importlib.util as u\n"
        f"assert not [room for room in {ROOMS} if u.find_spec(room)]\n"
        "print(framecast.__version__, framecast.__file__)"
    )
    done = run(python, "-W", "error", "-c", code)
    assert done.returncode == 0, done.stdout
    number, file = done.stdout.split()
    assert number == version()
    assert Path(file).is_relative_to(environment)

    # With dependencies borrowed from this environment, the command runs and finds the shipped files.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join({sysconfig.get_path(kind) for kind in ("purelib", "platlib")}))
    done = run(environment / "bin" / "framecast", "models")
    assert done.returncode == 0, done.stdout
    assert "stip-edge" in done.stdout


@pytest.mark.parametrize("kind", ["--wheel", "--sdist"])
@pytest.mark.parametrize(
    ("room", "damage"), [("models", "empty folder"), ("runtime", "text file"), ("camera", "dangling link")]
)
def test_a_broken_link_stops_the_build(tmp_path: Path, room: str, kind: str, damage: str) -> None:
    tree = copy_tree(tmp_path / "tree")
    link = tree / "src" / "framecast" / room
    link.unlink()
    if damage == "empty folder":
        link.mkdir()
    elif damage == "text file":
        link.write_text(f"../../{room}")  # git writes such a file where links are not allowed
    else:
        link.symlink_to("../../nowhere")
    done = build(tree, kind)
    assert done.returncode != 0
    assert f"framecast cannot be built: src/framecast/{room} has no __init__.py." in done.stdout
    assert not [*tree.glob("dist/*")]


def test_the_sbom_is_made_with_a_pinned_tool_and_needs_licence_and_hash(tmp_path: Path) -> None:
    """A release runs the whole of it, with downloads: 'make sbom'."""
    commands = subprocess.run(["make", "-n", "sbom"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"pip .*install 'cyclonedx-bom==[\d.]+'", commands)
    assert re.search(r"install -c constraints.txt .*--report \S+/sbom/report\.json", commands.replace("\\\n", " "))
    script = (ROOT / ".ci" / "sbom").read_text()
    assert {"environment", "--pyproject", "--sv", "--output-reproducible", "JsonStrictValidator"} <= set(
        re.findall(r"[\w-]+", script)
    )
    compile(script, "sbom", "exec")


def test_the_table_of_licences_has_every_dependency_and_what_it_states() -> None:
    page = (ROOT / "docs" / "releasing.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([^|;]+?)(?:;[^|]*)? \|$", page, re.M))
    project = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("]")[0]
    assert rows.keys() == set(re.findall(r'"([\w-]+)>=', project))
    for name, licence in rows.items():
        try:
            stated = (metadata.metadata(name).get_all("License-Expression") or [None])[0]
        except metadata.PackageNotFoundError:  # opencv-python-headless may be in its place
            continue
        assert stated is None or stated.split()[0] == licence.split()[0], name  # later words change between versions
