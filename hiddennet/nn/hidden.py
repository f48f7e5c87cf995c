"""HiddenMixin: what hidden layers share: scores, the state of source and rule, and the effective weight."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.rounded import add_rounded_state, rounded_scores, rounded_state
from hiddennet.nn.rules import All, Fixed, Rounded, Rule, Sampled, TargetedDropout, Threshold, TopK, select_rows
from hiddennet.nn.sources import Activated
from hiddennet.nn.targeted import targeted_state
from hiddennet.nn.weights import WeightState
from hiddennet.ops.checks import check_choice
from hiddennet.ops.masked_weight import effective_weight


class HiddenMixin(WeightState):
    """What both layers share: scores, the state of source and rule, and the effective weight.

    Attributes:
        scores: float32 Parameter of the weight's shape, or None for rules without scores.
        weight: Parameter when the source is Stored, else None.
        source, rule: their descriptions.
        plan: name of a plan of hiddennet.ops.PLANS, or None for the fastest known (convolutions).
        psg: in training, the weight's gradient is PSG's, whatever the plan (hiddennet.psg sets it); of no state dict.
        input_signed: whether PSG's codes of the input are signed.
    """

    scores: nn.Parameter | None
    weight: nn.Parameter | None
    psg: ops.PSGConfig | None = None
    input_signed: bool = False

    def _setup(self, shape: tuple[int, ...], source, rule: Rule, score_init: str | float | Callable) -> None:
        self.weight_shape = torch.Size(shape)
        self.plan = None
        device = self.weight.device
        self.rule = rule
        self._add_rule_state(device)
        if rule.has_scores:
            self.scores = nn.Parameter(torch.empty(shape, dtype=torch.float32, device=device))
            self.reset_scores(score_init)
        else:
            self.register_parameter("scores", None)
        self._add_source(source, device)
        self._row: Tensor | None = None
        self._row_key: tuple | None = None
        self._selected_by_network = False

    def _add_rule_state(self, device: torch.device) -> None:
        rule = self.rule
        if isinstance(rule, Fixed):
            if rule.mask is None or rule.mask.shape != self.weight_shape:
                raise ValueError(
                    f"{type(self).__name__}: expected a mask of shape {tuple(self.weight_shape)}, "
                    f"got {None if rule.mask is None else tuple(rule.mask.shape)}"
                )
            bits = ops.pack_mask(rule.mask.bool())
            self.register_buffer("mask_bits", bits.to(device))
            known = not (rule.mask.is_meta or device.type == "meta")
            self._kept = int(rule.mask.count_nonzero()) if known else None
            self.rule = Fixed(None)  # the bits are kept, not the bytes
        if isinstance(rule, (Sampled, TargetedDropout)):
            # step 0 is the fixed draw of evaluation; training counts from 1
            self.register_buffer("draw", torch.ones(1, dtype=torch.int64, device=device))
        if isinstance(rule, TargetedDropout):
            every = ops.pack_mask(torch.ones(self.weight_shape.numel(), dtype=torch.bool)).to(device)
            self.register_buffer("all_bits", every, persistent=False)
        if isinstance(rule, Rounded):
            add_rounded_state(self, rule, device)
        row = torch.zeros(4, dtype=torch.int32, device=device)
        if isinstance(rule, Threshold):
            row.copy_(ops.Rule.threshold(rule.t, rule.by).selection)
        if isinstance(rule, Rounded):
            row.copy_(ops.Rule.rounded(rule.threshold, self.flags).selection)
        self.register_buffer("selection", row, persistent=False)

    def reset_parameters(self) -> None:
        """Called by torch's constructor; the weight is made later, from the source."""

    def _reset_bias(self) -> None:
        if self.bias is not None:
            bound = 1 / math.sqrt(max(1, math.prod(self.weight_shape[1:])))
            nn.init.uniform_(self.bias, -bound, bound)

    @torch.no_grad()
    def reset_scores(self, init: str | float | Callable[[Tensor], object] = "kaiming_uniform") -> None:
        """Draw the scores from torch's generator: U(+-1/sqrt(fan_in)) (edge-popup), one constant, or by a function
        that fills the tensor it is given."""
        if callable(init):
            init(self.scores)
            return
        if isinstance(init, (int, float)) and not isinstance(init, bool):
            self.scores.fill_(float(init))
            return
        check_choice("reset_scores", "score_init", init, ("kaiming_uniform",))
        bound = 1 / math.sqrt(max(1, math.prod(self.weight_shape[1:])))
        nn.init.uniform_(self.scores, -bound, bound)

    @property
    def k(self) -> int | None:
        """How many weights a layer-wise TopK keeps; None for other rules, and where ties can keep more."""
        if isinstance(self.rule, TopK) and self.rule.scope == "layer" and not self.rule.keeps_ties:
            return self.rule.count(self.weight_shape.numel())
        return None

    @property
    def ranked(self) -> Tensor:
        """The tensor TopK ranks: the scores, or the stored weights."""
        return self.scores if self.rule.has_scores else self.weight

    def forget_selection(self) -> None:
        """Drop the cached selection, so that the next forward selects again."""
        self._row, self._row_key = None, None

    def train(self, mode: bool = True):
        """As torch's; a switch also drops the cached selection, since some optimisers (fused ones on a CPU) write
        parameters without raising the version by which a change is noticed."""
        if mode != self.training:
            self.forget_selection()
        return super().train(mode)

    def keep_selection(self, row: Tensor) -> None:
        """Take a row of topk_select for the scores as they are now."""
        self._row = row
        self._row_key = self._key()
        with torch.no_grad():
            self.selection.copy_(row)

    def _key(self) -> tuple | None:
        if torch.compiler.is_compiling():
            return None
        ranked = self.ranked
        return ranked.data_ptr(), ranked._version, self.rule

    def selection_is_current(self) -> bool:
        """Whether the cached selection belongs to the scores as they are now."""
        return self._row is not None and not torch.compiler.is_compiling() and self._row_key == self._key()

    def _selection_row(self) -> Tensor:
        may_reuse = self._selected_by_network or not self.training
        chosen_in_graph = self._row is not None and torch.compiler.is_compiling()
        if may_reuse and (chosen_in_graph or self.selection_is_current()):
            return self._row
        if self.rule.scope == "global":
            raise RuntimeError(
                f"{type(self).__name__}: expected a selection over the whole model for TopK(scope='global'), got none; "
                "call the model given to hide(), or hiddennet.select(model) before its parts"
            )
        row = select_rows([self.ranked], [self.rule], self.selection[None])[0]
        self.keep_selection(row)
        return row

    def _topk_state(self) -> ops.Rule:
        return ops.Rule(self.rule.by, self._selection_row())

    def rule_state(self) -> ops.Rule:
        """The rule as the ops take it, for the scores as they are now."""
        rule = self.rule
        if isinstance(rule, TargetedDropout) and self.training:
            return targeted_state(self, self._topk_state())
        if isinstance(rule, TopK):
            return self._topk_state()
        if isinstance(rule, Threshold):
            return ops.Rule(rule.by, self.selection)
        if isinstance(rule, Fixed):
            return ops.Rule("bits", self.selection, bits=self.mask_bits)
        if isinstance(rule, All):
            return ops.Rule("all", self.selection)
        if isinstance(rule, Rounded):
            return rounded_state(self, self.training)
        if self.training:
            return ops.Rule("sampled", self.selection, step=self.draw.clone(), seed=rule.seed)
        if rule.evaluation == "expectation":
            return ops.Rule("expectation", self.selection)
        return self._fixed_draw()

    def _fixed_draw(self) -> ops.Rule:
        return ops.Rule("sampled", self.selection, step=torch.zeros_like(self.draw), seed=self.rule.seed)

    def _scores_for_ops(self) -> Tensor | None:
        if isinstance(self.rule, TopK) and not self.rule.has_scores:
            return self.weight.detach()
        return rounded_scores(self, self.training) if isinstance(self.rule, Rounded) else self.scores

    def _after_forward(self) -> None:
        if not self.training:
            return
        if "draw" in self._buffers:
            with torch.no_grad():
                self.draw.add_(1)
        if isinstance(self.rule, Rounded) and self.rule.noise:
            self.rounding_step += 1

    def effective_weight(self) -> Tensor:
        """The weight the layer computes with: float32, weight where revealed and +0 elsewhere; differentiable."""
        return effective_weight(self._scores_for_ops(), self.rule_state(), self.source_state(), torch.float32)

    def weight_in_pass(self) -> Tensor:
        """effective_weight() in place of the layer's forward, for a model that multiplies by it several times in one
        pass: it counts as a forward, after which a sampled layer draws anew."""
        weight = self.effective_weight()
        self._after_forward()
        return weight

    @torch.no_grad()
    def mask(self) -> Tensor:
        """What is revealed: bool of the weight's shape. A layer that draws or rounds gives its mask of evaluation."""
        scores = self._scores_for_ops()
        if isinstance(self.rule, Sampled):
            rule = self._fixed_draw()
        elif isinstance(self.rule, TopK):
            rule = self._topk_state()
        elif isinstance(self.rule, Rounded):
            rule, scores = rounded_state(self, training=False), rounded_scores(self, training=False)
        else:
            rule = self.rule_state()
        revealed = ops.rule_mask(scores, rule, self.weight_shape, layer=self.source.layer)
        return revealed & (self.activated_weight() != 0) if isinstance(self.source, Activated) else revealed

    @torch.no_grad()
    def kept(self) -> float:
        """How many weights are revealed; for a sampled layer the expected number."""
        if self.k is not None:
            return self.k
        if isinstance(self.rule, Sampled):
            return float(torch.sigmoid(self.scores.double()).sum())
        return int(self.mask().count_nonzero())

    @property
    def density(self) -> float:
        """The revealed fraction of the weights."""
        return self.kept() / max(1, self.weight_shape.numel())

    def spec(self) -> dict:
        """Source and rule as a plain dict."""
        return {"source": self.source.spec(), "rule": self.rule.spec()}

    def get_extra_state(self) -> dict:
        return self.spec()

    def set_extra_state(self, state: dict) -> None:
        mine = self.spec()
        for part in ("source", "rule"):
            for name, value in state[part].items():
                if mine[part].get(name) != value:
                    raise ValueError(
                        f"{type(self).__name__}: expected a state dict with {part} {name}={mine[part].get(name)!r}, "
                        f"got {value!r}; hide() the model with the source and rule it was saved with"
                    )
        self.forget_selection()

    def _describe(self) -> str:
        source = getattr(self.source, "init", "stored")
        return f"source={source}, rule={self.rule.spec()}"
