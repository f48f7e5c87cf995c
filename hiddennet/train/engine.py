"""Steps and evaluations of one model on one device. Not epochs, files or console: session.py."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiddennet import data, trace
from hiddennet.config import Config
from hiddennet.methods import Method
from hiddennet.nn import hidden_layers, refresh
from hiddennet.optim import optimizers
from hiddennet.train import machine
from hiddennet.train.graph import GraphStep
from hiddennet.train.mixup import Mixed, Mixup
from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter, Scores
from hiddennet.train.text_scores import TextScores


def batches(loader: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The loader's batches, the wait for each marked as `data` on the timeline."""
    iterator = iter(loader)
    while True:
        with trace.range("data"):
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch


def begin_pass(model: nn.Module) -> None:
    """Let a model that carries a state from batch to batch begin anew, in the mode it is in."""
    if hasattr(model, "reset_state"):
        model.reset_state()


class Engine:
    """A model on its device with the optimiser of its stage.

    A batch is images (B, C, H, W) and a label for each, or tokens (steps, B) and the word after each,
    (steps * B,); a loss is the mean over all labels.
    """

    def __init__(self, model: nn.Module, config: Config, device: torch.device, ranks: Ranks, method: Method):
        self.method = method
        self.model, self.config, self.device, self.ranks = model, config, device, ranks
        self.train_section = config.train
        self.channels_last = machine.use_channels_last(config.train.channels_last)
        self.autocast = torch.bfloat16 if config.train.amp == "bf16" else None  # auto: until a session decides
        self.text = config.data.name in data.TEXT
        self.mixup = Mixup(config.train.mixup, config.seed, ranks.rank) if config.train.mixup else None
        self.begin_stage(method.stages[0].optimizer)

    def begin_stage(self, section: Any) -> None:
        """Take the model as it is now: device, memory format, a new optimiser of this section, gradients shared."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        self.model.to(device=self.device, memory_format=layout)
        refresh(self.model)
        self.optimizer, self.clip_norm = self.method.optimizer(self.model, section), section.clip_norm
        groups = self.optimizer.param_groups if self.optimizer is not None else []
        self._rates, self._section_rate = [group.get("lr") for group in groups], section.lr
        self.shared = self.ranks.wrap(self.model)
        self.graph = GraphStep(self) if self.device.type == "cuda" and self.train_section.graph == "auto" else None

    def begin_epoch(self) -> None:
        """Call before the first batch of an epoch, the model in training mode."""
        begin_pass(self.model)

    def carried(self) -> Any:
        """What the model carries from one training batch to the next, for a checkpoint: of every rank; None: nothing.

        A tree of tensors, a row a column of the text.
        """
        return self.ranks.gather(self.model.carried_state()) if hasattr(self.model, "carried_state") else None

    def carry(self, states: Any) -> None:
        """Go on from what `carried` gave, also where there were more or fewer ranks then."""
        if hasattr(self.model, "carry_state"):
            self.model.carry_state(self.ranks.own_rows(states))

    def learning_parameters(self) -> list[Tensor]:
        """What the optimiser changes."""
        groups = self.optimizer.param_groups if self.optimizer is not None else []
        return [p for group in groups for p in group["params"]]

    def scale_learning_rates(self, scale: float) -> float:
        """Set the rate of each group that has one to its own at the stage's beginning, times `scale`.

        Returns the first group's; of a network that learns nothing so, what the optimiser's section says.
        """
        groups = self.optimizer.param_groups if self.optimizer is not None else []
        for group, rate in zip(groups, self._rates, strict=True):
            if rate is not None:
                group["lr"] = rate * scale
        self.rate = next((rate for rate in self._rates if rate is not None), self._section_rate) * scale
        return self.rate

    def _cast(self) -> Any:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, dtype=self.autocast)

    def _layout(self, images: Tensor) -> Tensor:
        return images.to(memory_format=torch.channels_last) if self.channels_last and not self.text else images

    def step(self, images: Tensor, labels: Tensor, meter: Meter, batch_images: int, number: int = 0) -> None:
        """One optimiser step on this rank's images of a batch of `batch_images` (of a text: columns) over all ranks.

        The loss is the mean over the whole batch: parts and ranks may be of unequal size. number: the
        steps of the run before this one. No synchronisation with the host.
        """
        if self.graph is not None and self.graph.step(images, labels, meter, batch_images, number):
            return
        targets: Tensor | Mixed = labels
        if self.mixup is not None:
            images, targets = self.mixup(images, labels, number)
        self.update(self._layout(images), targets, meter, batch_images, number)

    def update(self, images: Tensor, targets: Tensor | Mixed, meter: Any, batch_images: int, number: int = 0) -> None:
        """A step on images in the engine's layout, mixed where that is asked for."""
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
        parts = self.train_section.accumulate
        images, targets = images.chunk(parts), targets.chunk(parts)
        for i, (part, wanted) in enumerate(zip(images, targets, strict=True)):
            last = i == len(images) - 1
            postponed = self.ranks.world > 1 and self.shared is not self.model and not last
            with self.shared.no_sync() if postponed else nullcontext():
                self._part(part, wanted, meter, batch_images)
        if self.optimizer is not None:
            self.method.before_update(self.model, number)
            with trace.range("step"):
                optimizers.step(self.optimizer, self.clip_norm)

    def _part(self, images: Tensor, targets: Tensor | Mixed, meter: Meter, batch_images: int) -> None:
        mixed = isinstance(targets, Mixed)
        learns = self.optimizer is not None
        with trace.range("forward"), self._cast(), torch.set_grad_enabled(learns):
            logits = self.shared(images)
            loss_sum = self._loss_sum(logits, targets.targets(logits.shape[1]) if mixed else targets)
            # ranks average their gradients, so each takes its share `world` times
            loss = loss_sum * (self.ranks.world / (batch_images * (len(images) if self.text else 1)))
        if learns:
            with trace.range("backward"):
                loss.backward()
        meter.add(loss_sum, logits, targets.larger if mixed else targets)

    def _loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The summed loss of labels [n] or of probabilities [n, classes]."""
        smoothing = self.train_section.label_smoothing
        return F.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=smoothing)

    def without_gradient(self) -> list[str]:
        """The hidden layers in which something learns and nothing had a gradient in the last step. Waits for a GPU."""
        learning, found = {id(p) for p in self.learning_parameters()}, []
        for name, layer in hidden_layers(self.model).items():
            own = [p for p in layer.parameters(recurse=False) if id(p) in learning]
            if own and not any(p.grad is not None and bool(p.grad.any()) for p in own):
                found.append(name)
        return found

    def finite(self) -> bool:
        """Whether all that learns is finite on this rank. Reads from the device."""
        parameters = [p.detach() for p in self.learning_parameters()]
        if not parameters:
            return True
        norms = torch._foreach_norm(parameters, float("inf"))
        return bool(torch.stack([norm.float() for norm in norms]).isfinite().all())

    @torch.no_grad()
    def evaluate(self, loader: Iterable[tuple[Tensor, Tensor]], stop=lambda: False) -> Scores | None:
        """Return the model's scores on all images of a split, or None once `stop()` says so."""
        self.ranks.share_buffers(self.model)
        if self.graph is not None:
            refresh(self.model)  # what a graph's capture kept
        was_training = self.model.training
        self.model.eval()
        begin_pass(self.model)
        meter = Meter(self.device)
        try:
            with trace.range("eval"):
                for images, labels in loader:
                    if self.ranks.world == 1 and stop():
                        return None
                    with self._cast():
                        logits = self.model(self._layout(images))
                        loss_sum = self._loss_sum(logits, labels)
                    meter.add(loss_sum, logits, labels)
        finally:
            self.model.train(was_training)
        scores = meter.read(self.ranks)[0]
        return TextScores.of(scores) if self.text else scores
