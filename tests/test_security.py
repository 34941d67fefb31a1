"""Every promise of docs/security.md has a test, and no output of a run contains a password."""

from __future__ import annotations

import ast
import functools
import logging
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from framecast.camera import Frame, open_source
from framecast.errors import FramecastError
from framecast.redact import redact_message
from framecast.runtime.predictor import Prediction
from framecast.runtime.sinks.out import OutSink
from framecast.runtime.sinks.sink import Result
from framecast.runtime.sinks.web import WebSink
from framecast.testing import STAMPS, shades

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

ROOT = Path(__file__).resolve().parents[1]
FIRST, SECOND = "s3cret", "hunt3r"  # the passwords, before the host and in the query

# The beginning of each promise, and the tests that show it.
PROMISES = {
    "The page listens on 127.0.0.1": ["runtime/test_web.py::test_other_hosts_are_refused"],
    "Any other address needs the token": [
        "runtime/test_web.py::test_an_address_for_others_needs_a_token",
        "runtime/test_web.py::test_a_given_token_is_needed",
        "runtime/test_grid.py::test_a_token_guards_every_camera",
    ],
    "A foreign web page cannot read": [
        "runtime/test_web.py::test_other_hosts_are_refused",
        "runtime/test_web.py::test_only_this_page_may_open_the_stream",
        "runtime/test_web.py::test_a_named_host_is_answered_with_a_token",
    ],
    "The page is read-only": [
        "runtime/test_web.py::test_only_get",
        "runtime/test_web.py::test_a_viewer_that_sends_messages_is_dropped",
    ],
    "The page loads nothing": ["runtime/test_web.py::test_the_page_loads_nothing_from_elsewhere"],
    "The token is compared in constant time": [
        "runtime/test_web.py::test_tokens_are_compared_in_constant_time",
        "runtime/test_web.py::test_loopback_names_are_answered",
        "runtime/test_web.py::test_a_bad_token_is_not_repeated",
        "test_cli_secret.py::test_a_page_with_a_given_token",
    ],
    "Oversized or ambiguous requests": [
        "runtime/test_web.py::test_requests_that_two_servers_could_read_differently_are_refused"
    ],
    "Nobody without the token can lock": [
        "runtime/test_connections.py::test_silent_connections_lock_nobody_out",
        "runtime/test_connections.py::test_silent_connections_of_one_machine_do_not_displace_another",
        "runtime/test_connections.py::test_refused_connections_are_closed",
        "runtime/test_connections.py::test_a_connection_without_a_request_is_dropped",
    ],
    "A viewer that does not read": [
        "runtime/test_web.py::test_a_viewer_that_hangs_blocks_nothing",
        "runtime/test_web.py::test_the_number_of_viewers_is_limited",
    ],
    "`/live` and `/ready` say only": [
        "runtime/test_health.py::test_live_and_ready_need_neither_token_nor_name",
        "runtime/test_grid.py::test_ready_names_the_cameras_that_are_not",
    ],
    "No password of an address": [
        "test_security.py::test_no_output_of_a_run_has_a_password",
        "test_security.py::test_no_traceback_has_a_password",
        "camera/test_bad_input.py::test_credentials_are_redacted",
    ],
    "No option takes a secret": [
        "test_security.py::test_no_option_takes_a_secret",
        "test_cli_secret.py::test_an_address_comes_from_the_environment_or_a_file",
        "test_cli_secret.py::test_a_token_comes_from_a_file_or_the_environment",
    ],
    "Only the listed schemes": [
        "camera/test_bad_input.py::test_unknown_schemes_name_the_known_ones",
        "camera/test_clips.py::test_a_file_whose_name_looks_like_a_protocol",
    ],
    "A file is a regular file": [
        "camera/test_bad_input.py::test_what_is_no_regular_file",
        "camera/test_bad_input.py::test_a_file_that_is_no_video",
    ],
    "A server or playlist leads": [
        "camera/test_network.py::test_a_server_can_lead_only_to_other_servers",
        "camera/test_network.py::test_a_playlist_opens_no_files",
        "camera/test_network.py::test_a_playlist_on_standard_input_opens_nothing",
    ],
    "Pictures have at most": [
        "camera/test_bad_input.py::test_a_video_of_enormous_frames",
        "camera/test_bad_input.py::test_the_decoder_has_the_limit_before_it_sees_a_picture",
        "camera/test_bad_input.py::test_an_image_of_enormous_size",
    ],
    "An artifact is read once": ["graph/test_contents.py::test_what_was_checked_is_what_runs"],
    "Weights in other files": [
        "graph/test_contents.py::test_weights_in_other_files_are_refused_by_every_way_in",
        "graph/test_contents.py::test_only_a_regular_file_of_bounded_size_is_read",
    ],
    "Only operators of ONNX": [
        "graph/test_contents.py::test_what_no_export_contains_is_refused_before_a_library_reads_it"
    ],
    "Its manifest is bounded": [
        "graph/test_manifest.py::test_damage_is_named",
        "graph/test_manifest.py::test_a_malformed_manifest_is_refused_by_both_readers",
        "fuzz/test_fuzz.py::test_damaged_inputs_survive_or_are_refused_in_one_line",
        "graph/test_other_files.py::test_a_graph_that_opens_but_cannot_step_is_one_line",
    ],
    "ONNX Runtime takes at most half": [
        "graph/test_contents.py::test_a_graph_that_asks_for_too_much_memory_is_stopped"
    ],
    "A step that never returns": ["runtime/test_watchdog.py"],
    "Checkpoints are only tensors": ["models/test_checkpoints.py::test_a_file_cannot_run_code"],
    "Engines come only from": [
        "runtime/test_engine_cache.py::test_an_engine_is_stored_unchanged_and_only_for_us",
        "runtime/test_engine_cache.py::test_damage_is_found_before_loading",
        "runtime/test_engine_cache.py::test_a_folder_that_others_can_write_to_is_refused",
        "runtime/test_engine_cache.py::test_a_folder_of_another_user_is_refused",
    ],
    "Each engine belongs to one": [
        "runtime/test_engine_cache.py::test_every_field_changes_the_key",
        "runtime/test_engine_cache.py::test_another_engine_is_refused_with_the_difference",
    ],
    "Recordings replace no file": [
        "runtime/test_recordings.py::test_a_recording_replaces_no_file",
        "runtime/test_recordings.py::test_nobody_can_lead_a_recording_elsewhere",
        "test_files.py::TestWhatCannotBeWritten::test_a_device",
    ],
    "Who may read an output": ["runtime/test_recordings.py::test_others_may_read_what_the_umask_lets_them"],
    "No engine and no library": [
        "test_network_access.py::test_no_engine_opens_a_connection_or_writes_to_the_home_folder",
        "test_network_access.py::test_the_users_own_setting_stays",
    ],
}


