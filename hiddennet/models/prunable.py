"""The layers of a network whose weights are counted, ranked and pruned together, in order."""

from __future__ import annotations

from torch import nn


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
