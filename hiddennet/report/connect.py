"""Mode connectivity: the networks between two found ones, from A to B in steps of t. Masks, or weights.

Kinds of path, all of them A at t = 0 and B at t = 1:

- prob: a coordinate is B's with probability t, by one draw a coordinate, so that it changes once;
- score: the mask is (1 - t) A + t B, a multiplier in [0, 1];
- round: that, rounded: kept where it is above 1/2;
- linear: weights (1 - t) A + t B, for networks whose weights were trained.

Everything else (biases, dense layers, batch norm) is interpolated linearly.
"""

import copy
import itertools
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import data
from hiddennet.nn import hidden_layers, masks
from hiddennet.nn.expose import expose
from hiddennet.report.networks import Network
from hiddennet.train.evaluate import score

MASK_KINDS = ("prob", "score", "round")


@dataclass(frozen=True)
class Sample:
    """One network on the way. distance: fraction of the hidden weights whose mask is not A's."""

    kind: str
    draw: int
    t: float
    distance: float
    train_loss: float
    train_top1: float
    test_loss: float
    test_top1: float


@dataclass(frozen=True)
class Connection:
    """The way between two networks: samples, the Hamming distance of the masks, what to know about it."""

    a: str
    b: str
    distance: float
    samples: list[Sample]
    notes: list[str]

    def rows(self) -> list[dict[str, Any]]:
        """The samples as plain maps."""
        return [asdict(sample) for sample in self.samples]


@dataclass(frozen=True)
class _End:
    """A network in parts: of each hidden layer the weights, the mask and their product; the rest of the state."""

    weights: dict[str, Tensor]
    masks: dict[str, Tensor]
    effective: dict[str, Tensor]
    rest: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    trained: bool  # the weights learned, not only what reveals them

    @property
    def masked(self) -> bool:
        """Whether the network is frozen weights times a mask of zeros and ones."""
        products = (torch.where(self.masks[name], weight, 0.0) for name, weight in self.weights.items())
        return not self.trained and all(map(torch.equal, products, self.effective.values()))


@torch.no_grad()
def _take_apart(model: nn.Module) -> tuple[_End, nn.Module]:
    """The network's parts, and a plain network that they can be put into."""
    layers = hidden_layers(model)
    plain = copy.deepcopy(model)
    expose(plain)
    own = {f"{name}.weight" for name in layers}
    state = {key: value for key, value in plain.state_dict().items() if torch.is_tensor(value)}
    end = _End(
        weights={name: layer.source_weight() for name, layer in layers.items()},
        masks=masks(model) if layers else {},
        effective={name: layer.effective_weight().detach() for name, layer in layers.items()},
        rest={key: value.clone() for key, value in state.items() if key not in own},
        shapes={key: tuple(value.shape) for key, value in state.items()},
        trained=not layers or any(x.source.learns == "weights" for x in layers.values()),
    )
    return end, plain.eval()


def _check_same(a: Network, b: Network, first: _End, second: _End) -> None:
    if a.data_name != b.data_name:
        raise ValueError(f"--connect: expected two networks for the same data, got {a.data_name} and {b.data_name}")
    for key in [*first.shapes, *second.shapes]:
        one, other = first.shapes.get(key), second.shapes.get(key)
        if one != other:
            raise ValueError(
                f"--connect: expected two networks of one architecture, got {key} of shape {one or 'none'} in "
                f"{a.where} and {other or 'none'} in {b.where}"
            )


def _kinds(first: _End, second: _End) -> tuple[str, ...]:
    same_layers = first.effective.keys() == second.effective.keys()
    return MASK_KINDS if same_layers and first.masked and second.masked else ("linear",)


class _Way:
    """The state of the network at each t, for one kind and one draw."""

    def __init__(self, kind: str, first: _End, second: _End, seed: int):
        self.kind, self.first, self.second = kind, first, second
        generator = torch.Generator().manual_seed(seed)
        self.uniform = {n: torch.rand(mask.shape, generator=generator) for n, mask in first.masks.items()}

    def at(self, t: float) -> tuple[dict[str, Tensor], float]:
        """The state dict, and how far the masks are from A's."""
        a, b = self.first, self.second
        state = {key: _between(value, b.rest[key], t) if key in b.rest else value for key, value in a.rest.items()}
        if a.effective.keys() != b.effective.keys():  # one of them hides nothing there: all weights, hidden or not
            one, other = ({**e.rest, **{f"{name}.weight": w for name, w in e.effective.items()}} for e in (a, b))
            return {key: _between(value, other[key], t) for key, value in one.items()}, 0.0
        moved = total = 0.0
        for name, effective in a.effective.items():
            weight, changed = self._layer(name, effective, t)
            state[f"{name}.weight"] = weight
            moved, total = moved + changed, total + weight.numel()
        return state, moved / max(1.0, total)

    def _layer(self, name: str, effective: Tensor, t: float) -> tuple[Tensor, float]:
        """A layer's weight at t, and how many of its masks are not A's."""
        a, b = self.first, self.second
        mask_a, mask_b = a.masks[name], b.masks[name]
        if self.kind == "prob":
            from_b = self.uniform[name] < t
            mask = torch.where(from_b, mask_b, mask_a)
            return torch.where(from_b, b.effective[name], effective), float((mask != mask_a).sum())
        if self.kind == "round":
            mask = (1 - t) * mask_a.float() + t * mask_b.float() > 0.5
            weight = a.weights[name] if t <= 0.5 else b.weights[name]
            return torch.where(mask, weight, 0.0), float((mask != mask_a).sum())
        return _between(effective, b.effective[name], t), t * float((mask_a != mask_b).sum())


