"""HiddenMixin: what hidden layers share: scores, a rule, a source, and the effective weight made of them."""

from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.hidden_state import HiddenState
from hiddennet.nn.kept import EffectiveWeight, kept_weight
from hiddennet.nn.memo import check_no_transform
from hiddennet.ops.inits import InitScale
from hiddennet.ops.masked_weight import MaskedWeight, effective_weight


class HiddenMixin(HiddenState):
    """A layer whose weight is what its source gives where its rule keeps it. It asks both and knows no kinds of them.

    Attributes:
        scores: float32 Parameter of the weight's shape, or None for rules without scores.
        weight: the effective weight, float32, made anew whenever it is read (in evaluation without gradients: kept, see
            kept.py); differentiable, and not to be written to.
        stored: the Parameter `weight` of the state dict when the source stores its weights, else None.
        weight_shape: of the weight, [out, in, *kernel].
        plain_names: of the plain layer's other parameters and buffers: its bias, a subclass's gain.
        source, rule: what the layer asks; what they keep is in its parameters and buffers.
        scaled: kind and scale of generated weights.
        plan: name of a plan of hiddennet.ops.PLANS, or None for the fastest known (convolutions).
        psg: in training, the weight's gradient is PSG's, whatever the plan (hiddennet.psg sets it); of no state dict.
        input_signed: whether PSG's codes of the input are signed.

    Scores and stored weights stay float32 when the model is converted to another type, as layers compute in that of
    their input.
    """

    plain: type[nn.Module]
    scores: nn.Parameter | None
    scaled: InitScale
    plan: str | None = None
    psg: ops.PSGConfig | None = None
    input_signed: bool = False
    _sealed: bool = False  # whether source and rule have all they need
    _ours: frozenset[str] = frozenset()  # attributes that hiding gave the layer, besides those above
    _ahead: Any = None  # in a pass an Ahead: the weight that was made before it, see ahead.py
    _asked: torch.dtype | None = None  # of the weight in the last pass that had one ahead
    _standing: Any = None  # of a network's first layer, see ahead.py
    _forward_dtype: torch.dtype | None = None  # of the weight that the layer's own forward reads; None: others read it

    # the selection

    def forget(self) -> None:
        """Drop what was made of numbers as they were: the mask, the weight of evaluation, a step's counts of them."""
        self._selected.forget()
        self._kept.forget()
        for ranked in (self.scores, self.stored):
            if getattr(ranked, "bracket", None) is not None:
                ranked.bracket.forget()

    def train(self, mode: bool = True):
        """As torch's; a switch also forgets."""
        if mode != self.training:
            self.forget()
        return super().train(mode)

    def keep_selected(self, mask: ops.Mask) -> None:
        """Take the mask that the rule selected for its numbers as they are now."""
        self._selected.keep(mask, self.rule.ranked(self))
        self.__dict__["_rule_selected"] = self.rule

    def is_selected(self) -> bool:
        """Whether the mask that was selected is that of the rule and its numbers as they are now."""
        if self._selected.value is None or self._rule_selected is not self.rule:
            return False
        if torch.compiler.is_compiling() or (self.selection.is_cuda and torch.cuda.is_current_stream_capturing()):
            return self._in_pass
        # in training a layer's own mask serves the forward it was selected for: who writes to `.data` in a loop of his
        # own is seen by the next one
        lasts = self._in_pass or not self.training or not self.rule.alone
        return lasts and self._selected.current(self.rule.ranked(self))

    @torch.no_grad()
    def selected(self) -> ops.Mask:
        """The mask of a rule that selects."""
        if not self.is_selected():
            if not self.rule.alone:
                raise RuntimeError(
                    f"{type(self).__name__}: expected a selection over the whole model for {self.rule}, got none; "
                    "call the model given to hide(), or hiddennet.select(model) before its parts"
                )
            check_no_transform(self, selecting=True)
            self.keep_selected(self.rule.select([self])[0])
        return self._selected.value

    # the weight

    @property
    def stored(self) -> nn.Parameter | None:
        """The weights that a source stores."""
        return self._parameters["weight"]

    @property
    def weight(self) -> Tensor:
        """The effective weight, for whoever reads it: other modules' fast paths, fusions, attention."""
        if not self._sealed:  # torch's own constructor is at work: its parameter
            raise AttributeError("weight")
        if self._forward_dtype is not None:
            return effective_weight(self._forward_weight(self._forward_dtype), self._forward_dtype)
        self._read = True
        return effective_weight(self._forward_weight(torch.float32)).as_subclass(EffectiveWeight)

    def masked_weight(self) -> MaskedWeight:
        """The weight of a forward as the ops take it."""
        rule, training = self.rule, self.training
        if self._ahead is not None and self._in_pass:
            return self._ahead.weight._replace(ahead=self._ahead)
        check_no_transform(self)
        return self.weight_of(rule.scores(self, training), rule.state(self, training))

    def weight_of(self, scores: Tensor | None, mask: ops.Mask) -> MaskedWeight:
        """The weight of these scores and this mask; the last one where they are the same, in the same layout."""
        source, last = self.source.state(self), self._parts.value
        if torch.compiler.is_compiling():
            return MaskedWeight.of(scores, mask, source)
        layout = None if scores is None else scores.stride()
        if last is not None and last[0] is scores and last[1] is mask and last[2] is source and last[3] == layout:
            return last[4]
        weight = MaskedWeight.of(scores, mask, source)
        self._parts.value = scores, mask, source, layout, weight
        return weight

    def made_ahead(self, x: Tensor) -> Tensor | None:
        """The weight for this input as it was made for all layers of the network, where that is all there is to do."""
        ahead = self._ahead
        if not self._in_pass or self.plan is not None or self.psg is not None:
            return None
        autocast = torch.is_autocast_enabled() if x.is_cuda else torch.is_autocast_enabled(x.device.type)
        return ahead.take(torch.get_autocast_dtype(ahead.device) if autocast else x.dtype, graph=True)

    def _forward_weight(self, dtype: torch.dtype) -> MaskedWeight | Tensor:
        weight = self.masked_weight()
        return weight if self.training else kept_weight(self, weight, dtype)

    def effective_weight(self) -> Tensor:
        """The weight the layer computes with: float32, the source's where kept and +0 elsewhere; differentiable."""
        return effective_weight(self.masked_weight())

    def weight_in_pass(self) -> Tensor:
        """effective_weight() in place of the layer's forward, for a model that multiplies by it several times in one
        pass: it counts as a forward, after which a sampled layer draws anew."""
        weight = effective_weight(self._forward_weight(torch.float32))
        self.end_forward()
        return weight

    def end_forward(self) -> None:
        """Tell the rule that a forward is over, in training."""
        if self._read:
            self._read = False
        if self.training:
            self.rule.after_forward(self)
