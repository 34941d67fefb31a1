"""Secrets on the command line: from the environment or a file, never in an option, and never in a message."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.request import urlopen

import pytest

from framecast.cli.secret import TOKEN, address, token
from framecast.errors import OptionError
from framecast.runtime.sinks.web import WebSink

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

SECRET = "a-secret-of-the-owner"
CLIP = "synthetic://?size=64x48&fps=30&frames=3&seed=1"


def test_an_address_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_URL", " rtsp://user:p@ss@camera/stream\n")
    file = tmp_path / "camera"
    file.write_text("rtsp://user:p@ss@camera/stream\n")
    assert address("env:CAMERA_URL") == address(f"@{file}") == "rtsp://user:p@ss@camera/stream"
    for plain in ("demo", "0", "rtsp://user:p@ss@camera/stream", "./@file", "./env:file"):
        assert address(plain) == plain


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"\0", b"x" * 9000, "a pipe", None])
def test_a_bad_file_is_not_repeated(content: bytes | str | None, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    if content == "a pipe":  # without a writer: reading it would wait for ever
        os.mkfifo(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    cure = r"from .*secret: .*; (name a file with one line|write one line, without spaces)$"
    with pytest.raises(OptionError, match=f"^cannot read the source {cure}"):
        address(f"@{file}")
    with pytest.raises(OptionError, match=f"^cannot read the token {cure}"):
        token(file)


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert token(None) is None
    monkeypatch.setenv(TOKEN, SECRET)
    assert token(None) == SECRET
    file = tmp_path / "token"
    file.write_text(f"{SECRET}-2\n")
    assert token(file) == f"{SECRET}-2"  # what was named in this command wins
    file.write_text("short")
    with pytest.raises(OptionError, match="cannot use this token"):
        token(file)


def test_a_secret_that_other_users_can_read_gives_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("token", SECRET), ("camera", f"rtsp://user:{SECRET}@camera/x"), ("clip", "demo")):
        Path(name).write_text(content)

    def told(mode: int) -> list[str]:
        for name in ("token", "camera", "clip"):
            Path(name).chmod(mode)
        token(Path("token"))
        address("@camera")
        address("@clip")  # no secret
        return capsys.readouterr().err.splitlines()

    assert told(0o600) == told(0o440) == []
    assert told(0o644) == [
        "warning: other users can read the token in token: chmod 600 token",
        "warning: other users can read the password in camera: chmod 600 camera",
    ]


def test_errors_are_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_URL", f"rtsp://user:{SECRET}@127.0.0.1:1/x")
    monkeypatch.setenv(TOKEN, "p4ss")
    cases = [
        (["env:CAMERA_URL", "--no-reconnect"], "no stream from rtsp://***@127.0.0.1:1/x"),
        (["env:NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE is not set; export it"),
        (["@/no/such/file"], "cannot read the source from /no/such/file: No such file"),
        (["demo", "--serve", "127.0.0.1:0"], "cannot use this token: it must have 16 to 256 characters"),
        (
            ["demo", "--serve", "127.0.0.1:0", "--token-file", "/no/such/file"],
            "cannot read the token from /no/such/file",
        ),
        (["demo", "--token-file", "x"], "--token-file is for the page: give --serve as well"),
        (["demo", "--host", "x"], "--host is for the page: give --serve as well"),
        (
            ["demo", "--serve", "127.0.0.1:0", "--token-file", str(tmp_path / "good"), "--host", "http://x"],
            "without scheme",
        ),
    ]
    (tmp_path / "good").write_text(SECRET)
    for arguments, cure in cases:
        code, _, err = run("run", *arguments)
        assert (code, err.count("\n")) == (1, 1), err
        assert cure in err, err
        assert SECRET not in err
        assert "p4ss" not in err


def test_a_page_with_a_given_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, SECRET)
    monkeypatch.setenv("CAMERA_URL", CLIP)
    seen: list[object] = []
    close = WebSink.close

    def look(self: WebSink) -> None:
        with urlopen(f"{self.address}stats.json?token={SECRET}") as answer:
            seen.append(json.load(answer)["source"])
        close(self)

    monkeypatch.setattr(WebSink, "close", look)
    code, out, err = run("run", "env:CAMERA_URL", "--serve", "127.0.0.1:0", "--host", "cam.example.org")
    assert code == 0
    assert seen == [CLIP]
    assert SECRET not in out + err  # it would be in the journal
    assert "/ (add ?token= and your token)" in err
