"""More epochs for a run that is finished: a new run that begins with what the old one ended with.

Learning rates are those that the new config's schedule has in those epochs, as if the run had been meant to be so long
from its beginning: a constant or stepped one goes on, a cosine rises again to where it is by then. Another schedule may
be given.
"""

from pathlib import Path
from typing import Any

from hiddennet.config import Config, digest
from hiddennet.config.identity import flat, identity
from hiddennet.train import checkpoint
from hiddennet.train.folder import RunFolder
from hiddennet.train.session import Session


def _unchangeable(config: Config) -> dict[str, Any]:
    """What of a config an extension may not change, by dotted keys."""
    return {
        key: v for key, v in flat(identity(config)).items() if key != "train.epochs" and not key.startswith("schedule.")
    }


def begin(session: Session, run: str) -> dict[str, Any]:
    """Fill the session's folder from the finished run in the folder `run`, and return the checkpoint to resume.

    Raises ValueError, RunError or ConfigError, writing nothing, where it cannot be extended so.
    """
    old, config, key = RunFolder(Path(run).expanduser()), session.config, "--extend"
    before, record = old.read_config(), old.read_record()
    if not record.get("finished"):
        raise ValueError(f"{key}: expected a finished run, got {run}; the command that began it goes on with it")
    ours, theirs = _unchangeable(config), _unchangeable(before)
    other = next((k for k in sorted(ours.keys() | theirs.keys()) if ours.get(k) != theirs.get(k)), None)
    if other is not None:
        got, want = (found.get(other, "the default") for found in (ours, theirs))
        raise ValueError(
            f"{key}: expected {other} as {run} has it ({want}), got {got}; train.epochs and schedule may differ"
        )
    if not session.method.extends or len(session.plan.stages) > 1 or len(record["stages"]) > 1:
        raise ValueError(
            f"{key}: expected a run whose epochs do not depend on how many follow, got method {config.method.name} "
            "as it is set here; start it anew"
        )
    if session.plan.epochs <= record["epochs"]:
        raise ValueError(f"{key}: expected more epochs than the {record['epochs']} of {run}, got {session.plan.epochs}")
    states = {name: checkpoint.load(getattr(old, name)) for name in ("first", "best", "last")}
    for name, state in states.items():  # the last one last: it makes the run
        state["config"] = digest(config)
        state["progress"]["id"] = session.progress.id
        for entry in state["progress"]["stages"]:
            entry |= session.plan.entry(0)
        checkpoint.save(getattr(session.folder, name), {k: v for k, v in state.items() if k != "format"})
    return checkpoint.load(session.folder.last)
