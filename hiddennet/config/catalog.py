"""The shipped configs and sweeps with what they are: `hiddennet list configs`, and configs/README.md.

`python -m hiddennet.config.catalog > configs/README.md` writes the page anew. What a config is stands in the comment
above it.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path

from hiddennet.config import families
from hiddennet.config.load import folders, is_sweep, read
from hiddennet.registry import nearest

HEAD = """# The configs

This page is written by `python -m hiddennet.config.catalog > configs/README.md` from the files themselves.

A file is a config, or a family of them: `hiddennet run digits` runs `digits.yml`, `hiddennet run digits@imp` its
variant `imp`, whose run is called `digits-imp`, a name that it answers to as well. Folders may be left out where one
file has the name. Rows that count their runs are sweeps: `hiddennet sweep compare@digits --workers 2`. Every key can
be overridden: `method.density=0.3 seed=1`. Files in `base/` and names that begin with `_` are pieces that others
extend.

How these relate to the originals' experiments: [docs/papers.md](../docs/papers.md).
"""


@dataclass(frozen=True)
class Entry:
    """A config or a sweep: where it is, its name under configs/, the lines on what it is, how many runs a sweep has."""

    place: Path
    name: str
    about: tuple[str, ...]
    runs: int | None = None

    def __str__(self) -> str:
        return f"{self.name}  {self.about[0]}" + ("" if self.runs is None else f" ({self.runs} runs)")


def entries() -> Iterator[Entry]:
    """Every config and sweep, file by file."""
    for folder in folders():
        for file in sorted(folder.rglob("*.yml"), key=lambda path: (path.parent, path)):
            if file.parent.name == "base":
                continue
            for variant in ("", *families.names(file)):
                place = families.join(file, variant)
                document = read(place)
                sweep = is_sweep(document)
                if not sweep and not families.by_itself(place):
                    continue  # what its variants share, no config by itself
                name = families.join(file.relative_to(folder).with_suffix(""), variant)
                runs = None
                if sweep:
                    axes = [len(values) for values in document.get("grid", {}).values()]
                    runs = math.prod(axes) * len(document.get("runs", [{}]))
                yield Entry(place, str(name), _comment(file, variant), runs)


def _comment(file: Path, variant: str = "") -> tuple[str, ...]:
    """The lines of the comment at the head of a file or above a variant."""
    block = r"(?:^ *# .*\n)+"
    pattern = rf"{block}^  {re.escape(variant)}:" if variant else rf"\A{block}"
    found = re.search(pattern, file.read_text(encoding="utf-8"), re.M)
    lines = found[0].splitlines() if found else []
    return tuple(line.strip()[2:] for line in lines if line.lstrip().startswith("# ")) or ("",)


def listing(pattern: str = "*") -> str:
    """A line for each config or sweep whose name has `pattern` in it, or matches it where it has a * or ?.

    Raises ValueError where none does.
    """
    known = list(entries())
    glob = pattern if set("*?[") & set(pattern) else f"*{pattern}*"
    lines = [str(entry) for entry in known if fnmatchcase(entry.name, glob)]
    if not lines:
        hint = nearest(pattern, [entry.name for entry in known])
        raise ValueError(f"list configs: expected a part of a config's name, got {pattern!r}{hint}")
    return "\n".join(lines)


def page() -> str:
    """configs/README.md."""
    parts = [HEAD]
    for folder, inside in groupby(entries(), lambda entry: entry.name.rpartition("/")[0]):
        parts.append(f"## {f'{folder}/' if folder else 'To start with'}\n")
        for file, members in groupby(inside, lambda entry: families.split(entry.place)[0]):
            listed = list(members)
            if listed[0].place != file:  # a family that is no config itself has its own line
                parts.append(" ".join(_comment(file)) + "\n")
            parts.append("| name | what it is | runs |\n|---|---|---|")
            parts += [
                f"| `{one.name.rpartition('/')[2]}` | {' '.join(one.about)} | {one.runs or ''} |" for one in listed
            ]
            parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
