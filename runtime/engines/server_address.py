"""The address of a model on a model server: ``server://host:8001/edge``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from urllib.parse import urlsplit

from framecast.errors import OptionError

PORT = 8001  # Triton's gRPC port
EXAMPLE = f"server://host:{PORT}/edge"


@dataclass(frozen=True)
class ServerAddress:
    """A model on one or several servers.

    Attributes:
        hosts: host and port of each server. A sequence goes to one of them (:func:`order`).
        model: the model's name there.
        version: its version; "" for the server's choice.
        tls: whether to speak TLS.
    """

    hosts: tuple[str, ...]
    model: str
    version: str = ""
    tls: bool = False


def parse(text: str) -> ServerAddress:
    """Parse what follows ``server:``: ``//HOST[:PORT][,HOST[:PORT]…]/MODEL[/VERSION][?tls]``.

    Raises:
        OptionError: it is not such an address.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    hosts = [_host(host) for host in parts.netloc.split(",")]
    path = re.fullmatch(r"/([A-Za-z0-9][\w.-]*)(?:/(\d{1,9}))?", parts.path, re.ASCII)
    if "" in hosts or path is None or parts.query not in ("", "tls") or parts.fragment or parts.scheme:
        raise OptionError(f"server:{text} names no model on a server: write {EXAMPLE}, with the server's host")
    return ServerAddress(tuple(dict.fromkeys(hosts)), path[1], path[2] or "", parts.query == "tls")


def _host(text: str) -> str:
    """A host with its port; "" if it is none."""
    found = re.fullmatch(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?", text, re.ASCII)
    if found is None or not 0 < int(found[2] or PORT) < 65536:
        return ""
    return f"{found[1]}:{found[2] or PORT}"


def order(hosts: Sequence[str], sequence: int) -> list[str]:
    """The servers for a sequence, the one to use first: the same for everybody, and evenly spread.

    Each server gets a random rank for each sequence (rendezvous hashing). If a server leaves, only its own sequences
    move.
    """
    return sorted(hosts, key=lambda host: blake2b(f"{sequence} {host}".encode(), digest_size=8).digest())
