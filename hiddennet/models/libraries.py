"""Models of timm and torchvision, untrained, made of the config's model section: `timm:NAME`, `torchvision:NAME`."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hiddennet.registry import nearest

_GIVEN = {  # what the makers give themselves, by whose words they are told
    "num_classes": "model.num_classes",
    "in_chans": "the data's channels",
    "img_size": "data.image_size",
    "image_size": "data.image_size",
    "num_channels": "the data's channels",
}
# would read files of others
_FILES = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "weights")
_FILES += ("weights_backbone", "model_weights")


def names(library: str) -> list[str]:
    """The names that a library has. Raises ValueError where it is not installed."""
    if library == "timm":
        return _timm().list_models()
    models = _torchvision()
    return models.list_models(module=models)


def find(library: str, name: str) -> Callable[..., nn.Module]:
    """The maker of a model: called with the options of hiddennet.models.build and the library's own arguments.

    Its in_channels and image_size are what the model is made for. Raises ValueError, in a sentence without its subject,
    for a name that the library does not have, and where the library is not installed.
    """
    known = names(library)
    if name.partition(".")[0] not in known:
        raise ValueError(
            f"expected one of {library}'s {len(known)} models (`hiddennet list models {library}:`), got "
            f"'{library}:{name}'{nearest(name, known)}"
        )
    return _timm_maker(name) if library == "timm" else _torchvision_maker(name)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"expected timm to be installed, got none ({error}); pip install timm") from None
    return timm


def _torchvision() -> Any:
    try:
        from torchvision import models
    except ImportError as error:
        raise ValueError(f"expected torchvision to be installed, got none ({error}); pip install torchvision") from None
    return models


def _timm_maker(name: str) -> Callable[..., nn.Module]:
    timm = _timm()
    made_for = timm.get_pretrained_cfg(name)
    channels, side, _ = (3, 224, 224) if made_for is None else made_for.input_size

    def make(*, num_classes: int, in_channels: int, image_size: int, batch_norm: str, bias: bool, **arguments: Any):
        sizes = {"img_size": image_size} if made_for is not None and made_for.fixed_input_size else {}
        given = {"num_classes": num_classes, "in_chans": in_channels, **sizes}
        return _made(f"timm:{name}", timm.create_model, name, given, arguments, batch_norm, bias)

    make.in_channels, make.image_size = channels, side
    return make


def _torchvision_maker(name: str) -> Callable[..., nn.Module]:
    models, called = _torchvision(), f"torchvision:{name}"

    def make(*, num_classes: int, in_channels: int, image_size: int, batch_norm: str, bias: bool, **arguments: Any):
        if in_channels != 3:
            raise ValueError(
                f"model {called!r}: expected images of 3 channels, as torchvision's models take, got {in_channels}; "
                "timm's take any number"
            )
        given: dict[str, Any] = {"num_classes": num_classes}
        if name.startswith("vit_"):
            given["image_size"] = image_size
        if name in ("googlenet", "inception_v3"):
            if arguments.get("aux_logits"):
                raise ValueError(
                    f"model {called!r}: expected arguments.aux_logits to be false, got true: one loss learns"
                )
            arguments = {"init_weights": True, **arguments, "aux_logits": False}
        return _made(called, models.get_model, name, given, arguments, batch_norm, bias)

    make.in_channels, make.image_size = 3, 299 if name == "inception_v3" else 224
    return make


def _made(
    called: str,
    maker: Callable,
    name: str,
    given: dict[str, Any],
    arguments: dict[str, Any],
    batch_norm: str,
    bias: bool,
) -> nn.Module:
    """The library's model, its batch norm as the options ask for it. Raises ValueError."""
    for key in arguments:
        if key in _FILES:
            raise ValueError(f"model {called!r}: expected untrained weights, got arguments.{key}; method.weights loads")
        if key in _GIVEN:
            raise ValueError(f"model {called!r}: expected {_GIVEN[key]} to say it, got arguments.{key}; leave it out")
    if bias:
        raise ValueError(
            f"model {called!r}: expected model.bias=false, got true; its biases are where the library has them"
        )
    try:
        model = maker(name, **given, **arguments)
    except Exception as error:  # whatever their constructors raise
        reason = " ".join(str(error).split()) or "no reason given"
        told = ", ".join(f"{key}={value!r}" for key, value in {**given, **arguments}.items())
        raise ValueError(f"model {called!r}: expected arguments that it takes, got {told} ({reason:.300})") from error
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if norms and batch_norm == "none":
        raise ValueError(f"model {called!r}: expected model.batch_norm to be affine or non_affine, got 'none'")
    for module in norms if batch_norm == "non_affine" else []:
        module.affine, module.weight, module.bias = False, None, None
    return model
