"""What holds for any text: nothing secret is shown, and a URI gives a source or one line that says the cure."""

from __future__ import annotations

import contextlib
import os
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from framecast.camera import Source, open_source, uri
from framecast.camera.csi import Csi, parse_csi
from framecast.camera.synthetic import Scene, parse_scene
from framecast.camera.webcam import parse_v4l2
from framecast.errors import FramecastError, OptionError, SourceError
from framecast.redact import redact

SECRET = "Zx9Qw7Kv"  # in none of the other texts, whose letters are small
ANY = st.text(max_size=40)
PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)
PLAIN = st.text("abcdefgh0123-._", min_size=1, max_size=12)
# What may stand around the secret in a password that somebody forgot to encode.
NOISE = st.text(string.punctuation + string.ascii_lowercase + " äß\n", max_size=12)
SCHEMES = st.sampled_from(["rtsp://", "RTSPS://", "rtsp:/", "http:///", "v4l2://"])
SECRETS = st.sampled_from(
    ["password", "PASS", "user_pwd", "access_token", "api-key", "client%5fsecret", "auth", "session_id", "signature"]
)
OPTIONS = st.sampled_from(["size", "fps", "frames", "seed", "flip", "mode", ""])
VALUES = st.one_of(ANY, st.integers().map(str), st.sampled_from(["64x64", "1e9", "nan", "inf", "-0", "1_0", "٣", "x"]))
QUERIES = st.lists(st.tuples(OPTIONS, VALUES), max_size=4).map(lambda rows: "&".join(f"{k}={v}" for k, v in rows))


def one_line(message: str) -> bool:
    return bool(message) and message.isprintable()


@given(SCHEMES, PLAIN, NOISE, NOISE, PLAIN, ANY)
def test_no_password_of_a_url_survives(scheme: str, user: str, before: str, after: str, host: str, path: str) -> None:
    for password in (f"{before}{SECRET}{after}", SECRET):
        for credentials in (f"{user}:{password}", password):
            shown = redact(f"{scheme}{credentials}@{host}/{path}")
            assert SECRET not in shown
            assert one_line(shown)


@given(PLAIN, NOISE, PLAIN)
def test_no_password_survives_where_the_scheme_was_forgotten(user: str, noise: str, host: str) -> None:
    assert SECRET not in redact(f"{user}:{noise}{SECRET}@{host}/cam")


@given(SCHEMES, PLAIN, SECRETS, NOISE, PLAIN)
def test_no_secret_of_a_query_survives(scheme: str, host: str, key: str, noise: str, other: str) -> None:
    noise = noise.replace("&", "")  # which ends a value
    for query in (f"{key}={noise}{SECRET}", f"user={other}&{key}={SECRET}{noise}&fps=5", f"{other}_{key}={SECRET}"):
        assert SECRET not in redact(f"{scheme}{host}/cam?{query}")


@given(st.one_of(ANY, st.builds("{}{}:{}@{}?{}={}".format, SCHEMES, PLAIN, ANY, PLAIN, SECRETS, ANY)))
def test_what_is_redacted_stays_as_it_is(text: str) -> None:
    shown = redact(text)
    assert shown.isprintable()
    assert redact(shown) == shown


@given(st.one_of(st.just(""), SCHEMES), PRINTABLE)
def test_text_without_credentials_is_unchanged(scheme: str, text: str) -> None:
    assume("@" not in text)
    assume("=" not in text)
    assert redact(scheme + text) == scheme + text
    assert redact(f"{scheme}{text}?fps=5&size={text}") == f"{scheme}{text}?fps=5&size={text}"


@pytest.fixture(scope="module")
def no_devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder to work in; whatever would open a device or a connection is refused before it does."""

    def refuse(*_: object, **__: object) -> Source:
        raise SourceError("no device is opened here")

    def csi(rest: str, **_: object) -> Source:
        parse_csi(rest)
        return refuse()

    def v4l2(rest: str, **_: object) -> Source:
        parse_v4l2(rest)
        return refuse()

    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("open_number", "open_address", "open_stdin"):
            patch.setattr(uri, name, refuse)
        patch.setattr(uri, "open_csi", csi)
        patch.setattr(uri, "open_v4l2", v4l2)
        yield folder


URIS = st.one_of(
    ANY,
    st.builds(
        str.__add__,
        st.sampled_from(["file:", "file://", "v4l2:", "csi://", "rtsp:", "synthetic:", "mnist://", "x+y:"]),
        ANY,
    ),
    st.builds(
        "{}?{}".format,
        st.sampled_from(["synthetic://", "mnist://", "csi://0", "csi://1", "synthetic:", "v4l2:///dev/video0"]),
        QUERIES,
    ),
    st.builds("{}{}*{}".format, ANY, st.sampled_from(["", "/", "**/", "[", "]"]), ANY),
)


@given(text=URIS, path=st.booleans(), timeout=st.floats())
@example(text="synthetic://", path=False, timeout=5.0)
@example(text=os.fsdecode(b"\xff.mp4"), path=True, timeout=5.0)
def test_any_text_is_a_source_or_one_line(no_devices: Path, text: str, path: bool, timeout: float) -> None:
    assume(not text.startswith("/") and ".." not in text)  # what lies outside the empty folder is not ours to open
    try:
        with open_source(Path(text) if path else text, timeout=timeout) as source:
            said = source.name
    except (SourceError, OptionError) as error:
        said = str(error)
    assert one_line(said)


@given(QUERIES, st.one_of(st.just(""), ANY))
def test_a_scene_is_what_was_asked_for(query: str, place: str) -> None:
    with contextlib.suppress(FramecastError):
        scene = parse_scene(f"synthetic://{place}?{query}")
        assert 16 <= min(scene.width, scene.height) <= max(scene.width, scene.height) <= 4096
        assert 0.1 <= scene.fps <= 1000
        assert scene.frames > 0
        assert scene.seed >= 0
        assert parse_scene(scene.uri) == scene
        assert parse_scene(scene.uri.replace("://", ":")) == scene


@given(
    st.builds(
        Scene,
        width=st.integers(16, 4096),
        height=st.integers(16, 4096),
        fps=st.floats(0.1, 1000),
        frames=st.integers(1, 10**9),
        seed=st.integers(0, 10**20),
    )
)
def test_a_scene_is_its_uri(scene: Scene) -> None:
    assert parse_scene(scene.uri) == scene


@given(st.one_of(ANY, st.builds("{}?{}".format, st.one_of(VALUES, st.just("0")), QUERIES)))
def test_a_csi_camera_is_in_its_range_or_one_line(rest: str) -> None:
    try:
        camera, said = parse_csi(rest), "a camera"
    except SourceError as error:
        camera, said = Csi(), str(error)
    assert one_line(said)
    assert 0 <= camera.sensor <= 99
    assert 1 <= camera.fps <= 240
    assert all(64 <= side <= 8192 and side % 2 == 0 for side in camera.size)
    assert camera.flip in range(8)
    assert (
        parse_csi(f"{camera.sensor}?size={camera.width}x{camera.height}&fps={camera.fps}&flip={camera.flip}") == camera
    )
    assert sorted(camera.size) == sorted((camera.width, camera.height))