@functools.cache
def known_tests(file: str) -> set[str]:
    """The tests of a file, those of a class with its name."""
    found = set()
    for node in ast.parse((ROOT / "tests" / file).read_text()).body:
        prefix, inner = (f"{node.name}::", node.body) if isinstance(node, ast.ClassDef) else ("", [node])
        found |= {prefix + one.name for one in inner if isinstance(one, ast.FunctionDef) and one.name[:5] == "test_"}
    return found


def test_every_promise_has_a_test_and_every_test_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    promised = text.partition("## What is promised\n")[2].partition("\n## ")[0]
    promises = [" ".join(item.split()) for item in re.split(r"^- ", promised, flags=re.MULTILINE)[1:]]
    assert len(promises) == len(PROMISES)
    for promise in promises:
        assert sum(promise.startswith(beginning) for beginning in PROMISES) == 1, promise
    for names in PROMISES.values():
        for name in names:
            file, _, test = name.partition("::")
            assert known_tests(file), name
            assert not test or test in known_tests(file), name


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def camera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a clip on a web server, with two passwords."""
    folder = tmp_path_factory.mktemp("web")
    writer = cv2.VideoWriter(str(folder / "clip.mkv"), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    for shade in shades(20, size=(48, 64)):
        writer.write(shade.image)
    writer.release()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://cam:{FIRST}@127.0.0.1:{server.server_address[1]}/clip.mkv?password={SECOND}"
        server.shutdown()


def test_no_output_of_a_run_has_a_password(
    run: Run, camera: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Terminal, log, report, recordings with their metadata and names, page, metrics."""
    (tmp_path / "camera").write_text(camera)
    seen: list[bytes] = []
    close = WebSink.close

    def look(self: WebSink) -> None:
        for page in ("", "stats.json", "metrics", "ready"):
            with urlopen(f"{self.address}{page}") as answer:
                seen.append(answer.read() + str(answer.headers).encode())
        close(self)

    monkeypatch.setattr(WebSink, "close", look)
    monkeypatch.chdir(tmp_path)
    outputs = ["--record", "run.mkv", "--record", "run.png", "--json", "run.json"]
    with caplog.at_level(logging.DEBUG):
        code, out, err = run("run", "@camera", *outputs, "--serve", "127.0.0.1:0", "--every-frame", "-v")
    assert code == 0, err
    (tmp_path / "camera").unlink()
    assert {path.name for path in tmp_path.iterdir()} == {"run.mkv", "run.png", "run.json"}
    assert b"***" in (tmp_path / "run.json").read_bytes()
    texts = [
        out.encode(),
        err.encode(),
        caplog.text.encode(),
        *seen,
        *(path.read_bytes() for path in tmp_path.iterdir()),
    ]
    assert len(seen) == 4
    assert any(b"***" in page for page in seen)
    for text in texts:
        assert FIRST.encode() not in text
        assert SECOND.encode() not in text


