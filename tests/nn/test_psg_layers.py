"""hn.psg and latent scores: which layers learn by PSG, what is saved, what a mask does, and that no state changes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import hiddennet as hn
from hiddennet import models
from hiddennet.ops import PSGConfig, psg_conv2d
from tests.checks import assert_equal

CONFIG = PSGConfig(threshold=0.2)
RULES = {
    "fixed": lambda shape: (hn.Stored(trainable=True), hn.Fixed(torch.rand(shape) < 0.4)),
    "through": lambda shape: (hn.Stored(trainable=True, gradient="through"), hn.Fixed(torch.rand(shape) < 0.4)),
    "edge-popup": lambda shape: (hn.Generated("kaiming_normal", seed=3), hn.TopK(0.4)),
    "sampled": lambda shape: (hn.Generated(seed=3), hn.Sampled(seed=5)),
}


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", RULES)
def test_hidden_layers(device, kind, last):
    """As psg_conv2d of the effective weight, whose gradient then goes through mask and rule as ever."""
    torch.manual_seed(1)
    layout = torch.channels_last if last else torch.contiguous_format
    source, rule = RULES[kind]((6, 4, 3, 3))
    layer = hn.HiddenConv2d(4, 6, 3, padding=1, bias=True, source=source, rule=rule).to(device, memory_format=layout)
    x = torch.randn(3, 4, 6, 6, device=device).relu().contiguous(memory_format=layout).requires_grad_()
    layer.psg = CONFIG
    twin = copy.deepcopy(layer)
    weight = twin.effective_weight()
    want = psg_conv2d(x, weight, twin.bias, 1, 1, config=CONFIG)
    y = layer(x)
    assert_equal(y, want)
    dy = torch.randn_like(y)
    learns = [p for p in layer.parameters() if p.requires_grad]
    theirs = [p for p in twin.parameters() if p.requires_grad]
    got, wanted = torch.autograd.grad(y, [x, *learns], dy), torch.autograd.grad(want, [x, *theirs], dy)
    for a, b in zip(got, wanted, strict=True):
        assert_equal(a, b)
    layer.eval()  # plain again: an exact gradient, through torch's convolution
    assert_close(layer(x), F.conv2d(x, layer.effective_weight(), layer.bias, padding=1), rtol=1e-5, atol=1e-5)


def test_threshold_is_of_the_unmasked_gradient(device):
    """A pruned position may hold the largest gradient: it sets the threshold, and gets none."""
    mask = torch.ones(1, 2, 1, 1)
    mask[0, 1] = 0
    source = hn.Stored(torch.tensor([2.0, 3.0]).view(1, 2, 1, 1), trainable=True)
    layer = hn.HiddenConv2d(2, 1, 1, source=source, rule=hn.Fixed(mask)).to(device)
    x = torch.stack([torch.full((2, 2), 0.1), torch.ones(2, 2)])[None].to(device)
    for threshold, kept in ((0.05, True), (0.5, False)):
        layer.psg = PSGConfig(threshold=threshold)
        layer.stored.grad = None
        layer(x).sum().backward()
        grad = layer.stored.grad.flatten()
        assert float(grad[1]) == 0.0
        assert (float(grad[0]) != 0.0) == kept


def test_hidden_linear(device):
    layer = hn.HiddenLinear(7, 5, source=hn.Stored(trainable=True), rule=hn.Fixed(torch.rand(5, 7) < 0.5)).to(device)
    layer.psg = CONFIG
    x = torch.rand(4, 7, device=device)
    weight = layer.effective_weight().detach().requires_grad_()
    hn.ops.psg_linear(x, weight, config=CONFIG).square().sum().backward()
    layer(x).square().sum().backward()
    assert_close(layer.stored.grad, weight.grad * layer.mask())


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """What autograd keeps for the backward that is neither parameter nor buffer, each storage once."""
    existing = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    alive = []  # a freed address must not be counted for another tensor

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in existing:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = F.cross_entropy(model(x), torch.zeros(len(x), dtype=torch.long, device=x.device))
    del loss
    return sum(found.values())


def test_memory_saved_for_the_backward(device):
    """ResNet-18, batch 32, masked: no more than a plain network keeps (a fiftieth for what is small)."""
    x = torch.randn(32, 3, 32, 32, device=device)
    torch.manual_seed(0)
    plain = models.build("cifar_resnet18", num_classes=10).to(device)
    net = copy.deepcopy(plain)
    hn.hide(net, hn.Stored(trainable=True), lambda name, m: hn.Fixed(torch.rand(m.weight.shape) < 0.3))
    hn.psg(net, PSGConfig())
    assert saved_bytes(net, x) <= 1.02 * saved_bytes(plain, x)

    def pooled() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.Flatten()).to(device)

    # nothing else keeps the second convolution's input: a byte an element, and 4 for the step
    floats, codes = saved_bytes(pooled(), x), saved_bytes(hn.psg(pooled(), PSGConfig()), x)
    assert floats - codes == 32 * 8 * 15 * 15 * 3 - 4


def test_plain_layers_become_psg_layers(device):
    plain = small_net().to(device)
    net = copy.deepcopy(plain)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    keys = list(net.state_dict())
    assert hn.psg(net, CONFIG) is net
    assert list(net.state_dict()) == keys
    assert [type(net[i]) for i in (0, 3, 5, 8)] == [hn.nn.PSGConv2d] * 3 + [hn.nn.PSGLinear]
    assert [net[i].input_signed for i in (0, 3, 5, 8)] == [True, False, False, False]
    x = torch.randn(4, 3, 6, 6, device=device)
    assert_close(net(x), plain(x), rtol=1e-5, atol=1e-5)
    net(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert_close(net[8].bias.grad, plain[8].bias.grad, rtol=1e-4, atol=1e-5)
    assert not torch.equal(net[0].weight.grad, plain[0].weight.grad)
    assert bool((net[0].weight.grad == 0).any())  # below the threshold
    before = net[0].weight.detach().clone()
    optimizer.step()  # still the layers' own parameters
    assert not torch.equal(net[0].weight, before)
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert copied[0].psg == CONFIG and copied[0].input_signed
    for layer in (net[i] for i in (0, 3, 5, 8)):
        layer.psg = None
    net.load_state_dict(plain.state_dict())
    assert_equal(net.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(
    ("arguments", "signed"),
    [
        ({}, ["0"]),
        ({"signed": ["5", "8"]}, ["5", "8"]),
        ({"signed": "[58]"}, ["5", "8"]),
        ({"signed": ()}, []),
        ({"example": torch.randn(2, 3, 6, 6)}, ["0", "5", "8"]),  # 3 alone follows a ReLU
        ({"example": torch.rand(2, 3, 6, 6)}, ["5", "8"]),
    ],
)
def test_signed(arguments, signed):
    net = small_net()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    hn.psg(net, CONFIG, **arguments)
    assert [name for name, m in net.named_modules() if getattr(m, "input_signed", False)] == signed
    assert net.training and all(m.training for m in net.modules())
    for key, value in net.state_dict().items():
        assert_equal(value, state[key])  # looking at an example is no step


def test_choosing_layers():
    net = hn.psg(small_net(), CONFIG, include=["0", "3"], exclude="3")
    assert [type(net[i]) is hn.nn.PSGConv2d for i in (0, 3, 5)] == [True, False, False]
    hn.psg(net, PSGConfig(), exclude="0")
    assert (net[0].psg, net[3].psg) == (CONFIG, PSGConfig())
    only = hn.psg(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), CONFIG)
    assert [layer.input_signed for layer in only] == [True, False]
    hidden = hn.hide(small_net(), hn.Stored(trainable=True), hn.All())
    extra = {n: m.get_extra_state().tolist() for n, m in hn.hidden_layers(hidden).items()}
    hn.psg(hidden, CONFIG)
    assert {n: m.get_extra_state().tolist() for n, m in hn.hidden_layers(hidden).items()} == extra


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 3}, TypeError, "model to be an nn.Module"),
        ({"config": "8/8/16"}, TypeError, "config to be a PSGConfig"),
        ({"signed": "conv1"}, ValueError, "signed to name a convolution or linear layer, got 'conv1'"),
        ({"include": ["0", "x*"]}, ValueError, r"include to name .* got 'x\*'"),
        ({"include": "0", "exclude": "0"}, ValueError, "layers to change, got none"),
        ({"model": nn.ReLU()}, ValueError, "layers to change, got none"),
        ({"signed": "0", "example": torch.zeros(1, 3, 6, 6)}, ValueError, "signed or an example, got both"),
    ],
)
def test_bad_psg(arguments, error, message):
    call = {"model": small_net(), "config": CONFIG, **arguments}
    with pytest.raises(error, match=message):
        hn.psg(call.pop("model"), call.pop("config"), **call)


def test_an_example_must_pass_every_layer():
    net = nn.ModuleDict({"used": nn.Linear(3, 3), "unused": nn.Linear(3, 3)})
    net.forward = net["used"].forward
    with pytest.raises(ValueError, match="pass every layer, got none for used, unused"):
        hn.psg(net, CONFIG, example=torch.zeros(1, 3))


def test_compiled_network(device):
    net = hn.hide(small_net(), hn.Stored(trainable=True), lambda name, m: hn.Fixed(torch.rand(m.weight.shape) < 0.5))
    hn.psg(net.to(device), CONFIG)
    x = torch.randn(4, 3, 6, 6, device=device)
    learns = list(net.parameters())
    want = torch.autograd.grad(net(x).square().sum(), learns)
    compiled = torch.compile(lambda x: net(x).square().sum(), fullgraph=True, backend="aot_eager")
    for got, wanted in zip(torch.autograd.grad(compiled(x), learns), want, strict=True):
        assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["pruning", "flipping", "ternary", "none"])
def test_latent_scores(device, activation):
    torch.manual_seed(2)
    mask = torch.rand(4, 3, 3, 3) < 0.5
    source = hn.Activated("kaiming_normal", seed=3, activation=activation)
    layer = hn.HiddenConv2d(3, 4, 3, source=source, rule=hn.Fixed(mask)).to(device)
    t, theta = layer.latent, layer.drawn
    low, high = {"pruning": (0.01, 0.1), "flipping": (0.01, 0.1), "ternary": (-1, 1), "none": (0, 1)}[activation]
    assert bool((t >= low).all() and (t <= high).all()) and float(t.detach().std()) > 0
    with torch.no_grad():
        t[0, 0, 0] = torch.tensor([-0.05, 0.0, 0.05])
        t[0, 0, 1] = torch.tensor([-0.5, 0.3, 0.9])
    s, mask = t.detach(), mask.to(device)
    value = {
        "pruning": (s > 0).float(),
        "flipping": s.sign(),
        "ternary": (s > 0.1).float() - (s < -0.1).float(),
        "none": torch.ones_like(s),
    }[activation]
    weight = layer.effective_weight()
    assert_equal(weight.detach(), torch.where(mask, theta * value, 0.0))
    assert_equal(layer.mask(), mask & (value != 0))
    if activation == "none":
        return
    g = torch.randn_like(theta)
    weight.backward(g)
    through = {"ternary": (s.abs() > 0.1).float()}.get(activation, torch.ones_like(s))
    assert_close(t.grad, g * mask * theta * through)
    if activation == "ternary":
        assert_close(layer.high.grad, -(g * mask * theta)[s > 0.1].sum().view(1), rtol=1e-4, atol=1e-5)
        assert_close(layer.low.grad, -(g * mask * theta)[s < -0.1].sum().view(1), rtol=1e-4, atol=1e-5)
    again = hn.HiddenConv2d(3, 4, 3, source=source, rule=hn.Fixed(mask.cpu())).to(device)
    again.load_state_dict(layer.state_dict())
    assert_equal(again.effective_weight(), layer.effective_weight())
    assert_equal(copy.deepcopy(layer).effective_weight(), layer.effective_weight())
