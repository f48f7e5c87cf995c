"""The tolerance policy: discrete results are equal; floats are no worse than twice torch's own error."""

from __future__ import annotations

from torch import Tensor


def assert_equal(got: Tensor, want: Tensor, what: str = "result") -> None:
    """Same shape, dtype and bits (NaN equals NaN); the first difference is named."""
    got, want = got.detach().cpu(), want.detach().cpu()
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, want {tuple(want.shape)}"
    assert got.dtype == want.dtype, f"{what}: dtype {got.dtype}, want {want.dtype}"
    same = got == want
    if got.dtype.is_floating_point:
        same |= got.isnan() & want.isnan()
    if not bool(same.all()):
        i = int((~same).flatten().nonzero()[0])
        left, right = got.flatten()[i].item(), want.flatten()[i].item()
        count = int((~same).sum())
        raise AssertionError(f"{what}: {count} differ, first at {i}: {left!r}, want {right!r}")


def assert_no_worse_than(
    got: Tensor, torch_same_dtype: Tensor, ref_fp64: Tensor, factor: float = 2.0, floor: float = 1e-7
) -> None:
    """Largest error against float64 at most `factor` times torch's own, or `floor` of the largest value."""
    got, torch_same_dtype, ref = got.detach().cpu(), torch_same_dtype.detach().cpu(), ref_fp64.detach().cpu()
    error = (got.double() - ref).abs()
    allowed = factor * float((torch_same_dtype.double() - ref).abs().max())
    allowed = max(allowed, floor * max(1.0, float(ref.abs().max())))
    worst = int(error.argmax())
    assert float(error.max()) <= allowed, (
        f"worst at {worst}: {got.flatten()[worst].item()!r}, want {ref.flatten()[worst].item()!r}; "
        f"error {float(error.max()):.3g}, allowed {allowed:.3g}"
    )
