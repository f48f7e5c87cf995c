"""A run from its first epoch, or where it was left, to its last. Not its results: experiment.py."""

import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from hiddennet.config import Config, digest
from hiddennet.config.identity import flat
from hiddennet.data import Data
from hiddennet.loggers import Metrics, of_the_run
from hiddennet.methods import Method
from hiddennet.nn import hidden_layers, refresh
from hiddennet.optim import whole_gradients
from hiddennet.registry import REGISTRIES
from hiddennet.train import checkpoint, machine
from hiddennet.train.console import Console, Telling
from hiddennet.train.engine import Engine, batches
from hiddennet.train.folder import RunError, RunFolder
from hiddennet.train.precision import Precision, decide, of_checkpoint
from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter, Scores
from hiddennet.train.searches import Searches
from hiddennet.train.signals import Stopped, StopWish
from hiddennet.train.stages import StagePlan, alive_report

FIRST_LOOK = 3  # the step after which is looked for layers without a gradient


@dataclass
class Progress:
    """How far a run is; plain values, part of every checkpoint."""

    id: str
    epoch: int = 0  # the epoch at work, from 0
    batch: int = 0  # its batches that are done; all of them: only its evaluation is to be done
    ended: bool = False  # what the method does before that evaluation is done
    step: int = 0  # optimiser steps of the whole run
    stage: int = 0  # of the method
    seconds: float = 0.0  # spent on the epoch at work
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None  # the row of the best epoch of the last stage
    stages: list[dict[str, Any]] = field(default_factory=list)  # one entry a stage that was entered


