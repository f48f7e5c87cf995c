"""The layers of a network whose weights are counted, ranked and pruned together, in order."""

from dataclasses import dataclass

from torch import nn

from .resnet import ResNet, ThinResNet, WideResNet
from .vgg import Vgg


@dataclass(frozen=True)
class PeekABooLayers:
    """Names of layers, in module order: those whose weights are ``pruned``, those of which signs are
    ``learned`` (the others by SGD, as biases and batch norms), and those whose inputs are ``signed``,
    the others' being behind a ReLU."""

    pruned: list[str]
    learned: list[str]
    signed: list[str]


def prunable(model: nn.Module, shortcuts: bool = True) -> dict[str, nn.Module]:
    """The convolutions and linear layers of ``model``, plain or hidden, by name, in module order: for
    this package's networks the order of the forward pass, a block's projection after its
    convolutions, the classifier last. All that works on a whole network (one threshold for all
    layers, densities, Smart-Ratio) takes its layers in this order.

    ``shortcuts``: False leaves out the projections named ``downsample``, those of the ImageNet
    networks (torchvision's names). The code of Sreenivasan et al. (arXiv 2202.12002) learns their
    scores but never counts or prunes them, so its densities are of the other layers; the ``shortcut``
    of CIFAR networks it does count.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and (shortcuts or "downsample" not in name.split("."))
    }


def peek_a_boo_layers(model: nn.Module) -> PeekABooLayers:
    """What the code of Chen et al. (Peek-a-Boo, ICLR 2022) does with each layer of ``model``, plain or
    hidden.

    Signs are learned in convolutions alone, in residual and VGG networks. Pruned together are the
    convolutions and the classifier; but the classifier of residual networks for CIFAR stays whole, and
    so do the ``downsample`` convolutions of those for ImageNet, whose signs are learned. In networks
    which that code does not have, everything is pruned and learned, as in its Conv4 and Conv6. Signed
    are the images, and what a wide network's ``shortcut`` sees where it sees its block's input.
    """
    everything = list(prunable(model))
    learned = [name for name, layer in prunable(model).items() if isinstance(layer, nn.Conv2d)]
    pruned, signed = learned, everything[:1]
    if not isinstance(model, (ResNet, ThinResNet, WideResNet, Vgg)):
        pruned = learned = everything
    elif isinstance(model, Vgg):
        pruned = everything
    elif isinstance(model, ResNet) and model.stem == "imagenet":
        pruned = list(prunable(model, shortcuts=False))
    elif isinstance(model, WideResNet) and model.plain_skip:
        signed = signed + [name for name in everything if name.endswith(".shortcut")]
    return PeekABooLayers(pruned, learned, signed)
