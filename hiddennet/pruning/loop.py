"""Loop: the state of a pruning: what is left, who scores, and an iteration of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hiddennet import ops
from hiddennet.ops.checks import check_choice, check_seed
from hiddennet.ops.generate_weight import fill
from hiddennet.ops.strike_out import SCOPES
from hiddennet.pruning.scores import Grasp, Magnitude, Random, Snip, as_batches
from hiddennet.pruning.selection import (
    SCHEDULES,
    check_count,
    check_density,
    densities,
    inverted,
    removed_count,
    strike,
)
from hiddennet.pruning.synflow import Synflow, settle
from hiddennet.pruning.targets import Target, find_targets

METHODS = ("magnitude", "random", "snip", "grasp", "synflow")
SHUFFLE_REDRAW = 2**32 - 1  # of the counter generator: no iteration's


@dataclass(frozen=True)
class Settings:
    """What prune() was asked for, besides the model and its data; checked."""

    method: str
    density: float
    iterations: int = 1
    schedule: str = "exponential"
    scope: str = "global"
    classifier_density: float | None = None
    num_classes: int | None = None
    invert: bool = False
    shuffle: bool = False
    seed: int = 0
    train_mode: bool = False
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        check_choice("prune", "method", self.method, METHODS)
        check_density("prune", "density", self.density)
        check_count("prune", "iterations", self.iterations)
        check_choice("prune", "schedule", self.schedule, SCHEDULES)
        check_choice("prune", "scope", self.scope, SCOPES)
        check_seed("prune", "seed", self.seed, 63)
        if self.classifier_density is not None:
            check_density("prune", "classifier_density", self.classifier_density)
            if self.scope != "layer":
                raise ValueError("prune: expected scope='layer' with classifier_density: one ranking has one density")
        if self.num_classes is not None:
            check_count("prune", "num_classes", self.num_classes)
        if self.dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"prune: expected dtype torch.float32 or torch.float64, got {self.dtype}")


class Loop:
    """The state of a schedule: bit planes of what is left, and who scores."""

    def __init__(self, model, settings: Settings, batches, loss, input_shape, exclude, biases, start):
        self.settings = settings
        self.targets = find_targets(model, exclude, biases=biases)
        self.shapes = [t.shape for t in self.targets]
        devices = {t.value().device for t in self.targets}
        if len(devices) > 1:
            raise ValueError(f"prune: expected weights on one device, got {', '.join(sorted(map(str, devices)))}")
        self.device = devices.pop()
        self.full = [ops.pack_mask(torch.ones(shape, dtype=torch.bool, device=self.device)) for shape in self.shapes]
        self.planes = _planes(self.targets, self.full, start)
        self.counts = self._counts()
        self.scorer = self._scorer(model, batches, loss, input_shape)
        self.nested = settings.method == "synflow"

    def _scorer(self, model, batches, loss, input_shape):
        s, targets = self.settings, self.targets
        if s.method == "magnitude":
            return Magnitude(targets)
        if s.method == "random":
            return Random(targets, s.seed)
        if s.method == "synflow":
            return Synflow(model, targets, _image_shape(input_shape, batches), s.dtype, s.train_mode)
        with_data = Snip if s.method == "snip" else Grasp
        how = {"dtype": s.dtype or torch.float64, "train_mode": s.train_mode}
        return with_data(model, targets, as_batches(batches, s.method), loss or cross_entropy, **how)

    def _counts(self) -> list[list[int]]:
        """For each iteration how many scores are at or below the threshold: of the network, or of each layer."""
        s = self.settings
        sizes = [shape.numel() for shape in self.shapes]
        aims = densities(s.density, s.iterations, s.schedule)
        if s.scope == "global":
            return [[removed_count(sum(sizes), d)] for d in aims]
        if s.classifier_density is None:
            return [[removed_count(n, d) for n in sizes] for d in aims]
        last = _classifiers(self.targets, self.shapes, s.num_classes)
        others = densities(s.classifier_density, s.iterations, s.schedule)
        return [
            [removed_count(n, c if i in last else d) for i, n in enumerate(sizes)]
            for d, c in zip(aims, others, strict=True)
        ]

    @torch.no_grad()
    def step(self, iteration: int) -> list[Tensor]:
        """Score and select once; return the scores, float32 or float64, over 2^exponent()."""
        s, counts = self.settings, self.counts[iteration]
        mixed = self.scorer.mixed if isinstance(self.scorer, Synflow) and not s.invert else None
        if mixed is not None:
            scores = self.scorer.scores(self.planes)
            if settle(mixed, scores, self.planes, counts, s.scope):
                return scores
        scores = self._scored()
        if s.invert:
            strike(inverted(scores, self.masks()), self.planes, self.full, counts, scope=s.scope)
        else:
            by = "magnitude" if self.nested else "value"
            strike(scores, self.planes, self.full, counts, scope=s.scope, nested=self.nested, by=by)
        return scores

    def _scored(self) -> list[Tensor]:
        """All scores in one floating type, finite."""
        if not isinstance(self.scorer, Synflow):
            scores = self.scorer.scores(self.masks())
        elif self.scorer.mixed is not None:
            scores = self.scorer.precise(self.planes)
        else:
            scores = self.scorer.scores(self.planes)
        extremes = torch.stack([torch.stack(s.aminmax()).double() for s in scores]).isfinite().all(dim=1).tolist()
        bad = [t.name for t, finite in zip(self.targets, extremes, strict=True) if not finite]
        if bad:
            raise ValueError(
                f"prune: expected finite scores, got infinite ones or NaN in {bad[0]} (and in {len(bad) - 1} others); "
                "look at the weights, the data and, for 'synflow', the depth of the model"
            )
        return scores

    def masks(self) -> list[Tensor]:
        return [ops.unpack_mask(plane, shape) for plane, shape in zip(self.planes, self.shapes, strict=True)]

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        return {t.name: tensor for t, tensor in zip(self.targets, tensors, strict=True)}

    def shown(self, scores: Sequence[Tensor]) -> dict[str, Tensor]:
        """The scores as they are defined: SynFlow's not negative, and times the power of two they were divided by."""
        if not isinstance(self.scorer, Synflow):
            return self.named([s.clone() for s in scores])
        exponent = self.scorer.exponent()
        half = exponent // 2  # the whole power may leave float64's range where the scores do not
        return self.named([s.double().abs() * 2.0**half * 2.0 ** (exponent - half) for s in scores])

    def result(self) -> dict[str, Tensor]:
        """The masks, shuffled if asked for."""
        masks = self.masks()
        if self.settings.shuffle:
            masks = [_shuffled(mask, self.settings.seed, i) for i, mask in enumerate(masks)]
        return self.named(masks)


