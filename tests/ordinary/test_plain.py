"""hn.plain: ordinary layers that compute the same, which every tool for ordinary models takes."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
import warnings
from collections import OrderedDict

import pytest
import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.models import resnet18, shufflenet_v2_x0_5
from torchvision.models.feature_extraction import create_feature_extractor

import hiddennet as hn
from hiddennet import models
from tests.checks import assert_equal
from tests.nn.test_other_peoples_layers import LAYERS, encoder


def warmed(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """In evaluation, its batch norms no identities any more."""
    with torch.no_grad():
        model.train()(x)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return model.eval()


def ours(model: nn.Module) -> set[str]:
    """What is left of this package: types of modules and of their attributes, names of hooks."""
    found = set()
    for name, module in model.named_modules():
        things = [module, *vars(module).values(), *module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        things += [*module._parameters.values(), *module._buffers.values()]
        for thing in things:
            where = getattr(thing, "__module__", "") if callable(thing) else type(thing).__module__
            if str(where).startswith("hiddennet") or type(thing).__module__.startswith("hiddennet"):
                found.add(f"{name}: {type(thing).__name__}")
        if type(module) in (nn.Conv2d, nn.Linear):
            usual = vars(nn.Conv2d(1, 1, 1) if type(module) is nn.Conv2d else nn.Linear(1, 1))
            found |= {f"{name}: attribute {key}" for key in vars(module).keys() - usual.keys()}
    return found


RULES = {
    "topk": (hn.Generated(seed=1), hn.TopK(0.3)),
    "sampled": (hn.Generated(seed=1), hn.Sampled(seed=2)),
    "a draw": (hn.Generated(seed=1), hn.Sampled(seed=2, evaluation="draw")),
    "rounded": (hn.Generated(seed=1), hn.Rounded()),
    "global": (hn.Generated("kaiming_normal", seed=1), hn.Threshold(0.01, "magnitude")),
    "redrawn": (hn.Redrawn("kaiming_uniform", seed=1), hn.TopK(0.5)),
    "flipped": (hn.Flipped(seed=1), hn.All()),
    "dropped out": (hn.Stored(trainable=True), hn.TargetedDropout(0.3, 0.5, seed=5)),
}


@pytest.mark.parametrize("name", RULES)
def test_a_network_is_torchvisions_again(name):
    source, rule = RULES[name]
    x = torch.randn(2, 3, 32, 32)
    model = warmed(hn.hide(shufflenet_v2_x0_5(num_classes=5), source, rule), x).train()
    state, kinds = copy.deepcopy(model.state_dict()), [type(m) for m in model.modules()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = hn.plain(model)
    assert model.training and [type(m) for m in model.modules()] == kinds
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    reference = shufflenet_v2_x0_5(num_classes=5)
    assert [type(m) for m in made.modules()] == [type(m) for m in reference.modules()] and not ours(made)
    reference.load_state_dict(made.state_dict())
    model.eval()
    for key, layer in hn.hidden_layers(model).items():
        with hn.nn.network.in_pass(model):
            assert_equal(made.get_submodule(key).weight, layer.effective_weight(), key)
    torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-5)
    assert_equal(reference.eval()(x), made(x))
    assert all(p.grad is None for p in made.parameters()) and made.fc.weight.requires_grad


def quantised(model: nn.Module, x: torch.Tensor) -> nn.Module:
    made = torch.ao.quantization.QuantWrapper(model)
    made.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.engine)
    torch.ao.quantization.prepare(made, inplace=True)
    made(x)
    return torch.ao.quantization.convert(made)


TOOLS = {
    "fx": lambda m, x: fx.symbolic_trace(m),
    "jit.trace": torch.jit.trace,
    "export": lambda m, x: torch.export.export(
        m, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
    ).module(),
    "data parallel": lambda m, x: nn.DataParallel(m),
    "deepcopy": lambda m, x: copy.deepcopy(m),
    "pickle": lambda m, x: pickle.loads(pickle.dumps(m)),
    "features": lambda m, x: create_feature_extractor(m, {"fc": "out"}),
    "fused": lambda m, x: fuse(m),
    "quantised": quantised,
}


class Net(nn.Module):
    """A convolution that stands twice, tied linear layers, and an embedding of the same weight."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.same = nn.Sequential(self.again, nn.ReLU())
        self.up, self.line = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.Conv1d(6, 6, 3, padding=1)
        self.left, self.right = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.right.weight = self.left.weight
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = self.same(F.relu(self.norms[0](self.first(x))))
        x = F.relu(self.norms[1](self.again(x)))
        x = self.line(self.up(x).mean(3)).mean(2)
        return self.fc(self.right(self.left(x)))


