"""The simulation of a site: known cases, and the rules of the client."""

from __future__ import annotations

import dataclasses

import pytest

from framecast.bench.fleet import Site, simulate
from framecast.errors import OptionError

CALM = Site(cameras=9, servers=1, service=[0.01], seconds=5.0)


def test_a_server_carries_what_its_service_time_allows() -> None:
    """A step of 10 ms at 10 fps: ten cameras fill a server."""
    found = simulate(CALM)
    assert (found.carried, found.dropped, found.unanswered, found.lost) == (9, 0, 0, 0)
    assert 0.01 <= found.p50 < 0.1
    assert found.busiest == pytest.approx(0.9, abs=0.03)
    crowded = simulate(dataclasses.replace(CALM, cameras=20))
    assert crowded.carried == 0
    assert crowded.busiest == pytest.approx(1.0, abs=0.03)
    assert crowded.answered == pytest.approx(500, abs=12)
    assert crowded.answered + crowded.dropped <= crowded.frames <= 1000


def test_workers_answer_at_the_same_time() -> None:
    found = simulate(dataclasses.replace(CALM, cameras=36, workers=4))
    assert (found.carried, found.dropped) == (36, 0)
    assert found.busiest == pytest.approx(0.9, abs=0.03)


def test_a_crash_costs_states_and_a_moment() -> None:
    site = dataclasses.replace(CALM, servers=2, failures=1, repair=1.0)
    found = simulate(site)
    assert 1 <= found.lost <= 9
    assert found.longest < 0.5  # the other server answers the next frame
    alone = simulate(dataclasses.replace(site, servers=1))
    assert alone.lost == 9
    assert 1.0 <= alone.longest < 2.5  # the repair, and up to a second until the client asks again


def test_a_silent_server_is_noticed_by_the_time_limit() -> None:
    found = simulate(dataclasses.replace(CALM, servers=2, failures=1, silent=True))
    assert 2.0 <= found.longest < 2.5


def test_the_same_seed_gives_the_same_outcome() -> None:
    site = Site(cameras=50, servers=4, service=[0.004, 0.006, 0.02], failures=2, seconds=4.0, seed=3)
    assert simulate(site) == simulate(site)
    assert simulate(site) != simulate(dataclasses.replace(site, seed=4))


@pytest.mark.parametrize(
    "change", [{"cameras": 0}, {"service": []}, {"service": [0.0]}, {"fps": 0.0}, {"failures": -1}]
)
def test_what_makes_no_site_is_an_error(change: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        simulate(dataclasses.replace(CALM, **change))  # type: ignore[arg-type]