def _between(a: Tensor, b: Tensor, t: float) -> Tensor:
    """(1 - t) a + t b, exactly a and b at the ends; counters stay a's."""
    if not a.is_floating_point() or t == 0:
        return a
    return b if t == 1 else torch.lerp(a, b, t)


def connect(
    a: Network,
    b: Network,
    *,
    points: int = 21,
    draws: int = 1,
    batches: int = 10,
    reestimate: bool = True,
    device: torch.device | None = None,
    root: str | None = None,
    seed: int = 0,
) -> Connection:
    """Evaluate the networks from A to B.

    Args:
        points: values of t, from 0 to 1. draws: of the coordinates' order, for `prob`, seeded by `seed`.
        batches: of training images (not augmented) that the training loss is taken on.
        reestimate: take batch norm's statistics anew, on these batches, for all but A and B themselves.

    Raises ValueError for networks of different architectures or data.
    """
    if points < 2 or draws < 1 or batches < 1:
        raise ValueError(
            f"--connect: expected at least 2 points, 1 draw and 1 batch, got {points}, {draws} and {batches}"
        )
    device = device or torch.device("cpu")
    (first, plain), (second, _) = _take_apart(a.model), _take_apart(b.model)
    _check_same(a, b, first, second)
    plain = plain.to(device)
    images = a.build_data(device, root)
    images.train.set_epoch(0)
    train = list(itertools.islice(images.train, batches))
    samples = []
    for kind in _kinds(first, second):
        for draw in range(draws if kind == "prob" else 1):
            way = _Way(kind, first, second, seed + draw)
            for t in (index / (points - 1) for index in range(points)):
                state, distance = way.at(t)
                plain.load_state_dict(state)
                if reestimate and 0 < t < 1:
                    _take_statistics(plain, train)
                samples.append(_sample(kind, draw, t, distance, plain, train, images, device))
    return Connection(
        a.where, b.where, _distance(first, second), samples, _notes(a, b, first, second, plain, reestimate, len(train))
    )


def _distance(first: _End, second: _End) -> float:
    """The fraction of hidden weights whose masks differ."""
    pairs = [(mask, second.masks[name]) for name, mask in first.masks.items() if name in second.masks]
    return sum(int((x != y).sum()) for x, y in pairs) / max(1, sum(x.numel() for x, _ in pairs))


def _sample(
    kind: str,
    draw: int,
    t: float,
    distance: float,
    model: nn.Module,
    train: list,
    images: data.Data,
    device: torch.device,
) -> Sample:
    seen, unseen = score(model, train, device), score(model, images.test, device)
    return Sample(kind, draw, t, distance, seen.loss, seen.top1, unseen.loss, unseen.top1)


def _normal(model: nn.Module) -> list[nn.Module]:
    batch_norm = nn.modules.batchnorm._BatchNorm
    return [m for m in model.modules() if isinstance(m, batch_norm) and m.track_running_stats]


@torch.no_grad()
def _take_statistics(model: nn.Module, train: list) -> None:
    """Batch norm's means and variances: their averages over the batches."""
    layers = _normal(model)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    for images, _ in train:
        model(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def _notes(
    a: Network, b: Network, first: _End, second: _End, model: nn.Module, reestimate: bool, batches: int
) -> list[str]:
    found = [f"training loss and accuracy: {batches} batches of training images, not augmented"]
    if "linear" in _kinds(first, second):
        found.append("weights were trained, or are no product with a mask: weights are interpolated")
    elif not all(torch.equal(weight, second.weights[name]) for name, weight in first.weights.items()):
        found.append(
            "A and B have other frozen weights: a coordinate takes weight and mask from the same end (prob), "
            "score interpolates their products, round takes the weights of the nearer end"
        )
    if _normal(model):
        how = "taken anew on the training batches" if reestimate else "interpolated linearly"
        found.append(f"batch norm's statistics are {how} between A and B; A and B have their own")
    if a.options != b.options:
        found.append(f"the images are those of A: {a.options} (B: {b.options})")
    return found
