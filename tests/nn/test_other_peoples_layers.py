"""hide() on models that nobody here wrote: attention, other convolutions, subclasses, ties, hooks, meta, dtypes."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval, parametrizations, prune
from torch.utils.checkpoint import checkpoint

import hiddennet as hn
from tests.checks import assert_equal


class Standardised(nn.Conv2d):
    """timm's StdConv2d: the weight is standardised at each forward."""

    def forward(self, x):
        weight = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True).reshape_as(
            self.weight
        )
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Scaled(nn.Conv2d):
    """timm's ScaledStdConv2d: with a trained gain of its own, and a buffer."""

    def __init__(self, *args):
        super().__init__(*args)
        self.gain = nn.Parameter(torch.full((self.out_channels, 1, 1, 1), 0.5))
        self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.gain * self.factor, self.bias, self.stride, self.padding)


class Same(nn.Conv2d):
    """timm's and TensorFlow's "same" padding."""

    def forward(self, x):
        return self._conv_forward(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias)


LAYERS = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 3, stride=2), (2, 4, 7, 7, 7)),
    "transposed1d": (lambda: nn.ConvTranspose1d(4, 6, 3), (2, 4, 9)),
    "transposed2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (2, 4, 5, 5)),
    "transposed3d": (lambda: nn.ConvTranspose3d(4, 6, 3), (2, 4, 4, 4, 4)),
    "standardised": (lambda: Standardised(4, 6, 3), (2, 4, 6, 6)),
    "scaled": (lambda: Scaled(4, 6, 3), (2, 4, 6, 6)),
    "same": (lambda: Same(4, 6, 2), (2, 4, 6, 6)),
    "grouped": (lambda: nn.Conv1d(4, 40, 3, groups=4, padding_mode="circular", padding=1), (2, 4, 9)),
}


@pytest.mark.parametrize(
    "source", [hn.Generated("kaiming_normal", seed=3), hn.Stored(trainable=True)], ids=["drawn", "stored"]
)
@pytest.mark.parametrize("name", LAYERS)
def test_other_layers_compute_with_the_effective_weight(name, source, tmp_path):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    model = hn.hide(nn.Sequential(make()), source, hn.TopK(0.3))
    layer, x = model[0], torch.randn(shape)
    assert isinstance(layer, hn.nn.HiddenMixin) and hn.density(model) == pytest.approx(0.3, abs=0.02)
    plain = make()
    plain.load_state_dict({"weight": layer.effective_weight().detach(), "bias": layer.bias.detach()}, strict=False)
    torch.testing.assert_close(model(x), plain(x))
    model(x).square().sum().backward()
    plain(x).square().sum().backward()
    want = plain.weight.grad * layer.source_weight() * layer.scores.detach().sign()
    torch.testing.assert_close(layer.scores.grad, want, rtol=1e-4, atol=1e-5)
    model.eval()
    assert_equal(copy.deepcopy(model)(x), model(x))
    assert_equal(pickle.loads(pickle.dumps(model))(x), model(x))
    hn.export(model, tmp_path / "a.safetensors")
    assert_equal(hn.load(tmp_path / "a.safetensors", nn.Sequential(make()))(x), model(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype == torch.bfloat16


def encoder(batch_first: bool = True) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def test_attention_is_hidden_and_its_fast_path_reads_effective_weights(tmp_path):
    torch.manual_seed(0)
    model, x = hn.hide(encoder(), hn.Generated(seed=1), hn.TopK(0.5)), torch.randn(3, 5, 16)
    names = {"self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2"}
    assert {n.split(".", 2)[2] for n in hn.hidden_layers(model)} == names
    slow = model(x)
    slow.square().sum().backward()
    assert all(layer.scores.grad is not None for layer in hn.hidden_layers(model).values())
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x), slow.detach(), rtol=1e-4, atol=1e-5)
    hn.export(model, tmp_path / "a.safetensors")
    again = hn.load(tmp_path / "a.safetensors", encoder())
    with torch.no_grad():
        assert_equal(again(x), model(x))
    twin = hn.hide(encoder(), hn.Generated(seed=1), hn.TopK(0.5))
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert_equal(twin.eval()(x), model(x))


