"""A config's whole run: folder, start or resume, epochs, results, artifact. The driver's middle."""

import contextlib
import datetime
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import torch

from hiddennet import artifact
from hiddennet.config import Config, digest
from hiddennet.files import append_row, put_aside
from hiddennet.settings.errors import shown
from hiddennet.tables import named
from hiddennet.train import checkpoint, machine
from hiddennet.train import extend as extension
from hiddennet.train.build import build_data, build_model, check_batches, check_contents, contents
from hiddennet.train.console import Console, clock
from hiddennet.train.evaluate import metadata
from hiddennet.train.folder import RunError, RunFolder, commit, versions
from hiddennet.train.ranks import Ranks
from hiddennet.train.session import Session
from hiddennet.train.stages import StagePlan


def run(config: Config, *, fresh: bool = False, extend: str | None = None, bar: bool | None = None) -> dict[str, Any]:
    """Run the config to its end, from where it was left if it was begun, and return its record.

    fresh: start again, deleting what an earlier run of the same config left. extend: the folder of a finished run of
    fewer epochs, with whose end a run that is not begun yet begins, see extend.py. bar: a progress bar;
    None: on a terminal.

    Raises RunError, CheckpointError, ValueError and FileNotFoundError with a sentence for the
    user, and Stopped after SIGINT or SIGTERM with the state saved.
    """
    ranks = Ranks()
    device = machine.choose_device(config.train.device, ranks.local_rank)
    console = Console(ranks.first, bar)
    folder = RunFolder.of(config)
    machine.set_deterministic(config.train.deterministic)
    ranks.start(device)
    try:
        with folder.held() if ranks.first else contextlib.nullcontext():
            if fresh and ranks.first:
                folder.clear()
            record = ranks.share(folder.read_record() if ranks.first else None, device)
            if record.get("finished"):
                _check_record(record, folder)
                if ranks.first and "contents" in record:
                    check_contents(config, record["contents"], contents(config))
                said = f"{folder.path} was finished on {record['finished']} ({record['device']}); "
                console.say(f"{said}--fresh starts it again\n{summary(record)}")
                return record
            return _run(config, device, ranks, folder, console, extend)
    finally:
        ranks.stop()


def _check_record(record: dict[str, Any], folder: RunFolder) -> None:
    try:
        summary(record)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise RunError(
            f"run: expected the record of a finished run in {folder.record}, got one without its results "
            f"({type(error).__name__}: {error}); delete it, and the same command writes it anew"
        ) from None


def _run(
    config: Config, device: torch.device, ranks: Ranks, folder: RunFolder, console: Console, extend: str | None = None
) -> dict[str, Any]:
    begun, results = time.perf_counter(), folder.path.parents[1] / "results.csv"
    _say_aside(console, results, put_aside(results, "id") if ranks.first else None)
    data = build_data(config, device, ranks)
    model, method = build_model(config, data.num_classes, data.in_channels, data.image_size)
    for note in (*data.notes, *method.notes, *check_batches(config, data, model, ranks.world)):
        console.say(f"note: {note}")
    run_id = ranks.share(secrets.token_hex(8), device)
    session = Session(config, data, model, method, device, ranks, folder, console, run_id)
    for note in unreached(config, session.plan):
        console.say(f"note: {note}")
    extended = _start_or_resume(session, extend)
    earlier = folder.read_record() if session.progress.step else {}
    record = {**_facts(session), "started": earlier.get("started") or _now(), "finished": None}
    record["extends"] = earlier.get("extends") or extended
    if ranks.first:
        folder.write_record(record)
    session.train()
    with contextlib.closing(session.telling):
        record |= _results(session)
        told = ("test_top1", "test_top5", "test_loss", "density")
        session.telling.finish({key: record[key] for key in told}, record["best_epoch"])
    record |= {
        "finished": _now(),
        "seconds": round(sum(row["seconds"] for row in session.progress.history), 3),
        "session_seconds": round(time.perf_counter() - begun, 3),
        "peak_memory_bytes": machine.peak_memory(device),
    }
    if ranks.first:
        _say_aside(console, results, append_row(results, _row(record), key="id"))
        folder.write_record(record)
    record = ranks.share(record, device)
    console.say(summary(record))
    return record


def _say_aside(console: Console, results: Path, aside: Path | None) -> None:
    if aside is not None:
        console.say(f"note: {results} could not be read as a table with a column id, and is now {aside}")


def _start_or_resume(session: Session, run: str | None) -> str | None:
    """Returns the run that this one was begun from now, or None. run: the one to begin from."""
    folder, ranks, config = session.folder, session.ranks, session.config
    state = None
    if ranks.first:
        folder.start(config)
        if folder.last.is_file():
            state = checkpoint.load(folder.last)
            if state.get("config") != digest(config):
                raise checkpoint.CheckpointError(
                    f"checkpoint: expected one of config {digest(config)} in {folder.last}, "
                    f"got one of {shown(state.get('config'))}; start again with --fresh"
                )
            run = None
        elif run is not None:
            state = extension.begin(session, run)
        if state is not None:
            check_contents(config, state.get("contents"), session.data.contents)
    state = ranks.share(state, session.device)
    name, epochs = config.name, session.plan.epochs
    if state is None:
        session.begin_computing()
        session.console.say(f"run {folder.path}: {name}, {epochs} epochs on {session.device} in {session.precision}")
        session.begin()
        return None
    session.resume(state)
    progress = session.progress
    session.console.say(
        f"run {folder.path}: {name} goes on with epoch {progress.epoch + 1} of {epochs}"
        + (f", batch {progress.batch + 1}" if progress.batch else "")
        + (f", from {run}, at the learning rates of a run of {epochs} epochs" if run is not None else "")
        + f", in {session.precision.dtype} as it began"
    )
    return run


