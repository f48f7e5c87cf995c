"""HiddenMixin: what hidden layers share: scores, the state of source and rule, and the effective weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.rules import All, Fixed, Rule, Sampled, Threshold, TopK, kept_count
from hiddennet.nn.sources import Generated, Stored
from hiddennet.ops.checks import check_choice
from hiddennet.ops.generate_weight import sign_plane
from hiddennet.ops.masked_weight import effective_weight


class HiddenMixin:
    """What both layers share: scores, the state of source and rule, and the effective weight.

    Attributes:
        scores: float32 Parameter of the weight's shape, or None for rules without scores.
        weight: Parameter when the source is Stored, else None.
        source, rule: their descriptions.
        plan: name of a plan of hiddennet.ops.PLANS, or None for the fastest known (convolutions).
    """

    scores: nn.Parameter | None
    weight: nn.Parameter | None

    def _setup(self, shape: tuple[int, ...], source, rule: Rule, score_init: str | float) -> None:
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
        if isinstance(rule, Sampled):
            # step 0 is the fixed draw of evaluation; training counts from 1
            self.register_buffer("draw", torch.ones(1, dtype=torch.int64, device=device))
        row = torch.zeros(4, dtype=torch.int32, device=device)
        if isinstance(rule, Threshold):
            row.copy_(ops.Rule.threshold(rule.t, rule.by).selection)
        self.register_buffer("selection", row, persistent=False)

    def _add_source(self, source, device: torch.device) -> None:
        self.source = source
        if isinstance(source, Stored):
            weight = source.weight if source.weight is not None else self.weight.detach()
            if weight.shape != self.weight_shape:
                raise ValueError(
                    f"{type(self).__name__}: expected a stored weight of shape {tuple(self.weight_shape)}, "
                    f"got {tuple(weight.shape)}"
                )
            self.weight = nn.Parameter(
                weight.detach().to(device=device, dtype=torch.float32), requires_grad=source.trainable
            )
            self.source = Stored(None, source.trainable, source.gradient, source.layer or 0)
            return
        if not isinstance(source, Generated):
            raise TypeError(
                f"{type(self).__name__}: expected source to be Generated or Stored, got {type(source).__name__}"
            )
        if isinstance(self.rule, TopK) and not self.rule.has_scores:
            raise ValueError(f"{type(self).__name__}: expected a Stored source for TopK(of='weights'), got {source}")
        del self.weight
        self.register_parameter("weight", None)
        if source.layer is None:
            self.source = source = Generated(**{**source.__dict__, "layer": 0})
        self.scaled = source.scaled(self.weight_shape, self._nominal_density())
        if self.scaled.kind == "signs" and device.type != "meta":
            plane = sign_plane(
                self.weight_shape.numel(),
                seed=source.seed,
                layer=source.layer,
                redraw=source.redraw,
                device=device,
            )
            self.register_buffer("sign_plane", plane, persistent=False)
        else:
            self.register_buffer("sign_plane", None, persistent=False)

    def _nominal_density(self) -> float | None:
        """The kept fraction known from the rule alone."""
        if isinstance(self.rule, TopK):
            return self.rule.density
        if isinstance(self.rule, Fixed):
            return None if self._kept is None else self._kept / max(1, self.weight_shape.numel())
        return 1.0 if isinstance(self.rule, All) else None

    def reset_parameters(self) -> None:
        """Called by torch's constructor; the weight is made later, from the source."""

    def _reset_bias(self) -> None:
        if self.bias is not None:
            bound = 1 / math.sqrt(max(1, math.prod(self.weight_shape[1:])))
            nn.init.uniform_(self.bias, -bound, bound)

    @torch.no_grad()
    def reset_scores(self, init: str | float = "kaiming_uniform") -> None:
        """Draw the scores from torch's generator: U(+-1/sqrt(fan_in)) (edge-popup), or one constant."""
        if isinstance(init, (int, float)) and not isinstance(init, bool):
            self.scores.fill_(float(init))
            return
        check_choice("reset_scores", "score_init", init, ("kaiming_uniform",))
        bound = 1 / math.sqrt(max(1, math.prod(self.weight_shape[1:])))
        nn.init.uniform_(self.scores, -bound, bound)

    @property
    def k(self) -> int | None:
        """How many weights a layer-wise TopK keeps; None for other rules."""
        if isinstance(self.rule, TopK) and self.rule.scope == "layer":
            return kept_count(self.weight_shape.numel(), self.rule.density)
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
        row = ops.topk_select([self.ranked], [self.k], by=self.rule.by, hint=self.selection[None])[0]
        self.keep_selection(row)
        return row

    def rule_state(self) -> ops.Rule:
        """The rule as the ops take it, for the scores as they are now."""
        rule = self.rule
        if isinstance(rule, TopK):
            return ops.Rule(rule.by, self._selection_row())
        if isinstance(rule, Threshold):
            return ops.Rule(rule.by, self.selection)
        if isinstance(rule, Fixed):
            return ops.Rule("bits", self.selection, bits=self.mask_bits)
        if isinstance(rule, All):
            return ops.Rule("all", self.selection)
        if self.training:
            return ops.Rule("sampled", self.selection, step=self.draw.clone(), seed=rule.seed)
        if rule.evaluation == "expectation":
            return ops.Rule("expectation", self.selection)
        return self._fixed_draw()

    def _fixed_draw(self) -> ops.Rule:
        return ops.Rule("sampled", self.selection, step=torch.zeros_like(self.draw), seed=self.rule.seed)

    def source_state(self) -> ops.WeightSource:
        """The source as the ops take it."""
        source = self.source
        if isinstance(source, Stored):
            through = source.gradient == "through"
            return ops.WeightSource(
                "stored", self.weight_shape, stored=self.weight, layer=source.layer, through=through
            )
        kind, scale = self.scaled
        return ops.WeightSource(
            kind,
            self.weight_shape,
            plane=self.sign_plane,
            scale=scale,
            seed=source.seed,
            layer=source.layer,
            redraw=source.redraw,
        )

    def _scores_for_ops(self) -> Tensor | None:
        if isinstance(self.rule, TopK) and not self.rule.has_scores:
            return self.weight.detach()
        return self.scores

    def _after_forward(self) -> None:
        if self.training and isinstance(self.rule, Sampled):
            with torch.no_grad():
                self.draw.add_(1)

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
        """What is revealed: bool of the weight's shape. A sampled layer gives its fixed draw of evaluation."""
        rule = self._fixed_draw() if isinstance(self.rule, Sampled) else self.rule_state()
        return ops.rule_mask(self._scores_for_ops(), rule, self.weight_shape, layer=self.source.layer)

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