def test_attention_that_stays_dense_is_as_it_was():
    model = nn.ModuleDict({"a": nn.MultiheadAttention(8, 2), "b": nn.Linear(8, 8)})
    hn.hide(model, exclude=["a.*"])
    assert type(model["a"]) is nn.MultiheadAttention and "a.in_proj_weight" in model.state_dict()
    assert list(hn.hidden_layers(model)) == ["b"]


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny", "densenet121", "regnet_y_400mf"])
def test_torchvisions_models_run_and_learn(name):
    models = pytest.importorskip("torchvision.models")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = hn.hide(getattr(models, name)(num_classes=5), rule=hn.TopK(0.4))
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    layers = hn.hidden_layers(model)
    assert all(layer.scores.grad is not None for layer in layers.values())
    used = [layer.weight for layer in list(layers.values())[:3]]
    assert all(torch.equal(w.detach() != 0, layer.mask()) for w, layer in zip(used, layers.values(), strict=False))


def test_fusing_with_batch_norm_reads_the_effective_weight():
    torch.manual_seed(0)
    model = hn.hide(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), rule=hn.TopK(0.3))
    x = torch.randn(4, 3, 6, 6)
    model(x)
    model.eval()
    plain = nn.Conv2d(3, 8, 3)
    plain.load_state_dict({"weight": model[0].weight.detach(), "bias": model[0].bias.detach()})
    torch.testing.assert_close(fuse_conv_bn_eval(plain.eval(), model[1])(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_sampled_attention_draws_anew_at_each_pass():
    torch.manual_seed(0)
    model, x = hn.hide(encoder(), rule=hn.Sampled(seed=1)), torch.randn(3, 5, 16)
    first, second = model(x), model(x)
    assert not torch.equal(first, second)
    draws = {n: int(layer.draw) for n, layer in hn.hidden_layers(model).items()}
    assert set(draws.values()) == {3}


TIES = {
    "two layers": lambda: _tied(nn.ModuleDict({"a": nn.Linear(6, 6), "b": nn.Linear(6, 6)})),
    "embedding": lambda: _tied(nn.ModuleDict({"a": nn.Embedding(6, 6), "b": nn.Linear(6, 6)})),
}


def _tied(model: nn.ModuleDict) -> nn.ModuleDict:
    model["b"].weight = model["a"].weight
    return model


@pytest.mark.parametrize("name", TIES)
def test_ties_are_kept_or_refused(name):
    model = TIES[name]()
    before = [type(m) for m in model.values()]
    with pytest.raises(ValueError, match=r"weights of layers' own, got one .* Stored\(\), or exclude"):
        hn.hide(model)
    assert [type(m) for m in model.values()] == before and model["a"].weight is model["b"].weight
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hn.hide(model, hn.Stored(trainable=True))
    stored = [m.stored if isinstance(m, hn.nn.HiddenMixin) else m.weight for m in model.values()]
    assert stored[0] is stored[1] and len(list(model.parameters())) == len({id(p) for p in model.parameters()})


def test_a_pruned_tie_is_not_hidden_in_one_alone():
    model = TIES["two layers"]()
    with pytest.raises(ValueError, match="weights of layers' own"):
        hn.pruning.hide(model, {"a.weight": torch.rand(6, 6) < 0.5})


def test_hooks_stay():
    seen = []
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(1, 2, 1))
    model[0].register_forward_hook(lambda *_: seen.append("after"))
    model[0].register_forward_pre_hook(lambda *_: seen.append("before"))
    model[0].register_full_backward_hook(lambda *_: seen.append("backward"))
    hn.hide(model, include="0")
    model[0](torch.randn(2, 4, requires_grad=True)).sum().backward()
    assert seen == ["before", "after", "backward"]


MADE = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "weight norm": lambda layer: parametrizations.weight_norm(layer),
    "spectral norm": lambda layer: parametrizations.spectral_norm(layer),
}


@pytest.mark.parametrize("name", MADE)
def test_weights_made_of_others_are_refused_by_name(name):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    MADE[name](model[2])
    with pytest.raises(ValueError, match=r"weight of 2 to be a parameter of its own.*or exclude the layer"):
        hn.hide(model)
    hn.hide(model, exclude="2")
    assert list(hn.hidden_layers(model)) == ["0"]
    model(torch.randn(2, 4)).sum().backward()


