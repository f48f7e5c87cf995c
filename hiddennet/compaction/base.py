"""What compact networks share: they evaluate only, and keep one workspace between calls; and which edges of acyclic
wirings can change what is read: nn.reach, told which weights are zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hiddennet.compaction.parts import Frozen, Product, Space
from hiddennet.nn.reach import GraphLayout, backwards, forwards


class CompactNetwork(Frozen):
    """A network that was made smaller for good.

    Attributes: spec, JSON-able: what the network is made of beside its tensors; architecture: the arguments of
    hiddennet.models.build of the network it was made from, where that function made it, else None.
    """

    spec: dict[str, Any]
    architecture: dict[str, Any] | None = None
    _space: tuple[tuple, Space] | None = None

    def train(self, mode: bool = True) -> CompactNetwork:
        """Refuses True: what would be trained is gone."""
        if mode:
            raise RuntimeError(
                f"{type(self).__name__}: expected to be evaluated only, got train(True); train the network that it "
                "was made from, and make it compact again"
            )
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images [batch, in_channels, H, W] to logits [batch, num_classes], without gradients."""
        name, wanted, side = type(self).__name__, self.spec["in_channels"], self.spec["least_side"]
        if images.dim() != 4 or images.shape[1] != wanted or min(images.shape[2:]) < side:
            least = "" if side == 1 else f" of at least {side} x {side} pixels"
            raise ValueError(f"{name}: expected images [batch, {wanted}, H, W]{least}, got {tuple(images.shape)}")
        if images.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"{name}: expected to be evaluated only, got images that ask for gradients; use torch.no_grad(), or "
                "the network that it was made from"
            )
        with torch.no_grad():
            return self.logits(images)

    def logits(self, images: Tensor) -> Tensor:
        """The forward itself."""
        raise NotImplementedError

    def products_by_name(self) -> dict[str, Product]:
        """All sums over edges."""
        return {name: module for name, module in self.named_modules() if isinstance(module, Product)}

    @property
    def edges(self) -> int:
        """Edges that are left, of the classifier too where that is a wiring."""
        return sum(product.n_edges for product in self.wired_products())

    def wired_products(self) -> list[Product]:
        """The sums over edges that were a wiring's."""
        return list(self.products_by_name().values())

    def take_space(self, images: Tensor, group: int) -> Space:
        """The workspace of the last forward, if it fits a group of such images, or a new one; give it back after."""
        key = (group, tuple(images.shape[2:]), images.dtype, images.device)
        kept, self._space = self._space, None  # another thread makes its own
        if kept is not None and kept[0] == key:
            return kept[1]
        return Space(self.space_size(group, *images.shape[2:]), images)

    def give_space(self, space: Space, images: Tensor, group: int) -> None:
        self._space = ((group, tuple(images.shape[2:]), images.dtype, images.device), space)

    def space_size(self, group: int, height: int, width: int) -> int:
        """Elements of the workspace for a group of images."""
        raise NotImplementedError

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_space": None}


def group_of(images: Tensor) -> int:
    """How many images are run at once. On a CPU one: its maps stay in the caches, and memory does not grow with the
    batch. On a GPU all."""
    return 1 if images.device.type == "cpu" else max(1, len(images))


@dataclass
class Graph:
    """One wiring. Columns are sending nodes: inputs, then intermediate ones; rows are receiving nodes: the intermediate
    ones in the same order, then outputs, which are the next graph's inputs.

    layout: run by blocks. edges: bool [rows, columns], those that are run and are not 0; `reduce` removes some.
    deaf: bool [columns], nodes whose sums do not matter (norm of scale 0).
    mute: bool [columns], nodes that send zeros, whatever they hear (convolution of zeros).
    quiet: bool [columns], nodes that send zeros when they hear nothing.
    """

    layout: GraphLayout
    edges: Tensor
    deaf: Tensor
    mute: Tensor
    quiet: Tensor

    @property
    def senders(self) -> Tensor:
        """bool [columns]: nodes with an edge out."""
        return self.edges.any(0)

    @property
    def outputs(self) -> Tensor:
        """bool: outputs with an edge in."""
        return self.edges[-self.layout.outputs :].any(1)


def reduce(graphs: list[Graph], heard: Tensor, read: Tensor) -> None:
    """Remove the edges that cannot change what is read, from graphs that feed each other.

    Args:
        heard: bool [inputs of the first], those that are not always zero.
        read: bool [outputs of the last], those whose sums matter.
    """
    for graph in graphs:
        layout, columns = graph.layout, graph.edges.shape[1]
        start = read.new_zeros(layout.nodes)
        start[:columns] = ~graph.quiet
        start[: layout.inputs] |= heard & ~graph.deaf[: layout.inputs]
        listening = torch.cat((~graph.deaf[layout.inputs :], read.new_ones(layout.outputs)))
        graph.edges = graph.edges & ~graph.mute & listening[:, None]
        reached = forwards(layout, graph.edges, start)[-1]
        graph.edges &= reached[:columns]
        heard = reached[-layout.outputs :]
    for graph in reversed(graphs):
        layout, rows = graph.layout, graph.edges.shape[0]
        wanted = read.new_zeros(layout.nodes)
        wanted[-layout.outputs :] = read
        wanted = backwards(layout, graph.edges, wanted)[0]
        graph.edges &= wanted[-rows:, None]
        read = graph.senders[: layout.inputs] & ~graph.deaf[: layout.inputs]
