"""Which file of the repository each page of the site is, and where links lead. Needs no MkDocs."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# pages that lie outside docs/, by the address that they have on the site
OUTSIDE = {
    "README.md": "index.md",
    "configs/README.md": "configs.md",
    "bench/README.md": "bench.md",
    "csrc/README.md": "kernels.md",
    "CHANGELOG.md": "changes.md",
    "examples/plugin": "plugin.md",
    **{
        path.relative_to(ROOT).as_posix(): f"ladders/{'-'.join(path.parent.relative_to(ROOT / 'csrc').parts)}.md"
        for path in sorted((ROOT / "csrc").rglob("LADDER.md"))
    },
}
FENCE = re.compile(r"^ *(`{3,})[^`]*\n.*?^ *\1`* *$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?P<path>[^)#\s:]*)(?P<anchor>#[^)\s]*)?(?=\))")


def address(path: str) -> str:
    """Of a file or folder of the repository: its page, or where the file itself lies on the site."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if path.startswith("docs/"):
        inner = path.removeprefix("docs/")
        return inner.removesuffix(".ipynb") + ".md" if inner.endswith(".ipynb") else inner
    return f"files/{path}"


def target(link: str, home: str) -> str | None:
    """The file or folder that a link in the file `home` means, from the repository's root; None: there is none."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(home), link))
    if (ROOT / path).is_dir() and (ROOT / path / "README.md").exists():
        path += "/README.md"
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with what stands outside of fenced code changed."""
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def links(text: str) -> list[tuple[str, str]]:
    """Path and anchor of every link that stays in the repository."""
    found: list[tuple[str, str]] = []

    def look(part: str) -> str:
        found.extend((one["path"], one["anchor"] or "") for one in LINK.finditer(part) if one.group())
        return part

    outside_code(text, look)
    return found


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as a plain view of the repository and the site make them."""
    found: list[str] = []

    def look(part: str) -> str:
        for heading in re.findall(r"^#+ +(.+?)\s*$", part, re.MULTILINE):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
            found.append(re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-"))
        return part

    outside_code(text, look)
    return {f"#{name}" for name in found}


def on_the_site(text: str, home: str, used: Callable[[str], None] = lambda path: None) -> str:
    """The text of the file `home` with its links as they are on the site. used: told of each file that is linked."""
    here = posixpath.dirname(address(home))

    def lead(one: re.Match) -> str:
        if not one["path"]:
            return one.group()
        path = target(one["path"], home)
        if path is None:
            return one.group()  # MkDocs says so
        used(path)
        return os.path.relpath(address(path), here or ".") + (one["anchor"] or "")

    return outside_code(text, lambda part: LINK.sub(lead, part))


def folder(path: str, words: str) -> str:
    """A page of a folder's files, each in full."""
    kinds = {".py": "python", ".yml": "yaml"}
    parts = [words]
    for file in sorted((ROOT / path).iterdir()):
        if file.suffix in kinds:
            parts.append(f"## {file.name}\n\n```{kinds[file.suffix]}\n{file.read_text(encoding='utf-8')}```\n")
    return "\n".join(parts)