class Session:
    """The loop over epochs with its state."""

    def __init__(
        self,
        config: Config,
        data: Data,
        model: nn.Module,
        method: Method,
        device: torch.device,
        ranks: Ranks,
        folder: RunFolder,
        console: Console,
        run_id: str,
    ):
        self.config, self.data, self.method, self.device = config, data, method, device
        self.ranks, self.folder, self.console = ranks, folder, console
        self.progress = Progress(run_id)
        self.model, self.parameters = model, sum(p.numel() for p in model.parameters())  # as the run starts
        method.steps_per_epoch, method.data, method.ranks = len(data.train), data, ranks
        self.plan = StagePlan(method.stages, len(data.train))
        self.engine = Engine(model, config, device, ranks, method)
        self.precision: Precision | None = None  # until the run begins, or goes on
        self.meter = Meter(device)
        self.density = method.density(model)
        self.split = config.train.selection
        self.telling, self.searches = Telling(), Searches()
        self._resumed_random: dict[str, Any] | None = None
        self._evaluation_seconds = 0.0

    # checkpoints

    def state(self, full: bool = True) -> dict[str, Any]:
        """What a checkpoint holds; without `full` only what evaluation needs."""
        state: dict[str, Any] = {
            "config": digest(self.config),
            "contents": self.data.contents,
            "progress": asdict(self.progress),
            "architecture": self.model.architecture,
            "model": dict(self.model.state_dict()),
            "method": self.method.state(),
        }
        if full:
            optimizer = self.engine.optimizer
            state |= {
                "optimizer": optimizer.state_dict() if optimizer is not None else None,
                "meter": self.ranks.gather(self.meter.state()),
                "carried": self.engine.carried(),
                "random": checkpoint.random_state(),
                "device": self.device.type,
                "world": self.ranks.world,
                "threads": torch.get_num_threads(),
                "precision": asdict(self.precision),
            }
        return state

    def save(self, path, full: bool = True) -> None:
        """Write a checkpoint; rank 0 does, after all have told it what they have counted."""
        state = self.state(full)
        if self.ranks.first:
            checkpoint.save(path, state)

    def resume(self, state: dict[str, Any]) -> None:
        """Go back to where a full checkpoint was written. Raises CheckpointError for one that no run of this config
        writes."""
        path = self.folder.last
        with checkpoint.taking(state, path, full=True):
            checkpoint.check_progress(state, path, self.plan, self.split)
            self.progress = Progress(**state["progress"])
            self._compute_in(of_checkpoint(state, self.config.train.amp))
            self.method.restore(state["method"])
            self.method.remake(self.model, self.progress.stage)
            self.model.load_state_dict(state["model"])
            self.engine.begin_stage(self.plan.stages[self.progress.stage].optimizer)
            if self.engine.optimizer is not None:
                self.engine.optimizer.load_state_dict(state["optimizer"])
                checkpoint.check_optimizer(self.engine.optimizer, path)
            meter, carried = state["meter"], state["carried"]  # of one rank alone in older checkpoints
            self.meter.restore(meter if isinstance(meter, list) else [meter], self.ranks)
            self.engine.carry(carried if isinstance(meter, list) else [carried])
            checkpoint.set_random_state(state["random"])
            if self.progress.batch:
                self._resumed_random = state["random"]
            self.density = self.method.density(self.model)
        threads = state.get("threads", torch.get_num_threads())
        if self.config.train.deterministic:
            torch.set_num_threads(threads)
        here = {"device": self.device.type, "world": self.ranks.world, "threads": torch.get_num_threads()}
        for key, now in here.items():
            if state.get(key, now) != now:
                self.console.say(
                    f"note: the run was on {key}={state[key]} and goes on with {now}; "
                    "the results are no longer those of one machine to the bit"
                )

    def begin_computing(self) -> None:
        """Decide on the dtype of the run, the first rank for all. May take a second or two."""
        images = self.data.in_channels, self.data.image_size
        given = self.config, self.model, images, self.device, self.ranks.world
        found = decide(*given) if self.ranks.first else None
        self._compute_in(self.ranks.share(found, self.device))

    def _compute_in(self, precision: Precision) -> None:
        self.precision, self.engine.autocast = precision, precision.autocast

    def begin(self) -> None:
        """Let the method do what comes before the first step; keep the network as it starts."""
        self.console.say(*self.method.begin(self.model))
        self.density = self.method.density(self.model)
        self.save(self.folder.first)
        self.save(self.folder.last)

    def load_best(self) -> None:
        """Take the weights of the best epoch."""
        state = checkpoint.load(self.folder.best) if self.ranks.first else None
        state = self.ranks.share(state, self.device)
        with checkpoint.taking(state, self.folder.best):
            self.model.load_state_dict(state["model"])
        refresh(self.model)

    # epochs

    def train(self) -> None:
        """Run all epochs that are left; `telling` goes on. Raises Stopped after a signal, RunError on a broken run."""
        progress = self.progress
        config = {k: v for k, v in flat(self.config.model_dump(mode="json")).items() if v not in (None, [])}
        within = self.meter.read(self.ranks)[0] if progress.batch else None
        chosen = [Metrics, *map(REGISTRIES["logger"].find, self.config.train.loggers)] if self.ranks.first else []
        self.telling = Telling(make(self.folder.path, progress.history) for make in chosen)
        try:
            self.telling.start(config, progress.step, within, self.model)
            with StopWish() as wish:
                while progress.epoch < self.plan.epochs:
                    self._epoch(wish)
        except BaseException:
            self.telling.close()
            raise
        finally:
            self.console.close()

    def _epoch(self, wish: StopWish) -> None:
        progress, epoch = self.progress, self.progress.epoch
        if progress.batch == 0:
            if not progress.stages:
                self._begin_stage(self.score("test").top1)
            while epoch >= self.plan.first_epoch(progress.stage + 1):
                self._next_stage()
            self.console.say(*self.method.on_epoch_start(self.model, epoch))
            self.meter = Meter(self.device)
        lr = self.engine.scale_learning_rates(self.plan.scale(progress.stage, epoch, progress.history))
        self._train_epoch(wish)
        row = self._evaluate_epoch(wish, lr)
        self.telling.add(row, epoch + 1, self.model)
        self._keep(row)

    # stages

    def _next_stage(self) -> None:
        """Leave a stage for the next: keep its last network and what it scores, before and after the change."""
        progress = self.progress
        self.save(self.folder.stage(progress.stage), full=False)
        self.end_stage(self.score("test").top1, progress.history[-1] if progress.history else {})
        progress.stage, progress.best = progress.stage + 1, None
        self.method.enter_stage(self.model, progress.stage)
        self.engine.begin_stage(self.plan.stages[progress.stage].optimizer)
        self.density = self.method.density(self.model)
        self._begin_stage(self.score("test").top1)

    def _begin_stage(self, start: float | None) -> None:
        stage = self.progress.stage
        learn = [p for m in hidden_layers(self.model).values() if (p := m.stored) is not None and p.requires_grad]
        entry = {**self.plan.entry(stage), "weights_learn": bool(learn)}
        self.progress.stages[stage:] = [{**entry, "density": self.density, "start_test_top1": start}]

    def end_stage(self, test_top1: float, row: dict[str, Any]) -> None:
        """Complete the entry of the stage at work. row: the history's of the epoch whose network it is."""
        if not self.progress.stages:
            self._begin_stage(None)
        entry = self.progress.stages[self.progress.stage]
        entry |= {
            "density": self.method.density(self.model),
            "test_top1": test_top1,
            "validation_top1": row.get("validation_top1"),
            **({} if self.engine.text else alive_report(self.model, self.data)),
        }
        name, density = entry["name"], entry["density"]
        if len(self.plan.stages) > 1:
            self.console.say(f"stage {name}: test {test_top1:.2%} top-1 at density {density:.4f}")

    def _train_epoch(self, wish: StopWish) -> None:
        progress, loader = self.progress, self.data.train
        total, every = len(loader), self.config.train.log_every
        self.console.epoch_start(progress.epoch, self.plan.epochs, total, progress.batch)
        self.model.train()
        if progress.batch == 0:
            self.engine.begin_epoch()
        loader.set_epoch(progress.epoch)
        begun, before = time.perf_counter(), progress.seconds
        done, by_iteration = progress.batch, self.plan.by_iteration(progress.stage)
        for index, (images, labels) in enumerate(batches(loader) if done < total else ()):
            if index < done:
                continue  # seen before the run was stopped; the order is a function of the epoch
            self._restore_random()
            if by_iteration:
                at = progress.stage, progress.epoch, progress.history, index
                self.engine.scale_learning_rates(self.plan.scale(*at))
            self.method.before_forward(self.model, progress.step)
            with whole_gradients() if progress.step + 1 == FIRST_LOOK else nullcontext():
                self.engine.step(images, labels, self.meter, self._batch_images(index), progress.step)
            progress.batch, progress.step = index + 1, progress.step + 1
            self.method.after_update(self.model, progress.step)
            progress.seconds = before + time.perf_counter() - begun
            if progress.step == FIRST_LOOK:
                self._say_what_rests()
            look = progress.batch % every == 0 or progress.batch == total
            if look:
                self._look(total)
            if look or self.ranks.world == 1:  # ranks agree where they wait for each other anyway
                self._stop_if_wished(wish)
        progress.seconds = before + time.perf_counter() - begun
        self._resumed_random = None

    def _say_what_rests(self) -> None:
        """By now a scale that began at 0 has moved, if it learns."""
        if self.engine.graph is not None and self.engine.graph.reason is not None:
            self.console.say(f"steps are not captured as a CUDA graph: {self.engine.graph.reason}")
        layers, all_layers = self.engine.without_gradient(), hidden_layers(self.model)
        if layers:
            self.console.say(
                f"warning: {len(layers)} of {len(all_layers)} hidden layers get no gradient ({', '.join(layers[:4])}"
                f"{', ...' if len(layers) > 4 else ''}): what they send is pruned, or multiplied with 0, as by a batch "
                "norm whose scale begins at 0 and does not learn; begin it at 1 (timm: zero_init_last=False), let it "
                "learn (model.batch_norm=affine, where the method trains it), or keep more weights"
            )

    def _restore_random(self) -> None:
        """Starting a loader may draw numbers; the stopped run had drawn them before its state."""
        if self._resumed_random is not None:
            checkpoint.set_random_state(self._resumed_random)
            self._resumed_random = None

    def _batch_images(self, index: int) -> int:
        """Images of a batch over all ranks; the last batch takes what is left."""
        loader = self.data.train
        whole = self.engine.text or index < len(loader) - 1
        return self.config.data.batch_size if whole else loader.order.last_batch

    def _look(self, total: int) -> None:
        """Read the device: show how it goes, refuse a loss or scores that are not finite."""
        progress = self.progress
        scores, finite = self.meter.read(self.ranks)
        lr = self.plan.stages[progress.stage].optimizer.lr
        if not finite or not self.engine.finite():
            what = "loss" if not finite else "scores and weights"
            raise RunError(
                f"training: expected finite {what}, got nan or inf by step {progress.step} "
                f"(epoch {progress.epoch + 1}, batch {progress.batch}); lower optimizer.lr ({lr})"
            )
        said = self.searches.look(self.model, progress.step)
        if said is not None:
            self.console.say(said)
        self.telling.step(scores, progress.step, self.engine.rate)
        rate = scores.images / max(progress.seconds, 1e-9)
        epoch_seconds = progress.seconds * total / progress.batch
        left = epoch_seconds - progress.seconds + self._seconds_after_epoch(epoch_seconds)
        self.console.progress(progress.epoch, progress.batch, total, scores, self.density, rate, left)

    def _seconds_after_epoch(self, epoch_seconds: float) -> float:
        epochs_left = self.plan.epochs - self.progress.epoch - 1
        return epochs_left * (epoch_seconds + self._evaluation_seconds)

    def _stop_if_wished(self, wish: StopWish) -> None:
        signum = self.ranks.largest(wish.signum, self.device)
        if signum:
            self.save(self.folder.last)
            raise Stopped(signum)

    def _evaluate_epoch(self, wish: StopWish, lr: float) -> dict[str, Any]:
        """Evaluate after the epoch's last batch and return its row of metrics.csv."""
        progress, begun = self.progress, time.perf_counter()
        train = self.meter.read(self.ranks)[0]
        if not progress.ended:
            self.console.say(*self.method.before_evaluation(self.model, progress.epoch))
            progress.ended = True
        random = checkpoint.random_state()
        row = {"epoch": progress.epoch + 1, "lr": lr, **train.columns("train")}
        for split, loader in self.watched().items():
            scores = self.engine.evaluate(loader, lambda: wish.signum != 0)
            if scores is None:  # all of it will be done again
                checkpoint.set_random_state(random)
                self._stop_if_wished(wish)
            row |= scores.columns(split)
        self.density = self.method.density(self.model)
        row |= {"density": self.density, **self.method.on_epoch_end(self.model, progress.epoch)}
        self._evaluation_seconds = time.perf_counter() - begun
        row["images_per_second"] = train.images / max(progress.seconds, 1e-9)
        row["seconds"] = progress.seconds + self._evaluation_seconds
        row["peak_memory_bytes"] = machine.peak_memory(self.device)
        self.ranks.check_same(self.model, self.device)
        return row

    def watched(self) -> dict[str, Any]:
        """The splits that are evaluated after each epoch."""
        found = {} if self.data.validation is None else {"validation": self.data.validation}
        return found | ({"test": self.data.test} if self.split == "test" else {})

    def _keep(self, row: dict[str, Any]) -> None:
        """Close the epoch: history, best, checkpoints, one line on the console."""
        progress, key = self.progress, f"{self.split}_top1"
        kept = of_the_run(row)
        progress.history.append(kept)
        # of equally good epochs the latest, which has learned longest: small splits tie often
        better = self.method.is_result(progress.epoch)
        better = better and (progress.best is None or kept[key] >= progress.best[key])
        if better:
            progress.best = kept
        left = self._seconds_after_epoch(progress.seconds)
        self.console.epoch_end(kept, self.plan.epochs, self.split, left)
        progress.epoch, progress.batch, progress.ended, progress.seconds = progress.epoch + 1, 0, False, 0.0
        every = self.config.train.save_every
        if better:
            self.save(self.folder.best, full=False)
        if (every and progress.epoch % every == 0) or progress.epoch in self.config.train.save_epochs:
            self.save(self.folder.checkpoints / f"epoch_{progress.epoch:04}.pt")
        self.save(self.folder.last)

    # results

    def score(self, split: str) -> Scores:
        """Evaluate the model as it is now on a split."""
        return self.engine.evaluate(getattr(self.data, split))