def test_no_traceback_has_a_password() -> None:
    """Not even those of the causes, which a caller of the Python interface sees."""
    image = np.zeros((48, 64, 3), np.uint8)
    shown = Result(Frame(image, 0.0, 0), image, Prediction(image, 0.0, 0.0), STAMPS)
    address = f"rtsp://cam:{FIRST}@127.0.0.1:1/x?password={SECOND}"
    for act in (lambda: open_source(address, timeout=5), lambda: OutSink(address, 25).show(shown)):
        with pytest.raises(FramecastError) as caught:
            act()
        text = "".join(traceback.format_exception(caught.value))
        assert "rtsp://***@127.0.0.1:1/x" in text
        assert FIRST not in text
        assert SECOND not in text


UNEXPECTED = """
import sys, threading, framecast.cli
def fail():
    try:
        raise OSError(f"cannot open '{sys.argv[1]}'")
    except OSError as error:
        raise RuntimeError("it failed") from error
def main():
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    fail()
framecast.cli.main = main
from framecast.__main__ import main
main()
"""


def test_no_unexpected_traceback_has_a_password() -> None:
    address = f"rtsp://cam:{FIRST}@host/x?password={SECOND}"
    done = subprocess.run([sys.executable, "-c", UNEXPECTED, address], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("RuntimeError: it failed") == 2
    assert done.stderr.count("cannot open 'rtsp://***@host/x?password=***") == 2
    assert FIRST not in done.stderr
    assert SECOND not in done.stderr


def test_messages_keep_what_is_no_secret() -> None:
    kept = "use rtsp://host:port/path, udp://host:port, v4l2:///dev/video10 (see https://example.org/a?b=c#d)"
    assert redact_message(kept) == kept
    assert redact_message(f"a rtsp://u:{FIRST}@h/x\nb http://h/?pwd={FIRST}\nc") == (
        "a rtsp://***@h/x\nb http://h/?pwd=***\nc"
    )


def test_no_option_takes_a_secret(run: Run) -> None:
    options = set(re.findall(r"--[a-z-]+", run("run", "--help")[1]))
    secret = {option for option in options if re.search("token|pass|secret|key|user|cred", option)}
    assert secret == {"--token-file"}