def test_what_stays_dense_is_said_once_and_counted():
    model = nn.ModuleDict({"embed": nn.Embedding(50, 8), "lstm": nn.LSTM(8, 8), "out": nn.Linear(8, 50)})
    with pytest.warns(
        UserWarning, match=r"hide: 6\d\.\d% of the weights stay dense.*embed \(Embedding\), lstm \(LSTM\)"
    ) as said:
        hn.hide(model, rule=hn.TopK(0.25))
    assert len(said) == 1
    assert hn.density(model) == 0.25
    dense = 50 * 8 + 2 * 32 * 8
    assert hn.density(model, of="all") == pytest.approx((100 + dense) / (400 + dense))
    text = hn.summary(model)
    assert all(word in text for word in ("out", "Linear", "50x8", "topk", "embed", "dense", "lstm"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hn.hide(nn.ModuleDict({"e": nn.Embedding(5, 4), "l": nn.Linear(4, 4)}), include="l")
        hn.hide(
            nn.ModuleDict({"e": nn.Embedding(5, 4), "l": nn.Linear(4, 4)}),
            exclude=lambda n, m: isinstance(m, nn.Embedding),
        )
    with pytest.raises(ValueError, match="of to be 'hidden' or 'all'"):
        hn.density(model, of="some")


@pytest.mark.parametrize("how", ["assign", "to_empty"])
@pytest.mark.parametrize("init", ["signed_constant", "kaiming_normal"])
@pytest.mark.parametrize("rule", [hn.TopK(0.3), hn.Rounded(), hn.Threshold(0.1, "magnitude")], ids=lambda r: r.kind)
def test_hidden_on_meta_then_loaded(how, init, rule):
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 5))

    source, x = hn.Generated(init, seed=4), torch.randn(2, 3, 6, 6)
    model = hn.hide(network(), source, rule).eval()
    with torch.device("meta"):
        twin = hn.hide(network(), source, rule)
    if how == "to_empty":
        twin.to_empty(device="cpu")
    twin.load_state_dict(model.state_dict(), assign=how == "assign")
    assert_equal(twin.eval()(x), model(x))
    assert hn.density(twin) == hn.density(model)


@pytest.mark.parametrize(
    "source", [hn.Redrawn("kaiming_uniform", seed=1), hn.Activated(seed=1), hn.Flipped(seed=1)], ids=lambda s: s.kind
)
def test_sources_with_state_on_meta(source):
    model = hn.hide(nn.Sequential(nn.Linear(6, 4)), source, hn.TopK(0.5)).eval()
    with torch.device("meta"):
        twin = hn.hide(nn.Sequential(nn.Linear(6, 4)), source, hn.TopK(0.5))
    twin.to_empty(device="cpu").load_state_dict(model.state_dict())
    x = torch.randn(3, 6)
    assert_equal(twin.eval()(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_conversions_keep_scores_in_float32_and_compute_in_the_inputs_type(dtype, tmp_path):
    model = hn.hide(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16, 5)),
        hn.Stored(trainable=True),
        hn.TopK(0.5),
    )
    x = torch.randn(4, 3, 6, 6)
    model(x)
    want = copy.deepcopy(model).eval()(x)
    model.to(dtype)
    assert model[0].scores.dtype == model[0].stored.dtype == torch.float32 and model[0].bias.dtype == dtype
    out = model(x.to(dtype))
    assert out.dtype == dtype
    out.float().square().sum().backward()
    assert model[0].scores.grad.dtype == torch.float32
    hn.export(model.float().eval(), tmp_path / "a.safetensors")
    torch.testing.assert_close(model(x), want, rtol=0.1, atol=0.1)
    with pytest.raises(TypeError, match="float32, bfloat16 or float16, got torch.float64"):
        model.double()(x.double())


def test_inference_mode_first_and_a_gradient_later():
    model, x = hn.hide(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))), torch.randn(3, 6)
    with torch.inference_mode():
        model(x)
        model.eval()(x)
    model.train()(x).sum().backward()
    assert model[0].scores.grad is not None
    model.zero_grad()
    model.eval()(x).sum().backward()
    assert model[0].scores.grad is not None


