"""Text tables of equal columns, and means over seeds in words. Not HTML: hiddennet.report."""

import statistics
from collections.abc import Mapping, Sequence


def aligned(lines: Sequence[Sequence[str]], left: int | None = None) -> str:
    """Lines of as many cells each as text, column under column; the first `left` (None: all) columns are flush left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if left is None or i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def named(title: str, rows: Mapping[str, str]) -> str:
    """Name and value a line, aligned, under a title."""
    return "\n".join([title, *(f"  {line}" for line in aligned(list(rows.items())).splitlines())])


def mean_and_spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation (of the sample, n - 1) of accuracies, in per cent."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if len(known) == 1:
        return f"{known[0]:.2%}"
    return f"{statistics.fmean(known):.2%} ± {100 * statistics.stdev(known):.2f}"
