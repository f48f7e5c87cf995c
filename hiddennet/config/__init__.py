"""Configs: YAML files to typed, checked, immutable objects and back."""

from hiddennet.config.identity import digest, places
from hiddennet.config.load import dump, find, load, parse, read
from hiddennet.config.schema import Config
from hiddennet.settings.errors import ConfigError

__all__ = ["Config", "ConfigError", "digest", "dump", "find", "load", "parse", "places", "read"]
