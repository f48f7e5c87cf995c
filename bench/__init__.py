"""Measurements of hiddennet against the original systems and against dense PyTorch (not tests)."""
