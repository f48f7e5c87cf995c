"""The artifact: one safetensors file that holds a hidden network, and is refused when damaged.

file.py is the file, layers.py one layer in it, network.py the model, architecture.py compares.
"""

from hiddennet.artifact.network import export, load, read_header, sizes
from hiddennet.container import FORMAT_VERSION, ArtifactError

__all__ = ["FORMAT_VERSION", "ArtifactError", "export", "load", "read_header", "sizes"]
