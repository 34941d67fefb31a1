"""TensorRT has one logger per process. Each error goes to the ``errors`` block in which it occurs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from framecast.runtime.engines.tensorrt.library import Library, library

from .fake_tensorrt import TensorRT  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


@pytest.fixture
def found() -> Library:
    return Library("tensorrt", "10.3", type("Module", (), {"ILogger": TensorRT.ILogger})())


def report(found: Library, message: str) -> None:
    found.logger().log(TensorRT.ILogger.ERROR, message)


def elsewhere(function: Any, *args: Any) -> None:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


def test_errors_go_to_the_block_in_which_they_occur(found: Library) -> None:
    with found.errors() as outer:
        report(found, "one")
        with found.errors() as inner:
            report(found, "two")
        report(found, "three")
        found.logger().log(TensorRT.ILogger.WARNING, "no error")
    report(found, "nobody's")
    with found.errors() as later:
        pass
    assert (outer, inner, later) == (["one", "three"], ["two"], [])


def test_errors_of_two_threads_are_separate(found: Library) -> None:
    with found.errors() as mine:
        with found.errors() as inner:
            elsewhere(report, found, "from TensorRT's own thread")

        def other() -> None:
            with found.errors() as theirs:
                report(found, "theirs")
                elsewhere(report, found, "whose?")
            assert theirs == ["theirs"]
            finished.append(True)

        finished: list[bool] = []
        elsewhere(other)
    assert finished
    assert inner == ["from TensorRT's own thread"]
    assert mine == []


def test_a_process_has_one_logger(found: Library) -> None:
    assert found.logger() is found.logger()
    assert found.logger() is Library("tensorrt", "10.3", found.trt).logger()


def test_the_real_tensorrt_reports_into_the_block() -> None:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT for RTX: pip install 'framecast[rtx]'")
    found = library("tensorrt_rtx")
    assert found.logger() is library("tensorrt_rtx").logger()
    with found.errors() as errors:
        builder = found.trt.Builder(found.logger())
        network = builder.create_network(0)
        parser = found.trt.OnnxParser(network, found.logger())
        assert not parser.parse(b"no graph")
    assert errors
    with found.errors() as none:
        pass
    assert none == []