def tied_net(rule=None) -> nn.Module:
    model = hn.hide(Net(), hn.Stored(trainable=True), rule or hn.TopK(0.4), score_init=lambda s: s.uniform_())
    with torch.no_grad():
        model.right.scores.copy_(model.left.scores)
    return model


def wired(name: str = "dnw_static", **graph) -> nn.Module:
    usual = {
        "dnw_static": {"blocks": [8, 12, 12], "outputs": 6, "density": 0.3, "kind": "dnw"},
        "dnw_discrete": {"nodes": 20, "inputs": 6, "outputs": 5, "density": 0.3, "kind": "dnw", "steps": 3},
        "dnw_mobilenet": {"kind": "dnw", "small": True},
    }[name]
    width = {"width": 0.1, "image_size": 32} if name == "dnw_mobilenet" else {}
    return models.build(name, num_classes=4, graph={**usual, **graph}, **width)


MODELS = {
    "torchvision": lambda: hn.hide(resnet18(num_classes=5), hn.Generated(seed=1), hn.TopK(0.3)),
    "ours": lambda: hn.hide(models.build("resnet20", num_classes=5, width=0.5), hn.Generated(seed=1), hn.TopK(0.3)),
    "shared": tied_net,
    "dnw": wired,
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")
def test_every_tool_takes_it(name, tool):
    x = torch.randn(4, 3, 32, 32)
    model = warmed(MODELS[name](), x)
    made = hn.plain(model)
    if tool == "features" and "fc" not in dict(made.named_modules()):
        pytest.skip("a network whose classifier has another name")
    if tool == "quantised" and name != "torchvision":
        pytest.skip("eager quantisation asks the author for a model without functions of tensors")
    if tool == "quantised":
        made = nn.Sequential(OrderedDict(conv=made.conv1, norm=made.bn1))  # the part that has no sum of tensors
        made = torch.ao.quantization.fuse_modules(made, [["conv", "norm"]])
        with torch.no_grad():
            torch.testing.assert_close(quantised(made, x)(x), model.bn1(model.conv1(x)), rtol=0.1, atol=0.2)
        return
    if tool == "fused" and name == "shared":
        pytest.skip("torch folds the batch norms of both calls into one convolution; fold=True leaves them")
    want = model(x)
    got = TOOLS[tool](made, x)(x)
    torch.testing.assert_close(got["out"] if tool == "features" else got, want, rtol=1e-3, atol=1e-5)


def test_modules_that_are_shared_and_tied_stay_so():
    x = torch.randn(2, 3, 8, 8)
    model = warmed(tied_net(), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = hn.plain(model)
    assert made.same[0] is made.again and made.left.weight is made.right.weight
    assert len(list(made.parameters())) == len(list(Net().parameters())) and not ours(made)
    assert made.state_dict().keys() == Net().state_dict().keys()
    torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_tie_that_masks_part_is_said():
    x = torch.randn(2, 3, 8, 8)
    model = warmed(hn.hide(Net(), hn.Stored(trainable=True), hn.TopK(0.4)), x)
    with pytest.warns(UserWarning, match="no longer one where different masks leave different weights of it: left, ri"):
        made = hn.plain(model)
    assert made.left.weight is not made.right.weight
    torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_other_layers_are_of_their_own_class_again(name):
    make, shape = LAYERS[name]
    model = hn.hide(nn.Sequential(make()), hn.Generated("kaiming_normal", seed=3), hn.TopK(0.3)).eval()
    made, x = hn.plain(model), torch.randn(shape)
    assert type(made[0]) is type(make()) and vars(made[0]).keys() == vars(make()).keys()
    assert made.state_dict().keys() == nn.Sequential(make()).state_dict().keys()
    torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-5)


def test_attention_is_torchs_again():
    model, x = hn.hide(encoder(), hn.Generated(seed=1), hn.TopK(0.5)).eval(), torch.randn(3, 5, 16)
    made = hn.plain(model)
    assert made.state_dict().keys() == encoder().state_dict().keys() and not ours(made)
    with torch.no_grad():
        torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-5)