NUMBERS = {
    "numpy": (np.float32(0.25), np.int64(7)),
    "numpy 0-dim": (np.array(0.25), np.array(7)),
    "tensor": (torch.tensor(0.25), torch.tensor(7)),
    "whole": (1, 7),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_any_number_becomes_a_plain_one(kind, tmp_path):
    density, seed = NUMBERS[kind]
    model = hn.hide(nn.Sequential(nn.Linear(8, 4)), hn.Generated(seed=seed, gain=density), hn.TopK(density))
    assert type(model[0].rule.density) is float and type(model[0].source.seed) is int
    torch.save(model.state_dict(), tmp_path / "s.pt")
    torch.load(tmp_path / "s.pt", weights_only=True)
    hn.export(model, tmp_path / "a.safetensors")
    for rule in (
        hn.Sampled(seed=seed),
        hn.Rounded(density),
        hn.Threshold(density),
        hn.nn.Grouped(np.int32(2), np.int32(4)),
    ):
        assert all(type(v) in (int, float, bool, str) for v in rule.spec().values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hn.TopK("0.5"), "TopK: expected density to be a number, got '0.5'"),
        (lambda: hn.TopK(True), "TopK: expected density to be a number, got True"),
        (lambda: hn.TopK(torch.rand(2)), "TopK: expected density to be a number, got tensor"),
        (lambda: hn.Generated(seed=1.5), "Generated: expected seed to be a whole number, got 1.5"),
        (lambda: hn.nn.Grouped(2.0, 4), "Grouped: expected n to be a whole number, got 2.0"),
        (lambda: hn.hide(nn.Sequential(nn.Linear(2, 2)), rule=0.3), r"rule to be a hiddennet.nn.Rule.*got float"),
        (
            lambda: hn.hide(nn.Sequential(nn.Linear(2, 2)), "kaiming_normal"),
            r"a hiddennet.nn.Source.*got str",
        ),
        (lambda: hn.hide(hn.hide(nn.Sequential(nn.Linear(2, 2)))), "got none of 0 that can be; 1 are hidden already"),
        (lambda: hn.HiddenLinear(2, 2, rule=hn.Fixed(torch.rand(2, 2))), "a mask of 0 and 1 for Fixed"),
        (lambda: hn.HiddenLinear(2, 2, rule=hn.Fixed(torch.full((2, 2), torch.nan))), "a mask of 0 and 1 for Fixed"),
    ],
)
def test_one_sentence(call, message):
    with pytest.raises((ValueError, TypeError), match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_state_dicts_are_tensors_alone_and_can_be_averaged(tmp_path):
    from safetensors.torch import load_file, save_file

    models = [hn.hide(nn.Sequential(nn.Linear(6, 4)), hn.Generated(seed=1)) for _ in range(2)]
    states = [m.state_dict() for m in models]
    save_file(states[0], tmp_path / "s.safetensors")
    models[1].load_state_dict(load_file(tmp_path / "s.safetensors"))
    assert_equal(models[1][0].scores, models[0][0].scores)
    models[1].load_state_dict({key: (states[0][key] + states[1][key]) / 2 for key in states[0]})
    averaged = torch.optim.swa_utils.AveragedModel(models[0], use_buffers=True)
    averaged.update_parameters(models[1])
    old = {**states[0], "0._extra_state": models[0][0].spec()}  # as earlier versions wrote it
    models[1].load_state_dict(old)
    with pytest.raises(ValueError, match="seed=1, got 2"):
        models[1].load_state_dict(hn.hide(nn.Sequential(nn.Linear(6, 4)), hn.Generated(seed=2)).state_dict())


WRAPPED = {
    "compiled": lambda m: torch.compile(m, backend="eager"),
    "data parallel": nn.DataParallel,
    "averaged": lambda m: torch.optim.swa_utils.AveragedModel(m),
    "both": lambda m: torch.compile(torch.optim.swa_utils.AveragedModel(m), backend="eager"),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_model_is_exported_as_what_it_wraps(name, tmp_path):
    model, x = hn.hide(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))).eval(), torch.randn(3, 6)
    hn.export(WRAPPED[name](model), tmp_path / "a.safetensors")
    plain = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    assert_equal(hn.load(tmp_path / "a.safetensors", plain)(x), model(x))


