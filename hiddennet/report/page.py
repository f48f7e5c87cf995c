"""HTML of one page that needs nothing else: escaped text, tables, images as data. Not what is on it: command.py."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1, caption: str = "", total: bool = False
) -> str:
    """A table whose first `text` columns are words and the others numbers; `total`: the last row is one."""

    def line(cells: Sequence[str], tag: str, last: bool = False) -> str:
        kinds = [' class="text"' if index < text else "" for index in range(len(cells))]
        inner = "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))
        return f'<tr class="total">{inner}</tr>' if last else f"<tr>{inner}</tr>"

    body = "\n".join(line(row, "td", total and row is rows[-1]) for row in rows)
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{said}<thead>{line(head, "th")}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def image(png: bytes, said: str) -> str:
    """A PNG inside the page, with a caption."""
    data = base64.b64encode(png).decode()
    said = escape(said, quote=True)
    return f'<figure><img src="data:image/png;base64,{data}" alt="{said}"><figcaption>{said}</figcaption></figure>'


def section(title: str, *parts: str) -> str:
    """Parts under a heading."""
    return "\n".join([f"<section><h2>{escape(title)}</h2>", *parts, "</section>"])


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; kind: its class."""
    return f"<p{f' class={kind!r}' if kind else ''}>{escape(text)}</p>"


def items(texts: Sequence[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def fold(title: str, *parts: str) -> str:
    """Parts that show when the title is clicked."""
    return "\n".join([f"<details><summary>{escape(title)}</summary>", *parts, "</details>"])


def code(text: str) -> str:
    """Lines as they are."""
    return f"<pre>{escape(text)}</pre>"


def page(title: str, subtitle: str, parts: Sequence[str]) -> str:
    """The whole document."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>",
            f'<h1>{escape(title)}</h1>\n<p class="quiet">{escape(subtitle)}</p>',
            *parts,
            "</body>\n</html>\n",
        ]
    )
