"""``framecast doctor``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.checks import check_ending


def doctor(
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the findings as JSON.")] = None,
) -> None:
    """Check what works here, and what is missing.

    The table says how to get each missing part. The exit code is 1 if 'framecast run demo' would not work.
    """
    from framecast import terminal
    from framecast.files import check_writable, write
    from framecast.runtime.doctor import engines, examine, ready, verdict
    from framecast.runtime.report import to_json

    check_ending("--json", json, ".json")
    if json is not None:
        check_writable(json)
    findings = examine()
    print(verdict(findings))
    print(f"Engines that work: {', '.join(engines(findings)) or 'none'}.")
    rows = [(finding.part, finding.state, finding.cure) for finding in findings]
    terminal.table("framecast doctor", ("part", "state", "what to do"), rows)
    if json is not None:
        found = {
            "ready": ready(findings),
            "verdict": verdict(findings),
            "engines": engines(findings),
            "parts": [dataclasses.asdict(finding) for finding in findings],
        }
        write(json, f"{to_json(found, indent=2)}\n".encode())
        print(f"wrote {json}")
    if not ready(findings):
        raise typer.Exit(1)