def test_timms_models():
    timm = pytest.importorskip("timm")
    for name, size in (("resnetv2_50", 64), ("vit_tiny_patch16_224", 224), ("mobilenetv3_small_050", 64)):
        x = torch.randn(2, 3, size, size)
        model = warmed(hn.hide(timm.create_model(name, num_classes=5), hn.Generated(seed=1), hn.TopK(0.5)), x)
        made = hn.plain(model)
        reference = timm.create_model(name, num_classes=5)
        assert [type(m) for m in made.modules()] == [type(m) for m in reference.modules()] and not ours(made)
        reference.load_state_dict(made.state_dict())
        torch.testing.assert_close(reference.eval()(x), model(x), rtol=1e-4, atol=1e-5)


WIRED = {
    "static": lambda: wired(),
    "lateral": lambda: wired(lateral=True, window="centre"),
    "original": lambda: wired(compat=True, kind="targeted_dropout"),
    "discrete": lambda: wired("dnw_discrete"),
    "mobilenet": lambda: wired("dnw_mobilenet"),
    "wide classifier": lambda: wired("dnw_mobilenet", small=False, kind="random"),
    "alone": lambda: nn.Sequential(nn.Conv2d(3, 8, 1), hn.nn.Wiring(8, 6, 0.4), nn.Flatten(2), nn.Linear(1024, 4)),
}


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", WIRED)
@pytest.mark.filterwarnings("ignore:plain. .* batch norms are not folded")
def test_wirings_become_convolutions(name, fold):
    x = torch.randn(2, 3, 32, 32)
    model = warmed(WIRED[name](), x)
    made = hn.plain(model, fold=fold)
    assert not ours(made) and hn.nn.wirings(model)
    torch.testing.assert_close(made(x), model(x), rtol=1e-3, atol=1e-5)
    assert b"hiddennet" not in pickle.dumps(made)
    assert_equal(pickle.loads(pickle.dumps(made))(x), made(x))


def test_a_pickle_is_read_where_hiddennet_is_not_installed(tmp_path):
    x = torch.randn(2, 3, 32, 32)
    model = warmed(MODELS["ours"](), x)
    torch.save(hn.plain(model), tmp_path / "net.pt")
    torch.save(x, tmp_path / "x.pt")
    code = "import sys, torch; sys.modules['hiddennet'] = None; net = torch.load('net.pt', weights_only=False); "
    code += "torch.save(net(torch.load('x.pt')), 'y.pt')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), model(x))


REFUSED = {
    "continuous": (
        lambda: models.build("dnw_continuous", num_classes=4, graph={"nodes": 20, "inputs": 6, "outputs": 5}),
        "expected a network of a fixed number of layers, got a ContinuousGraph",
    ),
    "compact": (lambda: hn.compact(wired().eval()), "expected a network of layers, got a compact one"),
    "a subclass": (
        lambda: nn.Sequential(type("Mine", (hn.nn.Wiring,), {})(4, 4, 0.5)),
        "expected Wiring itself, got 0",
    ),
    "a number": (lambda: 3, "expected a model or a path, got int"),
    "no file": (lambda: "nowhere/at/all", "expected an artifact, a run or a checkpoint, got nothing at nowhere"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_sentence(name):
    make, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError, OSError), match=f"plain: {message}") as raised:
        hn.plain(make())
    assert "\n" not in str(raised.value)


