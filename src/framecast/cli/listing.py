"""``framecast models`` and ``framecast doctor``."""

from __future__ import annotations


def models() -> None:
    """List what can be run and exported: size, cost, quality."""
    from framecast import terminal
    from framecast.models.configs import CONFIGS
    from framecast.runtime.engines import open_engine
    from framecast.runtime.shipped import shipped

    rows = []
    for name, entry in CONFIGS.items():
        height, width = entry.data.visible or (entry.data.height, entry.data.width)
        published = "–" if entry.window_gmacs is None else f"{entry.window_gmacs:.1f} ({entry.window})"
        cost = (f"{entry.parameters / 1e6:.2f} M", f"{entry.gmacs:.2f}", f"{entry.state_bytes / 1e6:.2f} MB", published)
        rows.append((name, f"{width}×{height}×{entry.data.channels}", *cost))
    columns = ("name", "frame", "parameters", "GMAC", "state", "as published")
    terminal.table("framecast models", columns, rows)
    print("GMAC: of a step, which is the next frame. As published: what the authors' code")
    print("spends on the same frame, from so many known ones. State: what a step reads,")
    print("float32.")
    for name, artifact in shipped().items():
        with open_engine(artifact) as engine:
            quality = engine.manifest.quality
        score = f"{quality.prediction:.2f} dB, copying {quality.copy_last:.2f} dB" if quality else "not measured"
        print(f"{name} ships trained: next frame {score}")
    print("The others come without weights: framecast export")


def doctor() -> None:
    """Say what is here, what is missing, and how to get it."""
    from framecast import terminal
    from framecast.runtime.doctor import examine

    rows = [(finding.part, finding.state, finding.cure) for finding in examine()]
    terminal.table("framecast doctor", ("part", "state", "what to do"), rows)
