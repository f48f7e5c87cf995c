"""Which density an iteration or a shot of pruning aims at, and how many weights that takes away."""

from hiddennet.ops.checks import check_choice

SCHEDULES = ("exponential", "linear")


def check_density(op: str, name: str, density: object) -> float:
    """A kept fraction in (0, 1]."""
    if isinstance(density, bool) or not isinstance(density, (int, float)):
        raise TypeError(f"{op}: expected {name} to be a number, got {type(density).__name__}")
    if not 0.0 < density <= 1.0:
        raise ValueError(f"{op}: expected a {name} in (0, 1], got {density}; it is the fraction that is kept")
    return float(density)


def check_count(op: str, name: str, value: object) -> int:
    """A whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{op}: expected {name} to be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{op}: expected {name} of 1 or more, got {value}")
    return value


def densities(density: float, iterations: int, schedule: str = "exponential") -> list[float]:
    """The density after each iteration: d^(e/n), or 1 - (1 - d) e/n, for e = 1 to n (Tanaka et al. 2020, section 5).

    Raises:
        TypeError, ValueError: a density outside (0, 1], no iterations, an unknown schedule.
    """
    check_density("densities", "density", density)
    check_count("densities", "iterations", iterations)
    check_choice("densities", "schedule", schedule, SCHEDULES)
    if schedule == "exponential":
        return [density ** ((e + 1) / iterations) for e in range(iterations)]
    return [1.0 - (1.0 - density) * ((e + 1) / iterations) for e in range(iterations)]


def removed_count(n: int, density: float) -> int:
    """How many of n weights, those already pruned among them, are at or below the threshold: cut off, not rounded."""
    return int((1.0 - density) * n)
