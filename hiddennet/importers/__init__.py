"""Networks and checkpoints of other projects, one project a file, read safely into ours."""
