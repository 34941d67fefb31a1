"""Mutations. All of them depend only on the random numbers that they get, so a seed makes the same input everywhere."""

from __future__ import annotations

import copy
import json
import random
import re
import string
from collections.abc import Sequence
from typing import Any

EXTREMES = (0, 1, -1, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
NUMBERS: Sequence[Any] = (*EXTREMES, -(2**31), 0.5, -1.5, 1e9, 1e300, -0.0, 5e-324, True, 10**30)
ODD: Sequence[Any] = (
    None,
    "",
    "x",
    [],
    {},
    [[]],
    "\x1b[31m",
    "a\nb",
    "\ud7ff",
    "nan",
    "../../x",
    "é" * 300,
    "0" * 5000,
)
ODD_TEXT = tuple(one for one in ODD if isinstance(one, str))
DEEP = 20_000  # levels


def damaged(data: bytes, chance: random.Random, other: bytes = b"") -> bytes:
    """Damage bytes in one to four places: as a bad disk, a cut transfer, or an attacker would.

    Args:
        data: what is damaged.
        chance: random numbers.
        other: another file, for splices.
    """
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 4))):
        out = bytearray(_once(out, chance, other)) or bytearray(1)
    return bytes(out)


def _once(out: bytearray, chance: random.Random, other: bytes) -> bytes | bytearray:
    at, size = chance.randrange(len(out)), chance.randint(1, max(1, min(len(out) // 4, 1 << chance.randrange(1, 16))))
    match chance.randrange(10):
        case 0:  # flipped bits
            for _ in range(chance.choice((1, 3, 16))):
                out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
        case 1:  # other bytes
            for _ in range(chance.choice((1, 3, 16))):
                out[chance.randrange(len(out))] = chance.randrange(256)
        case 2:  # a length or a count that is extreme
            width = chance.choice((1, 2, 4, 8))
            value = chance.choice(EXTREMES) % (1 << 8 * width)
            out[at : at + width] = value.to_bytes(width, chance.choice(("big", "little")))
        case 3:  # a hole
            out[at : at + size] = bytes(size)
        case 4:  # a part is missing
            del out[at : at + size]
        case 5:  # a part comes twice
            out[at:at] = out[at : at + size]
        case 6:  # a part comes very often
            part = bytes(out[at : at + min(size, 64)])
            out[at:at] = part * chance.choice((10, 100, 1000))
        case 7:  # cut off
            del out[at:]
        case 8:  # two parts are exchanged
            to = chance.randrange(len(out))
            size = min(size, 64)
            out[at : at + size], out[to : to + size] = out[to : to + size], out[at : at + size]
        case _:  # the beginning of one file and the end of another
            end = other or bytes(out)
            return bytes(out[:at]) + end[chance.randrange(len(end)) :]
    return out


def changed(value: Any, chance: random.Random, other: Sequence[Any] = ODD) -> Any:
    """A JSON value with one to three of its parts replaced, removed, repeated, renamed or nested.

    Args:
        value: the value; it is not changed itself.
        chance: random numbers.
        other: what may replace a part, besides numbers.
    """
    root = [copy.deepcopy(value)]
    for _ in range(chance.choice((1, 1, 2, 3))):
        holder, place = chance.choice([*_places(root)])
        found = holder[place]
        match chance.randrange(8):
            case 0 | 1:
                holder[place] = chance.choice(NUMBERS)
            case 2:
                holder[place] = copy.deepcopy(chance.choice(other))
            case 3 if holder is not root:
                del holder[place]
            case 4 if isinstance(holder, dict):
                holder[chance.choice(ODD_TEXT)] = holder.pop(place)
            case 5 if isinstance(found, list):
                found.extend(copy.deepcopy(found) * chance.choice((1, 9, 300)))
            case 6 if isinstance(found, str):
                holder[place] = words(found, chance)
            case _:
                holder[place] = [found] if chance.randrange(2) else {"a": found}
    return root[0]


def _places(holder: Any) -> Any:
    for place in [*holder] if isinstance(holder, dict) else range(len(holder)):
        yield holder, place
        if isinstance(holder[place], dict | list):
            yield from _places(holder[place])


def as_json(value: Any, chance: random.Random) -> bytes:
    """JSON of a changed value, which may itself be damaged, nested deeply, or in another encoding."""
    text = json.dumps(changed(value, chance))
    match chance.randrange(12):
        case 0:
            return damaged(text.encode(), chance)
        case 1:
            return words(text, chance).encode("utf-8", "surrogatepass")
        case 2:
            nest = chance.choice(("[", '{"a":'))
            deep = nest * chance.choice((100, 900, 990, 1000, DEEP))
            end = "" if chance.randrange(2) else "0" + {"[": "]", '{"a":': "}"}[nest] * deep.count(nest)
            places = [found.start() for found in re.finditer(r"(?<=: )", text)] or [0]
            at = chance.choice(places)
            stop = re.compile(r"[,}\]]|$").search(text, at)
            assert stop
            return (text[:at] + deep + end + text[stop.start() :]).encode()
        case 3:
            return text.encode(chance.choice(("utf-16", "utf-8-sig", "utf-32")))
        case 4:
            return re.sub(r"\d+", lambda one: one[0] + "9" * chance.choice((0, 0, 30, 5000)), text).encode()
    return text.encode()


def words(text: str, chance: random.Random) -> str:
    """A text with tokens exchanged, repeated, removed or replaced by numbers and odd characters."""
    tokens = re.findall(r"\w+|\s+|[^\w\s]", text) or [""]
    for _ in range(chance.choice((1, 1, 2, 3))):
        at, to = chance.randrange(len(tokens)), chance.randrange(len(tokens))
        match chance.randrange(7):
            case 0:
                tokens[at], tokens[to] = tokens[to], tokens[at]
            case 1:
                tokens[at] = str(chance.choice(NUMBERS))
            case 2:
                tokens[at] = chance.choice(ODD_TEXT)
            case 3:
                tokens[at] *= chance.choice((0, 2, 50))
            case 4:
                tokens.insert(at, chance.choice(string.punctuation + "\0\r\n\x1b\u2028\u202e é💥"))
            case 5:
                tokens.insert(at, chr(chance.choice((chance.randrange(1, 0xD800), chance.randrange(0xE000, 0x110000)))))
            case _:
                del tokens[at:to]
                tokens = tokens or [""]
    return "".join(tokens)
