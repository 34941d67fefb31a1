"""Text tables for the terminal, a page and a README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        return to_markdown(self)


def number(value: float, spec: str) -> str:
    """Format a number, but never as a negative zero such as "-0"."""
    text = format(value, spec)
    return text if text.strip("+-0.") else text.replace("-", "+" if spec.startswith("+") else "")


def to_markdown(table: Table) -> str:
    """Format a table for a README."""

    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"

    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    return f"{table.title}:\n\n{row(table.columns)}{row(rule)}{''.join(map(row, table.rows))}"


def to_html(table: Table) -> str:
    """Format a table with its title for a page (:func:`framecast.html.document`). Rows of means are highlighted."""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        f"<tr{' class=mean' * row[0].startswith('mean ')}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in table.rows
    )
    return f"<h2>{escape(table.title)}</h2><div class='scroll'><table><tr>{head}</tr>{rows}</table></div>\n"
