"""Faults of the camera and its network: rows of ``faults.py``."""

from __future__ import annotations

import signal
import subprocess
import threading
import time

import cv2
import numpy as np
from _faults_parts import (
    PATIENCE,
    FaultError,
    hold,
    in_namespace,
    row,
    running,
    spread,
    status,
)
from _faults_server import Camera, Relay

from framecast.camera import Image

CLEAN = 60  # pixels, of 76,800, that coding may change in a good picture of the ball


def killed(outages: int) -> None:
    """The server dies and comes back, each time at another size."""
    recovery, noticed, stale, rescaled, lost = [], [], 0, 0, []
    with Camera() as camera, running(camera.url) as run:
        for outage in range(outages):
            run.wait_for(outage, 10)
            died = camera.kill()
            noticed.append(run.trouble() - died)
            last = run.of(outage)[-1].frame.time
            time.sleep(0.5 + 0.1 * (outage % 10))
            size = ((160, 120), (320, 240))[outage % 2]
            back = camera.start(f"{size[0]}x{size[1]}")
            run.wait_for(outage + 1, 8)
            after = run.of(outage + 1)
            recovery.append(after[0].stamps.handed - back)
            lost.append((after[0].frame.time - max(back, last)) * 25)
            stale += sum(result.frame.time < died for result in after)
            rescaled += sum(result.frame.image.shape != (*size[::-1], 3) for result in after)
        report, state = run.pipeline.report(), run.same_state()
    row("camera process dies (SIGKILL): to the outage noticed", spread(noticed))
    row("  server back: to the first prediction", spread(recovery))
    row("  frames that the server could have sent meanwhile", f"p50 {np.median(lost):.0f}, max {max(lost):.0f}")
    row("  frames of before the outage, after it", f"{stale} (N={outages} outages)")
    row("  epochs, reconnects", f"{report['epochs']}, {report['events']['reconnects']}")
    row("resolution changes at each restart: shape errors", f"0 (N={outages}; any would have ended the run)")
    row("  frames silently rescaled", str(rescaled))
    row("state after each kill", state)
    hold(not stale and not rescaled, "stale or rescaled frames")


def frozen(times: int) -> None:
    """The server stops answering and goes on."""
    noticed, recovery, stale = [], [], 0
    with Camera() as camera, running(camera.url) as run:
        for epoch in range(times):
            run.wait_for(epoch, 10)
            begun = camera.send(signal.SIGSTOP)
            noticed.append(run.trouble() - begun)
            stale += sum(result.frame.time > begun + 0.5 for result in run.of(epoch))
            back = camera.send(signal.SIGCONT)
            run.wait_for(epoch + 1, 8)
            recovery.append(run.of(epoch + 1)[0].stamps.handed - back)
            stale += sum(result.frame.time < begun for result in run.of(epoch + 1))
        state = run.same_state()
    row("camera freezes (SIGSTOP): to the outage noticed", spread(noticed))
    row("  goes on (SIGCONT): to the first prediction", spread(recovery))
    row("  stale frames handed out", f"{stale} (N={times} freezes)")
    hold(not stale, "stale frames")
    row("  state after each", state)


def reset(times: int) -> None:
    """The connection is reset (RST by a relay with SO_LINGER 0); the camera goes on."""
    noticed, recovery, stale = [], [], 0
    with Camera() as camera:
        relay = Relay(camera.port)
        with running(relay.url) as run:
            for epoch in range(times):
                run.wait_for(epoch, 10)
                cut = relay.reset()
                noticed.append(run.trouble() - cut)
                run.wait_for(epoch + 1, 8)
                recovery.append(run.of(epoch + 1)[0].stamps.handed - cut)
                stale += sum(result.frame.time < cut for result in run.of(epoch + 1))
            state = run.same_state()
        relay.close()
    row("TCP reset (RST): to the outage noticed", spread(noticed))
    row("  RST to the first prediction", spread(recovery))
    row("  frames of before the reset, after it", f"{stale} (N={times} resets)")
    hold(not stale, "stale frames")
    row("  state after each", state)


def late(times: int) -> None:
    """The camera starts after the run."""
    waits, firsts = [], []
    for number in range(times):
        wait = 2.0 + 3 * number
        with Camera(started=False) as camera, running(camera.url) as run:
            time.sleep(wait)
            back = camera.start()
            run.wait(lambda: bool(run.results))
            waits.append(wait)
            firsts.append(run.results[0].stamps.handed - back)
    off = ", ".join(f"{wait:g}" for wait in waits)
    row(f"camera slow to boot ({off} s): to the first prediction", spread(firsts))


