"""The vocabulary of settings: typed sections, recipes of training, YAML, mistakes in words.

Knows no methods, models or data: see hiddennet.config.
"""
