"""encode_mask, decode_mask: masks in as many bits as their density needs, on a CPU."""

import math

import torch
from torch import Tensor

from hiddennet.ops.checks import MAX_ELEMENTS, check_tensor
from hiddennet.ops.fakes import register_fake
from hiddennet.ops.pack_mask import pack_mask, unpack_mask
from hiddennet.ops.strike_out import count_flags

_encode_mask = torch.ops.hiddennet.encode_mask.default
_decode_mask = torch.ops.hiddennet.decode_mask.default
_SLOTS = 2**16  # what a code's frequencies add up to
_WEIGHTS_A_BYTE = 1000


@register_fake("encode_mask")
def _(bits, frequencies) -> Tensor:
    raise NotImplementedError("encode_mask: expected a mask with values, since they say how long its code is, got none")


@register_fake("decode_mask")
def _(coded, frequencies, count) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device=coded.device)


def _frequencies(kept: int, n: int) -> list[int]:
    """Of a byte with 0, 1, ... 8 ones among all bytes, of 2^16: those of independent weights of one density.

    By products and sums alone, which are the same on every machine.
    """
    density, ones = kept / n, [1.0]
    for _ in range(8):
        ones.append(ones[-1] * density)
    zeros = [1.0]
    for _ in range(8):
        zeros.append(zeros[-1] * (1.0 - density))
    found = [max(1, int(ones[k] * zeros[8 - k] * _SLOTS)) for k in range(9)]
    found[0 if 2 * kept <= n else 8] += _SLOTS - sum(math.comb(8, k) * found[k] for k in range(9))
    return found


def is_unheld(weights: int, code: int) -> bool:
    """Whether a code of so many bytes holds next to nothing of so many weights: densities below about 0.1 %."""
    return weights > _WEIGHTS_A_BYTE * code


def encode_mask(mask: Tensor) -> Tensor:
    """Return the mask as uint8 [bytes], of a length near n H(density) bits: by range asymmetric numeral systems (Duda,
    arXiv 1311.2540) over the bytes of pack_mask. At a density of a half it is longer than these.

    Args:
        mask: bool, any shape, on a CPU. What decode_mask needs besides is its shape and how many are kept.
    """
    check_tensor("encode_mask", "mask", mask, dtypes=(torch.bool,))
    if mask.numel() == 0:
        return torch.empty(0, dtype=torch.uint8)
    return _encode_mask(pack_mask(mask), _frequencies(int(mask.count_nonzero()), mask.numel()))


def decode_mask(coded: Tensor, kept: int, shape: tuple[int, ...]) -> Tensor:
    """Return the bool mask of `shape` that encode_mask coded, of which `kept` are set.

    Raises:
        TypeError: coded is no uint8 tensor. ValueError: it is not the code of such a mask.
    """
    return unpack_mask(decode_bits(coded, kept, shape), tuple(shape))


def decode_bits(coded: Tensor, kept: int, shape: tuple[int, ...]) -> Tensor:
    """The same as packed bits, uint8, as pack_mask has them."""
    op = "decode_mask"
    check_tensor(op, "coded", coded, dtypes=(torch.uint8,))
    n = math.prod(shape)
    if n > MAX_ELEMENTS or not 0 <= kept <= n:
        raise ValueError(f"{op}: expected fewer than 2^31 elements and at most all kept, got {kept} of {tuple(shape)}")
    if n == 0:
        return torch.empty(0, dtype=torch.uint8)
    try:
        bits = _decode_mask(coded.contiguous().flatten(), _frequencies(kept, n), (n + 7) // 8)
    except RuntimeError as error:
        raise ValueError(str(error).partition("\n")[0]) from None
    found = int(count_flags([bits]))
    if found != kept or (n % 8 and int(bits[-1]) >> n % 8):
        raise ValueError(f"{op}: expected a code of {kept} of {n} kept, got one of {found}")
    return bits
