"""A site of cameras and model servers in virtual time: how many cameras are carried, and what a failing server does.

The rules are those of the engine ``server`` (:mod:`framecast.runtime.engines.server`): a camera has one request at a
time, and its newest frame waits; it stays with its server, the first of its own order; if that fails, its state is
lost, it asks the next one with its next frame, and stays there. A server answers requests in the order of arrival, as
many at a time as it has workers. How long an answer takes is drawn from measured times. Nothing else takes time: no
network, no client.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from framecast.errors import OptionError
from framecast.runtime.engines.server import LONGEST, RETRY, TIMEOUT

WHOLE = 0.99  # share of a camera's frames that must be answered in time
HOSTS = 8  # servers in a camera's order: nobody loses more of them one after another
_FRAME, _DONE, _LATE, _FAIL, _BACK = range(5)


@dataclass(frozen=True)
class Site:
    """What to simulate.

    Attributes:
        cameras: their number; their frames are not in step.
        servers: their number.
        service: measured seconds from a request's turn to its answer, one server busy with nothing else.
        workers: requests that a server answers at a time, such as instances of the Python backend, one a core.
        fps: frames a second of each camera.
        seconds: how long.
        failures: how many servers fail in that time, one after another, evenly spread.
        repair: seconds until a failed server is back, without any state.
        silent: whether a failing server keeps its connections, so that clients notice only by their time limit.
        seed: of everything random.
    """

    cameras: int
    servers: int
    service: Sequence[float]
    workers: int = 1
    fps: float = 10.0
    seconds: float = 20.0
    failures: int = 0
    repair: float = 5.0
    silent: bool = False
    seed: int = 0

    def check(self) -> None:
        """Raise OptionError if a value is out of range."""
        if min(self.cameras, self.servers, self.workers) < 1 or self.failures < 0:
            raise OptionError("a site needs at least one camera, server and worker, and no negative number of failures")
        if not self.service or not all(0 < seconds < 1e3 for seconds in self.service):
            raise OptionError("service times must be above 0 s; there must be at least one")
        if not (0 < self.fps <= 1000 and 0 < self.seconds <= 86_400 and self.repair > 0):
            raise OptionError("fps, seconds and repair must be above 0")


@dataclass(frozen=True)
class Outcome:
    """What a simulation found.

    Attributes:
        carried: cameras of whose frames at least 99 % were answered within a frame's interval.
        frames: frames of all cameras.
        answered: frames that got an answer.
        dropped: frames that a newer one replaced while they waited.
        unanswered: frames that were sent, or due to be sent, but got no answer: a copy was shown.
        lost: states lost.
        p50: seconds from a frame to its answer: the median.
        p99: the 99th percentile.
        longest: the longest time without an answer of any camera, in seconds.
        busiest: share of the time for which the busiest server was busy.
        idlest: the same of the least busy one.
    """

    carried: int
    frames: int
    answered: int
    dropped: int
    unanswered: int
    lost: int
    p50: float
    p99: float
    longest: float
    busiest: float
    idlest: float


@dataclass(eq=False)
class _Camera:
    hosts: list[int]
    at: int = 0  # the server of its state, or of its newest request
    down: dict[int, float] = field(default_factory=dict)  # servers that failed it, and when to ask again
    late: int = 0  # requests in a row without an answer in time
    waiting: float | None = None  # when the newest frame came, while a request is under way
    request: int = 0  # the number of the newest request
    busy: bool = False
    started: bool = False
    sent: float = 0.0  # when the frame under way came
    frames: int = 0
    in_time: int = 0
    last: float = 0.0  # the newest answer
    gap: float = 0.0  # the longest time without one


@dataclass(eq=False)
class _Server:
    waiting: deque[tuple[int, int]] = field(default_factory=deque)  # camera and request
    serving: set[tuple[int, int]] = field(default_factory=set)
    up: bool = True
    busy: float = 0.0  # seconds of its workers


class _Simulation:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.random = random.Random(site.seed)  # noqa: S311 (a simulation)
        count = min(site.servers, HOSTS)
        # A random order, which is what the hash of a random sequence id amounts to.
        self.cameras = [_Camera(self.random.sample(range(site.servers), count)) for _ in range(site.cameras)]
        self.servers = [_Server() for _ in range(site.servers)]
        self.events: list[tuple[float, int, int, int, int, int]] = []  # time, number, kind, whose, which, where
        self.count = self.dropped = self.unanswered = self.lost = 0
        self.latencies: list[float] = []
        for camera in range(site.cameras):
            self.at(self.random.uniform(0, 1 / site.fps), _FRAME, camera)
        for failure in range(site.failures):
            self.at((failure + 1) * site.seconds / (site.failures + 1), _FAIL, self.random.randrange(site.servers))

    def at(self, time: float, kind: int, whose: int, which: int = 0, where: int = 0) -> None:
        self.count += 1
        heapq.heappush(self.events, (time, self.count, kind, whose, which, where))

    def run(self) -> Outcome:
        site = self.site
        while self.events and self.events[0][0] < site.seconds:
            now, _, kind, whose, which, where = heapq.heappop(self.events)
            if kind == _FRAME:
                self.frame(now, whose)
            elif kind == _DONE:
                self.done(now, whose, which, where)
            elif kind == _LATE:
                if self.cameras[whose].busy and self.cameras[whose].request == which:
                    self.failed(now, whose, late=True)
            elif kind == _FAIL:
                self.fail(now, whose)
            else:
                self.servers[whose].up = True
        for camera in self.cameras:
            camera.gap = max(camera.gap, site.seconds - camera.last)
        times = sorted(self.latencies) or [float("inf")]
        busy = [server.busy / site.seconds / site.workers for server in self.servers]
        return Outcome(
            carried=sum(camera.in_time >= WHOLE * (camera.frames - 1) for camera in self.cameras),  # one is under way
            frames=sum(camera.frames for camera in self.cameras),
            answered=len(self.latencies),
            dropped=self.dropped,
            unanswered=self.unanswered,
            lost=self.lost,
            p50=times[len(times) // 2],
            p99=times[min(len(times) - 1, int(0.99 * len(times)))],
            longest=max(camera.gap for camera in self.cameras),
            busiest=max(busy),
            idlest=min(busy),
        )

    def frame(self, now: float, whose: int) -> None:
        camera = self.cameras[whose]
        camera.frames += 1
        self.at(now + 1 / self.site.fps, _FRAME, whose)
        if camera.busy:
            self.dropped += camera.waiting is not None
            camera.waiting = now
        else:
            self.send(now, whose, now)

    def send(self, now: float, whose: int, due: float) -> None:
        camera = self.cameras[whose]
        hosts = [camera.at] if camera.started else camera.hosts
        host = next((host for host in hosts if camera.down.get(host, now) <= now), None)
        if host is None:
            self.unanswered += 1
            return
        camera.busy, camera.sent = True, due
        camera.request += 1
        camera.at = host
        server = self.servers[host]
        if not server.up and not self.site.silent:
            self.failed(now, whose)  # the connection is refused at once
            return
        self.at(now + TIMEOUT, _LATE, whose, camera.request)
        if server.up:
            server.waiting.append((whose, camera.request))
            self.begin(now, host)

    def begin(self, now: float, host: int) -> None:
        server = self.servers[host]
        while server.waiting and len(server.serving) < self.site.workers:
            whose, request = server.waiting.popleft()
            if not self.cameras[whose].busy or self.cameras[whose].request != request:
                continue  # its client has given up
            server.serving.add((whose, request))
            seconds = self.random.choice(self.site.service)
            server.busy += min(seconds, self.site.seconds - now)
            self.at(now + seconds, _DONE, whose, request, host)

    def done(self, now: float, whose: int, request: int, host: int) -> None:
        server = self.servers[host]
        if (whose, request) not in server.serving:
            return  # the server failed meanwhile
        server.serving.remove((whose, request))
        self.begin(now, host)
        camera = self.cameras[whose]
        if not camera.busy or camera.request != request:
            return  # the client has given up
        latency = now - camera.sent
        self.latencies.append(latency)
        camera.in_time += latency <= 1 / self.site.fps
        camera.gap, camera.last = max(camera.gap, now - camera.last), now
        camera.started, camera.late = True, 0
        camera.down.pop(host, None)
        self.free(now, whose)

    def failed(self, now: float, whose: int, *, late: bool = False) -> None:
        """A camera's request got no answer."""
        camera = self.cameras[whose]
        self.unanswered += 1
        self.lost += camera.started
        camera.started = False
        camera.late += late
        pause = min(LONGEST, RETRY * 2 ** max(0, camera.late - 1))
        camera.down[camera.at] = now + (pause if pause == RETRY else self.random.uniform(pause / 2, pause))
        self.free(now, whose)

    def free(self, now: float, whose: int) -> None:
        camera = self.cameras[whose]
        camera.busy = False
        if camera.waiting is not None:
            due, camera.waiting = camera.waiting, None
            self.send(now, whose, due)

    def fail(self, now: float, host: int) -> None:
        server = self.servers[host]
        if not server.up:
            return
        server.up = False
        cut = [*sorted(server.serving), *server.waiting]
        server.serving.clear()
        server.waiting.clear()
        self.at(now + self.site.repair, _BACK, host)
        if not self.site.silent:
            for whose, request in cut:
                if self.cameras[whose].busy and self.cameras[whose].request == request:
                    self.failed(now, whose)


def simulate(site: Site) -> Outcome:
    """Simulate a site. The same site gives the same outcome.

    Raises:
        OptionError: a value is out of range.
    """
    site.check()
    return _Simulation(site).run()
