"""The loop, once: engine, optimisers, schedules, checkpoints, logs, several processes."""
