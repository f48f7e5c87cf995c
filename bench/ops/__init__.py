"""Benchmarks of single ops: `python -m bench.ops NAME`, or `python -m bench --only NAME`."""
