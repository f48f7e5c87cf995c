"""Sweeps: a grid of configs from one file, worked off by processes that share a folder."""

from hiddennet.sweep.command import run
from hiddennet.sweep.grid import Point, Sweep, load

__all__ = ["Point", "Sweep", "load", "run"]