def unreached(config: Config, plan: StagePlan) -> list[str]:
    """Sentences on epochs that the config names and no stage has."""
    found = [("train.save_epochs", epoch, plan.epochs) for epoch in config.train.save_epochs if epoch > plan.epochs]
    for stage in plan.stages:
        milestones = getattr(stage.schedule, "milestones", [])
        length = stage.epochs if stage.length is None else stage.length
        found += [(f"schedule.milestones of {stage.name}", m, length) for m in milestones if m >= length]
    return [f"{key}: epoch {epoch} of {epochs} is never reached" for key, epoch, epochs in dict.fromkeys(found)]


def _facts(session: Session) -> dict[str, Any]:
    config = session.config
    return {
        "id": session.progress.id,
        "run": str(session.folder.path),
        "name": config.name,
        "config": digest(config),
        "method": config.method.name,
        "model": config.model.name,
        "data": config.data.name,
        "contents": session.data.contents,
        "seed": config.seed,
        "epochs": session.plan.epochs,
        "selection": config.train.selection,
        "parameters": session.parameters,
        "device": machine.describe(session.device),
        "dtype": session.precision.dtype,
        "dtype_why": session.precision.why,
        "processes": session.ranks.world,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "commit": commit(),
        "command": sys.argv,
        "notes": session.method.notes,
    }


def _results(session: Session) -> dict[str, Any]:
    """Scores of the best epoch's weights, and their artifact."""
    progress = session.progress
    if progress.best is None:  # no epoch at all: the network as it was drawn
        scores = {name: session.engine.evaluate(s) for name, s in session.watched().items()}
        progress.best = {"epoch": 0}
        for name, found in scores.items():
            progress.best |= found.columns(name)
        session.save(session.folder.best, full=False)
    best, last = progress.best, progress.history[-1] if progress.history else {}
    after_last = session.score("test").top1 if last and best["epoch"] != last["epoch"] else None
    session.load_best()
    test = session.score("test")
    session.end_stage(test.top1, best)
    found: dict[str, Any] = {
        "best_epoch": best["epoch"],
        "density": session.method.density(session.model),
        "validation_top1": best.get("validation_top1"),
        "validation_top5": best.get("validation_top5"),
        "test_top1": test.top1,
        "test_top5": test.top5,
        "test_loss": test.loss,
        "train_top1": best.get("train_top1"),
        "last_validation_top1": last.get("validation_top1"),
        "last_test_top1": test.top1 if after_last is None else after_last,
        "stages": progress.stages,
    }
    if session.ranks.first:
        found |= _export(session, test.top1)
    return found


def _export(session: Session, accuracy: float) -> dict[str, Any]:
    model, path = session.model, session.folder.artifact
    artifact.export(model, path, metadata=metadata(session.config, model, accuracy, session.data.contents))
    sizes = artifact.sizes(path)
    return {"artifact": str(path), **{key: sizes[key] for key in ("artifact_bytes", "dense_bytes")}}


_COLUMNS = (
    *("finished", "run", "name", "config", "method", "model", "data", "density", "seed", "epochs"),
    *("selection", "best_epoch", "validation_top1", "validation_top5", "test_top1", "test_top5"),
    *("train_top1", "last_validation_top1", "last_test_top1", "artifact_bytes", "dense_bytes"),
    *("seconds", "peak_memory_bytes", "device", "dtype", "commit", "id"),
)


def _row(record: dict[str, Any]) -> dict[str, Any]:
    found = {name: record.get(name) for name in _COLUMNS}
    return {name: "" if value is None else value for name, value in found.items()}


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def summary(record: dict[str, Any]) -> str:
    """The record's results as a table for the console."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.2%}"

    size, dense = record["artifact_bytes"], record["dense_bytes"]
    rows = {
        "method": f"{record['method']}, {record['model']} on {record['data']}",
        "density": f"{record['density']:.4f}",
        "best epoch": f"{record['best_epoch']} of {record['epochs']}, chosen by {record['selection']} accuracy",
        "validation accuracy": f"{percent(record['validation_top1'])} top-1",
        "test accuracy": f"{percent(record['test_top1'])} top-1, "
        f"{percent(record['test_top5'])} top-5, at the best epoch",
        "artifact": f"{size:,} bytes; dense float32: {dense:,} bytes ({dense / size:.1f} x)",
        "time": f"{clock(record['seconds'])} on {record['device']}",
        "folder": record["run"],
    }
    stages = record.get("stages", [])
    if stages and "alive_density" in stages[-1]:
        alive = stages[-1]
        share = f"{alive['alive_multiply_adds']:.2%} of the multiply-adds"
        rows["alive"] = f"{alive['alive_density']:.4f} of the hidden weights lie on a path through the network; {share}"
    stages = stages[:-1]
    if stages:
        told = [f"{stage['name']} {percent(stage['test_top1'])} at {stage['density']:.4f}" for stage in stages[-4:]]
        rows["stages before"] = ", ".join(["..."] * (len(stages) > 4) + told)
    return named(record["name"], rows)