DRAWN = {
    "sampled": (hn.Generated(seed=1), hn.Sampled(seed=5)),
    "targeted_dropout": (hn.Stored(trainable=True), hn.TargetedDropout(0.3, 0.5, seed=5)),
    "probabilistic": (hn.Generated(seed=1), hn.Rounded(rounding="probabilistic", seed=5)),
    "noisy": (hn.Generated(seed=1), hn.Rounded(noise=0.2, seed=5)),
}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("name", DRAWN)
def test_recomputed_activations_use_the_forwards_draw(name, reentrant, twice):
    source, rule = DRAWN[name]

    def network() -> nn.Module:
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        return hn.hide(nn.ModuleDict({"body": body}), source, rule, score_init=lambda s: s.uniform_())

    plain, again = network(), network()
    inputs = [torch.randn(4, 8, requires_grad=True) for _ in range(2 if twice else 1)]
    sum(plain["body"](x).square().sum() for x in inputs).backward()
    sum(checkpoint(again["body"], x, use_reentrant=reentrant).square().sum() for x in inputs).backward()
    for (key, want), (_, got) in zip(plain.named_parameters(), again.named_parameters(), strict=True):
        if want.grad is not None:
            torch.testing.assert_close(got.grad, want.grad, msg=key)
    for a, b in zip(hn.hidden_layers(plain).values(), hn.hidden_layers(again).values(), strict=True):
        if "draw" in a._buffers:
            assert int(a.draw) == int(b.draw) == 1 + len(inputs)


@pytest.mark.parametrize("source", [
    hn.Generated(), hn.Stored(trainable=True)
], ids=["scores", "weights"])  # fmt: skip
def test_functional_transforms_of_what_learns_are_refused_and_of_what_is_fixed_hold(source):
    from torch.func import functional_call, grad, jacrev, jvp, vmap

    model = hn.hide(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), source, hn.TopK(0.5))
    x = torch.randn(5, 6)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, x):
        return functional_call(model, parameters, (x,)).square().sum()

    transforms = {
        "over parameters": lambda: grad(loss)(parameters, x),
        "over examples": lambda: vmap(grad(loss), in_dims=(None, 0))(parameters, x),
        "jacrev": lambda: jacrev(model)(x[0]),
        "vmap": lambda: vmap(model)(x),
        "jvp": lambda: jvp(model, (x,), (x,)),
        "of a layer": lambda: jacrev(model[0])(x[0]),
    }
    for mode in (True, False):
        model.train(mode)
        for transform in transforms.values():
            with pytest.raises(
                RuntimeError, match="hiddennet: expected no transform of torch.func over a HiddenLinear"
            ):
                transform()
    want = model.requires_grad_(False).eval()(x)
    torch.testing.assert_close(vmap(model)(x), want)
    torch.testing.assert_close(jvp(model, (x,), (x,))[0], want)
    weights = model[0].weight, model[2].weight
    slopes = weights[1] @ torch.diag((model[0](x[0]) > 0).float()) @ weights[0]
    torch.testing.assert_close(jacrev(model)(x[0]), slopes)


def test_functional_transforms_of_a_wiring():
    from torch.func import jacrev, vmap

    made, x = hn.nn.Wiring(6, 4, 0.5), torch.randn(3, 6, 2, 2)
    for transform in (lambda: vmap(made)(x[:, None]), lambda: jacrev(made)(x)):
        with pytest.raises(RuntimeError, match="hiddennet: expected no transform of torch.func over a Wiring"):
            transform()


WRITES = {
    "copy_": lambda w: w.copy_(torch.ones(4, 6)),
    "init": lambda w: nn.init.kaiming_uniform_(w),
    "item": lambda w: w.__setitem__((0, 0), 1.0),
    "data": lambda w: w.data.fill_(1.0),
    "detached": lambda w: w.detach().mul_(2.0),
    "out": lambda w: torch.add(w, 1.0, out=w),
    "in place": lambda w: w.__imul__(2.0),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("source", [hn.Generated(), hn.Stored()], ids=lambda source: source.kind)
def test_writing_to_the_effective_weight_is_refused(name, source):
    model = hn.hide(nn.Sequential(nn.Linear(6, 4)), source)
    before = model[0].weight.clone()
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"write to layer\.stored"):
        WRITES[name](model[0].weight)
    assert_equal(model[0].weight, before)


def test_setting_the_weight_is_taken_where_it_is_stored_and_refused_elsewhere():
    model = hn.hide(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), hn.Stored(trainable=True), hn.TopK(0.5))
    x = torch.randn(2, 3, 6, 6)
    model(x)
    torch.testing.assert_close(fuse_conv_bn_eval(model[0].eval(), model[1].eval())(x), model(x), rtol=1e-4, atol=1e-5)
    drawn = hn.hide(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).eval()
    with pytest.raises(RuntimeError, match="expected no weight to be set"):
        fuse_conv_bn_eval(drawn[0], drawn[1])
