"""Run several configs one after the other and set their results side by side: `python -m hiddennet.compare A B ...`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from hiddennet.run import main_of
from hiddennet.tables import aligned


def compare(names: Sequence[str], overrides: Sequence[str] = (), *, fresh: bool = False) -> list[dict[str, Any]]:
    """Run each config with the same overrides (finished runs are not run again) and return their records.

    Raises ConfigError before anything runs when one of the configs is wrong; else as hiddennet.run.
    """
    from hiddennet import config
    from hiddennet.train import experiment

    configs = [config.load(name, list(overrides)) for name in names]
    return [experiment.run(one, fresh=fresh) for one in configs]


def side_by_side(records: Sequence[dict[str, Any]]) -> str:
    """The records as one table, a line a run; "before": the accuracy before the sub-network's weights were trained."""
    from hiddennet.train.stages import before_training

    head = ("run", "method", "density", "before", "test top-1", "best epoch by", "artifact", "dense", "seconds")
    lines = [
        (
            record["name"],
            record["method"],
            f"{record['density']:.3f}",
            "-" if (before := before_training(record)) is None else f"{before:.2%}",
            f"{record['test_top1']:.2%}",
            record["selection"],
            f"{record['artifact_bytes']:,} B",
            f"{record['dense_bytes']:,} B",
            f"{record['seconds']:.1f}",
        )
        for record in records
    ]
    return aligned([head, *lines])


def execute(arguments: argparse.Namespace) -> int:
    names = [argument for argument in arguments.configs if "=" not in argument]
    overrides = [argument for argument in arguments.configs if "=" in argument]
    if not names:
        raise ValueError("compare: expected at least one config, got none")
    print(side_by_side(compare(names, overrides, fresh=arguments.fresh)))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("configs", metavar="CONFIG|key=value", nargs="+", help="configs, and overrides of all")
    parser.add_argument("--fresh", action="store_true", help="start again, deleting earlier runs of these configs")


def main(argv: Sequence[str] | None = None) -> int:
    return main_of("compare", __doc__, add_arguments, execute, argv)


if __name__ == "__main__":
    sys.exit(main())
