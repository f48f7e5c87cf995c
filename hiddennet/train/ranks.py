"""Several processes of one run (torchrun): who is who, sums over all, equal weights on all."""

import hashlib
import os
import sys
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map

from hiddennet.nn import hidden_layers


def _made_alike(model: nn.Module) -> set[str]:
    """Buffers of hidden layers, which every rank makes the same by itself."""
    return {f"{name}.{buffer}" for name, layer in hidden_layers(model).items() for buffer in layer._buffers}


def leave(status: int) -> NoReturn:
    """End this process with an exit status.

    One of several ends without the interpreter's own farewell: threads of torch's process group that outlive the group
    may ask for the interpreter's lock by then, which aborts the process (seen at about one of 20 ends).
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def lost(error: BaseException) -> bool:
    """Whether an error says that another process of the run has ended, or cannot be reached."""
    told = isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "by peer" in str(error)
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and isinstance(error, RuntimeError) and told


class Ranks:
    """This process among `world` processes; a single one needs no group."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self._own_group = False

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def start(self, device: torch.device) -> None:
        """Join the group that torchrun announced: nccl on GPUs, gloo on CPUs."""
        if self.world > 1 and not dist.is_initialized():
            on_gpu = device.type == "cuda"
            dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
            self._own_group = True

    def stop(self) -> None:
        """Leave the group, if start() joined it."""
        if self._own_group:
            dist.destroy_process_group()

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def largest(self, value: int, device: torch.device) -> int:
        """The largest `value` of all ranks."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.int64, device=device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def share(self, value: Any, device: torch.device) -> Any:
        """Return rank 0's `value`, a tree of plain values and tensors."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0, device=device)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, a tree of plain values and tensors, in the order of the ranks; in all."""
        found = [value]
        if self.world > 1:
            found *= self.world
            dist.all_gather_object(found, value)
        return found

    def own_rows(self, gathered: list[Any]) -> Any:
        """This rank's part of trees of tensors that `gather` gave, also where there were more or fewer ranks then.

        Rank r has every world-th row, from the r-th.
        """
        if len(gathered) == self.world or gathered[0] is None:
            return gathered[self.rank % len(gathered)]
        return tree_map(lambda *rows: torch.stack(rows, 1).flatten(0, 1)[self.rank :: self.world], *gathered)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model whose backward averages gradients over the ranks."""
        if self.world == 1 or not any(p.requires_grad for p in model.parameters()):
            return model
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, _made_alike(model))
        return DistributedDataParallel(model, gradient_as_bucket_view=True)

    def share_buffers(self, model: nn.Module) -> None:
        """Give all ranks the statistics of rank 0."""
        if self.world > 1:
            made = _made_alike(model)
            for name, buffer in model.named_buffers():
                if name not in made:
                    dist.broadcast(buffer, 0)

    def check_same(self, model: nn.Module, device: torch.device) -> None:
        """Raise RuntimeError when what learns, and so the masks, differs between ranks."""
        if self.world == 1:
            return
        digest = hashlib.blake2b(digest_size=7)
        for parameter in model.parameters():
            if parameter.requires_grad:
                digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        own = int.from_bytes(digest.digest(), "little")
        if self.largest(own, device) != -self.largest(-own, device):
            raise RuntimeError(
                f"ranks: expected the same parameters on all {self.world} processes, got others on "
                "some; the run cannot go on"
            )
