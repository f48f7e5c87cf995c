"""Sub-networks that were found before: artifacts, runs, and the stages of runs."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hiddennet import artifact
from hiddennet.methods.layers import is_batch_norm, plain_layers
from hiddennet.methods.search import Search
from hiddennet.methods.setting import OpenRun
from hiddennet.nn import hidden_layers, masks


@dataclass
class Subnet:
    """A found sub-network: masks of the hidden layers and the state of everything."""

    masks: dict[str, Tensor]
    state: dict[str, Tensor]
    scores: dict[str, Tensor] | None  # what the masks were ranked by, where it was asked for and is known

    @torch.no_grad()
    def copy_into(self, model: nn.Module) -> None:
        """Copy all weights and statistics into the plain model, in place."""
        model.load_state_dict(self.state, strict=False)


def _network(where: str, model: nn.Module, open_run: OpenRun) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network at `where` with its hidden layers, and their masks: at a stage those its own fine-tuning takes."""
    run = open_run(where, "method.subnet")
    if run is not None and (run.stage or run.finished):
        names = [stage.name for stage in run.method.stages]
        searched = isinstance(run.method, Search) and names[-1] == "fine_tune" and run.stage != names[-1]
        return run.model, run.method.found(run.model) if run.stage and searched else masks(run.model)
    if run is not None or not Path(where).expanduser().is_file():
        raise FileNotFoundError(f"method.subnet: expected an artifact or the folder of a finished run, got {where!r}")
    known = artifact.read_header(where)["model"] is not None
    found = artifact.load(where) if known else artifact.load(where, copy.deepcopy(model))
    return found, masks(found)


@torch.no_grad()
def read_subnet(where: str, model: nn.Module, open_run: OpenRun, *, scores: bool = False) -> Subnet:
    """Return the sub-network at `where`, an artifact, a run, or a run's stage (RUN@STAGE), for a plain model.

    Batch norm's scales and shifts may be missing (they start at 1 and 0); all else must fit.

    open_run: of the method's setting. scores: also return what its masks were ranked by, None where it has no scores.

    Raises FileNotFoundError or ValueError.
    """
    found, revealed = _network(where, model, open_run)
    layers = hidden_layers(found)
    if not layers:
        raise ValueError(f"method.subnet: expected a sub-network in {where}, got no hidden layers")
    state = {key: value for key, value in found.state_dict().items() if torch.is_tensor(value)}
    for name, layer in layers.items():
        state[f"{name}.weight"] = layer.source_weight()
    own = model.state_dict()
    state = {key: state[key] for key in state if key in own or not key.startswith(tuple(layers))}
    normal = {name for name, module in model.named_modules() if is_batch_norm(module)}
    for key, value in own.items():
        if key in state and state[key].shape == value.shape:
            continue
        if key not in state and key.rpartition(".")[0] in normal:
            continue
        got = f"shape {tuple(state[key].shape)}" if key in state else "none"
        raise ValueError(
            f"method.subnet: expected {key} of shape {tuple(value.shape)} in {where}, got {got}; "
            "use the model that the sub-network was found in"
        )
    extra = sorted(state.keys() - own.keys())
    if extra:
        raise ValueError(
            f"method.subnet: expected a model with {extra[0]}, which {where} has; "
            "for scales and shifts of batch norm set model.batch_norm=affine"
        )
    hidden = set(plain_layers(model))
    chosen = {name: revealed[name] for name in layers if name in hidden}
    ranked = {name: layer.rule.importance(layer) for name, layer in layers.items()} if scores else {}
    known = ranked and all(score is not None for score in ranked.values())
    return Subnet(chosen, state, ranked if known else None)
