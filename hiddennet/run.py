"""Run a config: `python -m hiddennet.run CONFIG [key=value ...]`, also under torchrun."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from hiddennet import _start

HELD = 75  # exit status where another process is at work in the run's folder; "try again later" of sysexits.h


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a file, or a name under configs/; family@variant")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="such as optimizer.lr=0.05 seed=1")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N; short for train.device=...")
    parser.add_argument("--amp", choices=("auto", "float32", "bf16"), help="short for train.amp=...")
    said = "begin with what a finished run of the same config with fewer train.epochs ended with"
    parser.add_argument("--extend", metavar="RUN", help=said)
    parser.add_argument("--fresh", action="store_true", help="start again, deleting this config's earlier run")


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """The overrides that the arguments stand for."""
    found = list(arguments.overrides)
    found += [f"train.device={arguments.device}"] if arguments.device else []
    return found + ([f"train.amp={arguments.amp}"] if arguments.amp else [])


def execute(arguments: argparse.Namespace) -> int:
    """Run what the arguments say; return the exit status."""
    from hiddennet import config
    from hiddennet.train import experiment

    one = config.load(arguments.config, overrides_of(arguments))
    experiment.run(one, fresh=arguments.fresh, extend=arguments.extend)
    return 0


def main_of(name: str, said: str | None, add: Callable, action: Callable, argv: Sequence[str] | None) -> int:
    """A command line of one command; returns the exit status. name: of the module; said: what it does."""
    parser = argparse.ArgumentParser(prog=f"python -m hiddennet.{name}", description=said)
    add(parser)
    arguments = parser.parse_intermixed_args(argv)
    return guarded(lambda: action(arguments), f"hiddennet {name}")


def guarded(action: Callable[[], int], name: str) -> int:
    """Call `action`; turn mistakes into one sentence on stderr, signals into their exit status.

    Errors that were not written for the user keep their traceback; HIDDENNET_TRACEBACK=1 keeps all.
    """
    import torch

    from hiddennet.train.folder import HeldError
    from hiddennet.train.ranks import lost
    from hiddennet.train.signals import Stopped

    _start.begin()
    try:
        return action()
    except HeldError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return HELD
    except Stopped as stop:
        if os.environ.get("RANK", "0") == "0":
            print(f"{name}: stopped by {stop}, saved; the same command goes on", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print(f"{name}: stopped by SIGINT", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except torch.OutOfMemoryError as error:
        print(
            f"{name}: the GPU's memory is full ({str(error).splitlines()[0]}); raise "
            "train.accumulate, or lower data.batch_size or model.width",
            file=sys.stderr,
        )
        return 1
    except Exception as error:
        if lost(error) and os.environ.get("HIDDENNET_TRACEBACK") != "1":
            print(
                f"{name}: another process of the run has ended, see what it said ({str(error).splitlines()[0]:.90}); "
                "the same command goes on from the last checkpoint",
                file=sys.stderr,
            )
            return 1
        if os.environ.get("HIDDENNET_TRACEBACK") == "1" or not isinstance(error, _worded()):
            raise
        print(f"{name}: {error}", file=sys.stderr)
        return 1


def _worded() -> tuple[type[BaseException], ...]:
    """Errors whose text is written for the user."""
    from hiddennet.models.dnw import NotConverged
    from hiddennet.train.checkpoint import CheckpointError
    from hiddennet.train.folder import RunError

    return ValueError, OSError, CheckpointError, RunError, NotConverged


def main(argv: Sequence[str] | None = None) -> int:
    return main_of("run", __doc__, add_arguments, execute, argv)


if __name__ == "__main__":
    from hiddennet.train.ranks import leave

    leave(main())