def _image_shape(input_shape: Sequence[int] | None, batches: Iterable | None) -> Sequence[int]:
    if input_shape is not None:
        return input_shape
    if batches is None:
        raise ValueError(
            "prune: expected input_shape for 'synflow', got none; give that of one input, as (3, 32, 32), or batches"
        )
    return as_batches(batches, "synflow")[0][0].shape[1:]


def _classifiers(targets: Sequence[Target], shapes: Sequence[torch.Size], num_classes: int | None) -> set[int]:
    """Numbers of the parameters that classifier_density is for: weights of num_classes rows, matrices or the last."""
    weights = [i for i, t in enumerate(targets) if t.kind == "weight"]
    rows = num_classes if num_classes is not None else shapes[weights[-1]][0]
    found = {i for i in weights if (len(shapes[i]) == 2 or i == weights[-1]) and shapes[i][0] == rows}
    if not found:
        raise ValueError(f"prune: expected a classifier of {rows} rows for classifier_density, got none")
    return found


def _planes(targets: Sequence[Target], full: Sequence[Tensor], start: Mapping[str, Tensor] | None) -> list[Tensor]:
    if start is None:
        return [plane.clone() for plane in full]
    missing = [t.name for t in targets if t.name not in start]
    if missing or len(start) != len(targets):
        known = ", ".join(t.name for t in targets)
        raise ValueError(f"prune: expected start to hold a mask of each of {known}, got {', '.join(start) or 'none'}")
    planes = []
    for target, plane in zip(targets, full, strict=True):
        mask = start[target.name]
        if mask.dtype != torch.bool or mask.shape != target.shape:
            raise ValueError(
                f"prune: expected start[{target.name!r}] to be bool of shape {tuple(target.shape)}, "
                f"got {mask.dtype} of {tuple(mask.shape)}"
            )
        planes.append(ops.pack_mask(mask.to(plane.device)))
    return planes


def _shuffled(mask: Tensor, seed: int, number: int) -> Tensor:
    """As many ones, at places drawn by the counter generator."""
    uniform = ops.InitScale("uniform", 1.0)
    drawn = fill(torch.empty(mask.shape, device=mask.device), uniform, seed=seed, layer=number, redraw=SHUFFLE_REDRAW)
    return ops.topk_mask(drawn, int(mask.count_nonzero()), by="value")
