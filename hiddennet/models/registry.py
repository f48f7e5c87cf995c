"""The models by name: ``build`` makes one, ``names`` lists them. Not where a network is defined."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from torch import nn

from hiddennet import outside
from hiddennet.models.mnist import LeNet5, RamanujanNet
from hiddennet.nn.other_layers import hideable
from hiddennet.registry import REGISTRIES, register, signature_mistakes

from . import dnw, libraries
from .layers import BATCH_NORMS
from .lstm import LstmLm
from .mobilenet import MobileNetV1, MobileNetV2
from .resnet import ResNet, ThinResNet, WideResNet
from .small import POOL, SmallNet
from .vgg import DEPTHS, Vgg

MODELS = REGISTRIES["model"]
TEXT = ("lstm_lm",)  # models of words, not of images
GRAPHS = tuple(dnw.NETWORKS)  # models whose channels are the nodes of a wiring


@dataclass(frozen=True)
class Options:
    """What a model is made of: the arguments of ``build``, in whose words they are told.

    num_classes: logits of the classifier. in_channels, image_size: of the square input images; None: the model's own
    (``fc*``, ``lenet5`` and ``ramanujan_net`` 1 and 28, ``digits_*`` 1 and 8, ``tiny_*`` 3 and 64, ``resnet18`` ...
    ``resnet152``, ``wide_resnet50_2``, ``101_2`` and ``resnext*`` 3 and 224, the others 3 and 32). The networks that
    end in a global average take any size; ``mobilenet_v1`` begins with stride 2 above 64.

    width: factor on every layer's channels, ``int(n * width)``; input and output keep theirs. batch_norm: ``affine``,
    ``non_affine`` or ``none``; the small nets (``fc*``, ``conv2`` ... ``conv8``, ``digits_*``, ``lenet5``,
    ``ramanujan_net``) have none by definition: unused there. bias: biases, zero at the start: in every layer of the
    small nets, in the classifier of the others, whose batch norm shifts the rest.

    The others are refused where a model does not take them. conv_bias: zero biases in the convolutions of ``vgg*`` and
    ``tiny_vgg16`` too. stem_scaled: False: the first convolution keeps its 64 channels whatever the width, and the
    first block gets a projection (arXiv 2106.09269); of the residual networks of 64 to 512 channels. layers, dropout:
    of ``lstm_lm`` (2 and 0.65), whose num_classes are the words of the vocabulary; it has 1500 units times ``width``,
    biases where ``bias`` is true, and no use for in_channels and image_size. graph: of the ``dnw_*`` networks: fields
    of their config objects (hiddennet.models.dnw), by name; the kind is "complete" where it does not say. arguments:
    further keyword arguments of a model that is not ours.
    """

    name: str
    num_classes: int
    in_channels: int | None = None
    image_size: int | None = None
    width: float = 1.0
    batch_norm: str = "affine"
    bias: bool = False
    conv_bias: bool = False
    stem_scaled: bool = True
    layers: int | None = None
    dropout: float | None = None
    graph: Mapping[str, Any] | None = None
    arguments: Mapping[str, Any] | None = None


# refused by models that do not take them
OPTIONAL = ("width", "conv_bias", "stem_scaled", "layers", "dropout", "graph")


@dataclass(frozen=True)
class Entry:
    """A model's default input, how it is made, and its own defaults of options that are None.

    ``make`` is given the options that its signature names and that are not bound already.
    """

    in_channels: int
    image_size: int
    make: Callable[..., nn.Module]
    defaults: dict[str, float] = field(default_factory=dict)

    @property
    def takes(self) -> list[str]:
        """The options that the model depends on."""
        bound = self.make.keywords if isinstance(self.make, partial) else {}
        named = inspect.signature(self.make).parameters
        names = {key for key, one in named.items() if one.kind is not one.VAR_KEYWORD} - bound.keys()
        return [one.name for one in fields(Options) if one.name in names]


def entry_of(name: str) -> Entry:
    """The model of that name: one of ours, or what a user registered: anything that is called with options and returns
    a module. Its attributes in_channels (3) and image_size (32), where it has them, say what it is made for."""
    found = MODELS.find(name)
    if isinstance(found, Entry):
        return found
    return Entry(getattr(found, "in_channels", 3), getattr(found, "image_size", 32), found)


def argument_mistakes(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """What is wrong with the further arguments of a model, one sentence each, as far as its signature tells."""
    if isinstance(MODELS.find(name), Entry):
        return [f"arguments: expected none for {name}, got {', '.join(arguments)}; they are for models of others"]
    return signature_mistakes(name, entry_of(name).make, arguments, {one.name for one in fields(Options)})


def _small() -> dict[str, Entry]:
    plain = partial(SmallNet, batch_norm=None)
    entries = {
        "fc": Entry(1, 28, partial(plain, (), (300, 100))),
        "digits_mlp": Entry(1, 8, partial(plain, (), (512, 512))),
        "digits_conv": Entry(1, 8, partial(plain, (32, 64, POOL), (256,))),
        "lenet5": Entry(1, 28, LeNet5),
        "ramanujan_net": Entry(1, 28, RamanujanNet),
    }
    for depth in (1, 2, 3):
        entries[f"fc1000_{depth}"] = Entry(1, 28, partial(plain, (), (1000,) * depth))
    plan: tuple[int | str, ...] = ()
    for depth, channels in zip((2, 4, 6, 8), (64, 128, 256, 512), strict=True):
        plan = (*plan, channels, channels, POOL)
        entries[f"conv{depth}"] = Entry(3, 32, partial(plain, plan, (256, 256)))
        if depth in (4, 6):
            entries[f"conv{depth}_bn"] = Entry(3, 32, partial(SmallNet, plan, (256, 256)))
    return entries


def _resnets() -> dict[str, Entry]:
    entries = {}
    depths = {
        18: ((2, 2, 2, 2), False),
        34: ((3, 4, 6, 3), False),
        50: ((3, 4, 6, 3), True),
        101: ((3, 4, 23, 3), True),
        152: ((3, 8, 36, 3), True),
    }
    for depth, (blocks, bottleneck) in depths.items():
        make = partial(ResNet, blocks, bottleneck=bottleneck)
        entries[f"cifar_resnet{depth}"] = Entry(3, 32, partial(make, stem="cifar"))
        entries[f"resnet{depth}"] = Entry(3, 224, partial(make, stem="imagenet"))
    for depth in (50, 101):
        make = partial(ResNet, depths[depth][0], bottleneck=True, stem="imagenet", inner=2)
        entries[f"wide_resnet{depth}_2"] = Entry(3, 224, make)
    for name, depth, inner in (("resnext50_32x4d", 50, 2), ("resnext101_32x8d", 101, 4)):
        make = partial(ResNet, depths[depth][0], bottleneck=True, stem="imagenet", inner=inner, groups=32)
        entries[name] = Entry(3, 224, make)
    entries["tiny_resnet18"] = Entry(3, 64, entries["resnet18"].make)
    return entries


def _registry() -> dict[str, Entry]:
    return {
        **_small(),
        **_resnets(),
        **{f"vgg{depth}": Entry(3, 32, partial(Vgg, counts)) for depth, counts in DEPTHS.items()},
        "tiny_vgg16": Entry(3, 64, partial(Vgg, DEPTHS[16])),
        "resnet20": Entry(3, 32, partial(ThinResNet, 3)),
        "resnet32": Entry(3, 32, partial(ThinResNet, 5)),
        "resnet32_double": Entry(3, 32, partial(ThinResNet, 5, projection=False, factor=2)),
        "resnet20_projection": Entry(3, 32, partial(ThinResNet, 3, projection=True)),
        "resnet110_projection": Entry(3, 32, partial(ThinResNet, 18, projection=True)),
        "wide_resnet28_2": Entry(3, 32, partial(WideResNet, 4, 2)),
        "wide_resnet28_10": Entry(3, 32, partial(WideResNet, 4, 10, plain_skip=True, last_momentum=0.9)),
        "mobilenet_v1": Entry(3, 32, MobileNetV1),
        "mobilenet_v2": Entry(3, 32, MobileNetV2),
        **{name: Entry(3, size, partial(dnw.make, name)) for name, size in dnw.IMAGE_SIZES.items()},
        "lstm_lm": Entry(1, 35, LstmLm, {"layers": 2, "dropout": 0.65}),
    }


outside.finders["model"] = libraries.find
for _name, _entry in _registry().items():
    register("model", _name)(_entry)


def names() -> list[str]:
    """The names ``build`` knows, sorted."""
    return sorted(MODELS)


def build(name: str, *, num_classes: int, **options: Any) -> nn.Module:
    """Makes the model ``name``, one of ``names()`` or of hiddennet.outside, with PyTorch's default initialisation.

    num_classes, options: see Options.

    The model carries ``first_layer`` and ``last_layer`` (names of modules, to keep them dense; the first and the last
    that can be hidden where it does not say) and ``architecture``, the arguments that make it again:
    ``build(**model.architecture)``.

    Raises ValueError for an unknown name or an impossible number, TypeError for an unknown option.
    """
    entry = entry_of(name)
    wanted = Options(name, num_classes, **options)
    if wanted.graph is not None and not isinstance(wanted.graph, Mapping):
        raise ValueError(f"graph: expected a map of keys such as {{'kind': 'dnw'}}, or None, got {wanted.graph!r}")
    usual = {"in_channels": entry.in_channels, "image_size": entry.image_size, **entry.defaults}
    wanted = replace(wanted, **{key: value for key, value in usual.items() if getattr(wanted, key) is None})
    _check(wanted, entry)
    for one in inspect.signature(entry.make).parameters.values():
        needed = one.default is one.empty and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        if needed and one.name not in (*entry.takes, *(wanted.arguments or {})):
            known = ", ".join(option.name for option in fields(Options) if option.name not in ("name", "arguments"))
            raise ValueError(
                f"model {name!r}: expected arguments among {known}, got {one.name!r}; give it a default, or a value in "
                "model.arguments"
            )
    model = entry.make(**{key: getattr(wanted, key) for key in entry.takes}, **(wanted.arguments or {}))
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name!r}: expected it to return an nn.Module, got {type(model).__name__}")
    given = {key: dict(value) if isinstance(value, Mapping) else value for key, value in vars(wanted).items()}
    model.architecture = {key: value for key, value in given.items() if key != "arguments" or value}
    layers = [name for name, module in model.named_modules() if hideable(module)]
    for key, name in zip(("first_layer", "last_layer"), (layers[:1], layers[-1:]), strict=True):
        if name and not hasattr(model, key):
            setattr(model, key, name[0])
    return model


def _check(wanted: Options, entry: Entry) -> None:
    for key in ("num_classes", "in_channels", "image_size"):
        value = getattr(wanted, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key}: expected a whole number of at least 1, got {value!r}")
    if not 0 < wanted.width < float("inf"):
        raise ValueError(f"width: expected a positive number, got {wanted.width!r}")
    if wanted.batch_norm not in BATCH_NORMS:
        raise ValueError(f"batch_norm: expected one of {', '.join(BATCH_NORMS)}, got {wanted.batch_norm!r}")
    for key in ("bias", "conv_bias", "stem_scaled"):
        if not isinstance(getattr(wanted, key), bool):
            raise ValueError(f"{key}: expected true or false, got {getattr(wanted, key)!r}")
    if wanted.arguments is not None and not isinstance(wanted.arguments, Mapping):
        raise ValueError(f"arguments: expected a map of keyword arguments, or None, got {wanted.arguments!r}")
    for mistake in argument_mistakes(wanted.name, wanted.arguments) if wanted.arguments else ():
        raise ValueError(mistake)
    takes, usual = entry.takes, {one.name: one.default for one in fields(Options)}
    for key in OPTIONAL:
        value = getattr(wanted, key)
        if value != usual[key] and key not in takes:
            takers = ", ".join(sorted(name for name in MODELS if key in entry_of(name).takes))
            raise ValueError(f"{key}: expected {usual[key]} for {wanted.name}, got {value}; it is for {takers}")
    if wanted.layers is not None and (not isinstance(wanted.layers, int) or not 1 <= wanted.layers <= 1000):
        raise ValueError(f"layers: expected a whole number from 1 to 1000, got {wanted.layers!r}")
    if wanted.dropout is not None and not 0 <= wanted.dropout < 1:
        raise ValueError(f"dropout: expected a number in [0, 1), got {wanted.dropout!r}")