def cable(times: int, seconds: float) -> None:
    """Every packet of the camera is dropped for a while."""
    in_namespace("cable", str(times), str(seconds))


def cable_inside(times: int, seconds: float) -> None:
    """The same within the namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    noticed, recovery, unready, live, polls, stale = [], [], [], 0, 0, 0
    with Camera() as camera, running(camera.url, page=True) as run:
        page = run.page
        if page is None:
            raise FaultError("no page")
        for epoch in range(times):
            run.wait_for(epoch, 10)
            _drop(camera.port)
            down = time.monotonic()
            found: list[float] = []
            watcher = threading.Thread(target=lambda down=down, found=found: found.append(run.trouble() - down))
            watcher.start()
            since = None
            while time.monotonic() < down + seconds:
                ready = status(f"{page.address}ready")
                since = time.monotonic() - down if ready == 503 and since is None else since
                polls, live = polls + 1, live + (status(f"{page.address}live") == 200)
                time.sleep(0.1)
            if since is None:
                raise FaultError("/ready stayed 200")
            unready.append(since)
            watcher.join(PATIENCE)
            noticed += found
            subprocess.run(["iptables-legacy", "-F", "INPUT"], check=True)
            up = time.monotonic()
            run.wait_for(epoch + 1, 1)
            recovery.append(run.of(epoch + 1)[0].stamps.handed - up)
            if status(f"{page.address}ready") != 200:
                raise FaultError("/ready is not 200 with the camera back")
            stale += sum(result.frame.time < down for result in run.of(epoch + 1))
        state = run.same_state()
    row(f"cable pulled for {seconds:g} s (DROP): to the outage noticed", spread(noticed))
    row("  cable back: to the first prediction", spread(recovery))
    row("  /ready 503 after; /live 200 during the outage", f"{spread(unready)}; {live} of {polls}")
    row("  frames of before the outage, after it", str(stale))
    hold(not stale and live == polls, "stale frames, or /live failed")
    row("  state after each", state)


def _drop(port: str) -> None:
    for side in ("--dport", "--sport"):
        subprocess.run(["iptables-legacy", "-A", "INPUT", "-p", "tcp", side, port, "-j", "DROP"], check=True)


def udp_loss(seconds: float) -> None:
    """A camera over UDP loses packets."""
    in_namespace("udp_loss", str(seconds))


def udp_loss_inside(seconds: float) -> None:
    """The same within the namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for percent in (0, 1, 5, 20):
        with Camera(transport="udp") as camera, running(camera.url) as run:
            run.wait_for(0, 10)
            if percent:
                rule = f"-p udp -m statistic --mode random --probability {percent / 100}"
                subprocess.run(["iptables-legacy", "-A", "INPUT", *rule.split(), "-j", "DROP"], check=True)
            before = run.pipeline.report()
            fed = corrupt = 0
            seen, deadline = run.results[-1].frame.index, time.monotonic() + seconds
            while time.monotonic() < deadline:
                new = [result for result in list(run.results) if result.frame.index > seen]
                for result in new:
                    seen, fed = result.frame.index, fed + 1
                    corrupt += _broken(result.frame.image)
                time.sleep(0.1)
            after = run.pipeline.report()
            subprocess.run(["iptables-legacy", "-F", "INPUT"], check=True)
        damaged = after["events"]["damaged"] - before["events"]["damaged"]
        row(
            f"UDP loss {percent} %: corrupt frames fed to the state",
            f"{corrupt} of {fed} fed; {damaged} seen as damaged and left out (of about {25 * seconds:.0f} sent)",
        )


def _broken(image: Image) -> bool:
    """Whether a picture of the ball is visibly corrupt: it is not one white disc on black."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    white = (grey > 128).astype(np.uint8)
    if not white.any():
        return True
    ys, xs = np.nonzero(white)
    disc = np.zeros_like(white)
    centre = (round(float(xs.min() + xs.max()) / 2), round(float(ys.min() + ys.max()) / 2))
    radius = round(float(max(np.ptp(xs), np.ptp(ys)) + 1) / 2)
    cv2.circle(disc, centre, radius, 1, -1)
    edge = cv2.dilate(disc, np.ones((7, 7), np.uint8)) - cv2.erode(disc, np.ones((7, 7), np.uint8))
    wrong = ((disc != white) | ((disc == 0) & (grey > 60))) & (edge == 0)
    return int(wrong.sum()) > CLEAN