class Branching(nn.Module):
    """torch.fx cannot trace it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 9))
        self.norm = nn.BatchNorm1d(9)

    def forward(self, x):
        x = self.norm(self.body(x))
        return x if x.sum() > 0 else -x


FOLDED = {
    "resnet18": (MODELS["torchvision"], (), r"^$"),
    "resnet20": (MODELS["ours"], (), r"^$"),
    "shared": (tied_net, ("norms.1",), r"1 batch norms are not folded, .*: norms\.1$"),
    "not traced": (
        lambda: hn.hide(Branching(), rule=hn.TopK(0.5)),
        ("norm",),
        r"1 batch norms are not folded, .*: norm; torch.fx cannot trace the model \(symbolically traced variables",
    ),
    "transposed": (
        lambda: hn.hide(nn.Sequential(nn.ConvTranspose2d(3, 8, 2), nn.BatchNorm2d(8), nn.ReLU())),
        (),
        r"^$",
    ),
    "linear": (
        lambda: hn.hide(nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))),
        (),
        r"^$",
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_batch_norms_are_folded_and_those_that_stay_are_named(name):
    make, stay, message = FOLDED[name]
    x = torch.randn(6, 3, 8, 8)
    model = warmed(make(), x)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = hn.plain(model, fold=True)
    left = [n for n, m in made.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert left == list(stay)
    assert len(said) == bool(stay)
    if stay:
        assert re.search(message, str(said[0].message))
    torch.testing.assert_close(made(x), model(x), rtol=1e-3, atol=1e-5)


def test_fusing_by_hand_and_low_precision():
    x = torch.randn(4, 3, 6, 6)
    model = warmed(hn.hide(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), rule=hn.TopK(0.3)), x)
    made = hn.plain(model)
    torch.testing.assert_close(fuse_conv_bn_eval(made[0], made[1])(x), model(x), rtol=1e-4, atol=1e-5)
    made = hn.plain(model.to(torch.bfloat16))
    assert {t.dtype for t in made.state_dict().values() if t.is_floating_point()} == {torch.bfloat16}
    torch.testing.assert_close(made(x.bfloat16()), model(x.bfloat16()))


def test_paths_and_wrapped_models(tmp_path):
    x = torch.randn(2, 3, 32, 32)
    model = warmed(MODELS["ours"](), x)
    hn.export(model, tmp_path / "a.safetensors")
    torch.testing.assert_close(hn.plain(tmp_path / "a.safetensors")(x), model(x), rtol=1e-4, atol=1e-5)
    wrapped = nn.DataParallel(torch.compile(model, backend="eager"))
    torch.testing.assert_close(hn.plain(wrapped)(x), model(x), rtol=1e-4, atol=1e-5)


def test_runs_and_checkpoints(tmp_path):
    from hiddennet import config
    from hiddennet.train import experiment

    one = config.load(
        "digits", ["model.width=0.2", "train.epochs=1", "train.device=cpu", f"runs={tmp_path}", "data.limit=64"]
    )
    experiment.run(one)
    folder = next(tmp_path.glob("*/*/config.yml")).parent
    x = torch.randn(2, 1, 8, 8)
    found = [folder, folder / "checkpoints" / "best.pt", folder / "artifact.safetensors"]
    outputs = [hn.plain(path)(x) for path in found]
    assert not ours(hn.plain(folder))
    assert_equal(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[0], outputs[2])
    (tmp_path / "alone").mkdir()
    lost = tmp_path / "alone" / "best.pt"
    lost.write_bytes(found[1].read_bytes())
    with pytest.raises(RuntimeError, match="expected a checkpoint in the folder of its run"):
        hn.plain(lost)
