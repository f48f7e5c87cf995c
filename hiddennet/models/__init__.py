"""Plain networks to hide in: made by name, without any hidden machinery inside."""

from . import dnw
from .prunable import PeekABooLayers, peek_a_boo_layers, prunable
from .registry import GRAPHS, TEXT, Options, argument_mistakes, build, names
from .resnet import ResNet
from .small import SmallNet

__all__ = [
    "GRAPHS",
    "TEXT",
    "Options",
    "PeekABooLayers",
    "ResNet",
    "SmallNet",
    "argument_mistakes",
    "build",
    "dnw",
    "names",
    "peek_a_boo_layers",
    "prunable",
]
