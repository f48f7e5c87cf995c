"""HiddenMixin: what hidden layers share: scores, a rule, a source, and the effective weight made of them."""

from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.hidden_state import HiddenState, ScoreInit
from hiddennet.nn.kept import EffectiveWeight, kept_weight
from hiddennet.nn.memo import Memo, check_no_transform
from hiddennet.nn.rule import Rule
from hiddennet.nn.source import Source
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
    _forward_dtype: torch.dtype | None = None  # of the weight that the layer's own forward reads; None: others read it

    def become_hidden(self, source: Source, rule: Rule, score_init: ScoreInit, *, fresh: bool) -> None:
        """Take source and rule in place of the plain layer's weight, whose values are undefined where it is `fresh`."""
        for role, part, kind in (("source", source, Source), ("rule", rule, Rule)):
            if not isinstance(part, kind):
                raise TypeError(
                    f"{type(self).__name__}: expected {role} to be a hiddennet.nn.{kind.__name__}, such as "
                    f"{'Generated() or Stored()' if kind is Source else 'TopK(0.5)'}, got {type(part).__name__}"
                )
        own, theirs = self._parameters["weight"], frozenset(vars(self))
        self.plain_names = frozenset((*self._parameters, *self._buffers)) - {"weight"}
        self.weight_shape = own.shape
        self.register_buffer("selection", torch.zeros(4, dtype=torch.int32, device=own.device), persistent=False)
        self._selected, self._kept = Memo(), Memo()  # the mask, and the weight of evaluation, see kept.py
        self._drawn, self._parts = Memo(), Memo()  # what the source said last, and the weight made of that
        self._rule_selected: Rule | None = None
        self._in_pass = False  # within a forward of the whole network, which has selected for all layers
        self.passes: dict[int, Tensor | int] = {}  # the steps that forwards drew by, for their recomputation
        self._read = False  # whether the weight was read in a forward, without a forward of the layer
        self.rule = rule
        self.rule = rule.attach(self)
        self.source = source
        self.source = source.attach(self, fresh)
        self.register_parameter("scores", None)
        if rule.has_scores:
            self.scores = nn.Parameter(torch.empty(self.weight_shape, dtype=torch.float32, device=own.device))
            self.reset_scores(score_init)
        elif rule.selects and rule.ranked(self) is None:
            raise ValueError(
                f"{type(self).__name__}: expected a source that stores its weights, such as Stored(), for {rule}, "
                f"got {source}"
            )
        self._sealed = True
        self._ours = frozenset(vars(self)) - theirs

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As torch's; a weight is taken where the source stores weights."""
        if name == "weight" and self._sealed and param is not None and self.stored is None:
            raise RuntimeError(
                f"{type(self).__name__}: expected no weight to be set, since {self.source.kind} weights are made by "
                "their source, got one; put a plain layer in its place"
            )
        super().register_parameter(name, param)

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
        device = x.device.type
        autocast = torch.is_autocast_enabled(device)
        return ahead.take(torch.get_autocast_dtype(device) if autocast else x.dtype, graph=True)

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

    @torch.no_grad()
    def source_weight(self) -> Tensor:
        """All weights of the source, kept or not: float32 of the weight's shape."""
        return ops.masked_weight(None, ops.Mask("all", self.selection), source=self.source.state(self))

    @torch.no_grad()
    def mask(self) -> Tensor:
        """What is kept: bool of the weight's shape. A layer that draws or rounds gives its mask of evaluation."""
        return self.source.narrow(self, self.rule.mask(self))

    def kept(self) -> float:
        """How many weights are kept; for a sampled layer the expected number."""
        return self.rule.kept(self)

    @property
    def k(self) -> int | None:
        """How many weights the rule keeps whatever the scores; None where that depends on them."""
        return self.rule.k(self)

    @property
    def density(self) -> float:
        """The kept fraction of the weights."""
        return self.kept() / max(1, self.weight_shape.numel())
