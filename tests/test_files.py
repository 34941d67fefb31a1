"""Files are written whole or not at all, and errors are one line each."""

from __future__ import annotations

import ast
import hashlib
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from framecast import files
from framecast.errors import SinkError, SourceError
from framecast.files import check_room, check_writable, sha256, write

ROOT = Path(__file__).resolve().parents[1]


def refused(act: Callable[[], object]) -> str:
    """The message of the error: one line that ends with a cure in brackets."""
    with pytest.raises(SinkError) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(")")
    return str(caught.value)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    check_writable(path)
    assert left(tmp_path / "a" / "b") == []
    write(path, b"one")
    check_writable(path)
    assert path.read_bytes() == b"one"
    write(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert left(path.parent) == ["file.bin"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError("write failed\nmore")])
def test_a_failure_midway_keeps_the_old_file(tmp_path: Path, error: OSError) -> None:
    path = tmp_path / "file.bin"
    write(path, b"before")

    def half(file: BinaryIO) -> None:
        file.write(b"half of it")
        raise error

    message = refused(lambda: write(path, half, "make room"))
    assert message in (
        f"cannot write {path}: No space left on device (make room)",
        f"cannot write {path}: write failed (make room)",
    )
    assert path.read_bytes() == b"before"
    assert left(tmp_path) == ["file.bin"]


def test_other_errors_pass_through_and_leave_no_file(tmp_path: Path) -> None:
    for error in (SourceError("lost"), KeyboardInterrupt()):

        def broken(file: BinaryIO, error: BaseException = error) -> None:
            file.write(b"half")
            raise error

        with pytest.raises(type(error)):
            write(tmp_path / "file.bin", broken)
    assert left(tmp_path) == []


@pytest.mark.parametrize("letter", ["n", "\N{SNOWMAN}", "\udcff"])
def test_a_name_may_be_as_long_as_the_file_system_takes_it(letter: str, tmp_path: Path) -> None:
    path = tmp_path / f"{letter * (250 // len(os.fsencode(letter)))}.json"
    check_writable(path)
    write(path, b"x")
    assert left(tmp_path) == [path.name]


def test_writers_of_one_path_do_not_mix(tmp_path: Path) -> None:
    path, meet = tmp_path / "file.bin", threading.Barrier(2, timeout=60)

    def writer(letter: bytes) -> None:
        def content(file: BinaryIO) -> None:
            file.write(letter * 1000)
            meet.wait()  # wait until both have begun
            file.write(letter * 1000)

        write(path, content)

    threads = [threading.Thread(target=writer, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in (b"a" * 2000, b"b" * 2000)
    assert left(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("act", [check_writable, lambda path: write(path, b"x")], ids=["check", "write"])
class TestWhatCannotBeWritten:
    """Both the check before the work and the write itself fail."""

    def test_a_device(self, act: Callable[[Path], object]) -> None:
        for device in ("/dev/full", "/dev/null"):
            expected = f"cannot write {device}: it is not a regular file (choose another path)"
            assert refused(partial(act, Path(device))) == expected
            assert Path(device).is_char_device()
            assert not Path(device).with_name(f"{Path(device).name}.partial").exists()

    def test_a_folder(self, act: Callable[[Path], object], tmp_path: Path) -> None:
        assert "it is not a regular file" in refused(lambda: act(tmp_path))

    def test_a_pipe_is_not_waited_for(self, act: Callable[[Path], object], tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert "it is not a regular file" in refused(lambda: act(tmp_path / "pipe"))

    def test_a_file_for_a_folder(self, act: Callable[[Path], object], tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        message = refused(lambda: act(tmp_path / "file" / "x.json"))
        assert message.startswith(f"cannot write {tmp_path}/file/x.json: ")

    def test_a_folder_where_nobody_may_write(self, act: Callable[[Path], object]) -> None:
        message = refused(lambda: act(Path("/proc/no/x.json")))
        assert message == "cannot write /proc/no/x.json: No such file or directory (choose another path)"

    @pytest.mark.parametrize("number", [13, 30])
    def test_a_folder_that_is_read_only(
        self, act: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def denied(self: Path, *arguments: object, **options: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "open", denied)  # file permissions would not stop root
        message = refused(lambda: act(tmp_path / "x.json"))
        assert message == f"cannot write {tmp_path}/x.json: {os.strerror(number)} (choose another path)"

    def test_links_that_go_in_circles(self, act: Callable[[Path], object], tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        refused(lambda: act(tmp_path / "a"))

    def test_the_message_shows_no_password(self, act: Callable[[Path], object]) -> None:
        message = refused(lambda: act(Path("/proc/rtsp://me:secret@camera/x")))
        assert "secret" not in message


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "there" / "file"
    link.symlink_to(target)
    check_writable(link)
    assert link.is_symlink()
    assert not target.exists()
    write(link, b"x")
    assert link.is_symlink()
    assert target.read_bytes() == b"x"


def test_a_folder_deleted_meanwhile_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "out" / "file"
    write(path, b"one")
    path.unlink()
    path.parent.rmdir()
    write(path, b"two")
    assert path.read_bytes() == b"two"


def test_an_almost_full_disk_is_reported_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RESERVE", 1 << 60)
    assert "is full: less than" in refused(lambda: check_writable(tmp_path / "x"))
    assert "is full: less than" in refused(lambda: check_room(tmp_path / "x"))


def test_the_hash_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == sha256(content) == hashlib.sha256(content).hexdigest()


# Allowed to write without ``files.write``: into temporary folders, or streams that cannot be replaced as a whole.
EXCEPTIONS = {
    ("files.py", "open"),  # implements files.write
    ("export/exporter.py", "save"),  # calls graph.artifact.save, which uses ``files.write``
    ("export/quantize.py", "save"),
    ("graph/split.py", "save"),
    ("kernels/cross.py", "write_text"),  # a temporary folder
    ("cli/parity.py", "save"),  # a temporary folder
    ("cli/moving_mnist.py", "save"),  # into memory
    ("training/runs.py", "save"),  # into the file object from ``files.write``; also a method with that name
    ("training/train.py", "save"),
    ("training/runs.py", "open"),  # appends rows to the log
    ("graph/repository.py", "save"),
    ("testing/triton.py", "write_text"),  # a temporary folder
    ("testing/triton.py", "open"),  # its log
    ("runtime/sinks/encoder.py", "open"),  # a codec; and a video, which FFmpeg writes piece by piece
}
WRITERS = {"write_text", "write_bytes", "save", "savez", "tofile", "imwrite", "open", "copyfile", "move"}


def calls(path: Path) -> set[str]:
    """Functions that the module calls by a name that may write a file; ``open`` only with a mode that writes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if name in WRITERS and (name != "open" or any(set(m) & set("wax") and len(m) < 4 for m in modes)):
            found.add(name)
    return found


def test_no_other_code_writes_files() -> None:
    package = ROOT / "src" / "framecast"
    found = {
        (path.relative_to(package).as_posix(), name)
        for folder, _, names in os.walk(package, followlinks=True)
        for path in (Path(folder, name) for name in names if name.endswith(".py"))
        for name in calls(path)
    }
    assert found - EXCEPTIONS == set()
