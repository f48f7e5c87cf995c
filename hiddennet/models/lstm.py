"""A word-level LSTM language model (Zaremba et al., arXiv 1409.2329; tied as in Press and Wolf, arXiv
1608.05859), of linear layers alone, so that it can be hidden in. Not ``torch.nn.LSTM``, whose fused
kernel owns its weights."""

import torch
import torch.nn.functional as F
from torch import nn

from .layers import linear, scaled

UNITS = 1500  # of the embedding and of every layer

State = list[tuple[torch.Tensor, torch.Tensor]]  # of each layer: h and c, both (columns, units)


def weight_in_pass(layer: nn.Linear) -> torch.Tensor:
    """What a layer, plain or hidden, multiplies by in this forward pass; for one that is not called."""
    made = getattr(layer, "weight_in_pass", None)
    return layer.weight if made is None else made()


class LstmLayer(nn.Module):
    """One layer: gates (input, forget, cell, output) = ``input(x) + recurrent(h)``, one bias in ``input``."""

    def __init__(self, features: int, units: int, bias: bool) -> None:
        super().__init__()
        self.input = linear(features, 4 * units, bias)
        self.recurrent = linear(units, 4 * units)

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """(steps, columns, features) to (steps, columns, units), and the state after the last step."""
        h, c = state
        weight, outputs = weight_in_pass(self.recurrent), []  # made once, not at every step
        for gates in self.input(x):
            i, f, g, o = (gates + F.linear(h, weight)).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs), (h, c)


class LstmLm(nn.Module):
    """Tokens int64 (steps, columns) to the next ones' logits (steps * columns, num_classes).

    ``num_classes``: words of the vocabulary. ``layers`` of ``scaled(1500, width)`` units; the decoder's
    weight is the embedding too, in a hidden network what is revealed of it. ``dropout`` after the
    embedding and every layer. ``bias``: one in each layer, and the decoder's, zero at the start.

    The state after a batch is where the next one starts, in training and in evaluation apart, without
    gradients through it; ``reset_state()`` at the start of a pass begins with zeros.
    """

    first_layer = "layers.0.input"
    last_layer = "decoder"

    def __init__(
        self, *, num_classes: int, layers: int, dropout: float, width: float = 1.0, bias: bool = False
    ) -> None:
        super().__init__()
        self.units = scaled(UNITS, width)
        self.layers = nn.ModuleList(LstmLayer(self.units, self.units, bias) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.decoder = linear(self.units, num_classes, bias)
        self._states: dict[bool, State | None] = {True: None, False: None}

    def reset_state(self) -> None:
        """Begin with zeros at the next batch of training or of evaluation, whichever mode is on."""
        self._states[self.training] = None

    def carried_state(self) -> State | None:
        """Where the next batch of training starts; None: at zeros."""
        return self._states[True]

    def carry_state(self, state: State | None) -> None:
        """Start the next batch of training from what ``carried_state`` gave."""
        self._states[True] = state

    def _state(self, tokens: torch.Tensor) -> State:
        columns, state = tokens.shape[1], self._states[self.training]
        if state is None:
            zeros = torch.zeros(columns, self.units, device=tokens.device)
            return [(zeros, zeros)] * len(self.layers)
        if state[0][0].shape[0] != columns:
            raise ValueError(
                f"lstm_lm: expected {state[0][0].shape[0]} columns as in the batch before, got {columns}; "
                "call reset_state() first"
            )
        return [(h.to(tokens.device), c.to(tokens.device)) for h, c in state]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # the decoder's own call counts as its pass, so here its weight is only looked at
        made = getattr(self.decoder, "effective_weight", None)
        x = self.dropout(F.embedding(tokens, self.decoder.weight if made is None else made()))
        after = []
        for layer, state in zip(self.layers, self._state(tokens), strict=True):
            x, (h, c) = layer(x, state)
            x = self.dropout(x)
            after.append((h.detach(), c.detach()))
        self._states[self.training] = after
        return self.decoder(x.flatten(0, 1))
