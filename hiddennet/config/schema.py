"""The config: sections of typed keys with meaning, unit and range, and the checks between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

import hiddennet.trackers  # noqa: F401  (which registers our loggers)
from hiddennet import data, methods, models
from hiddennet.config.graph import GraphSection
from hiddennet.data.request import argument_mistakes, check_normalization
from hiddennet.methods import Setting
from hiddennet.registry import one_of
from hiddennet.settings.recipe import OPTIMIZERS, SCHEDULES, ConstantSection, SgdSection, recipe_mistakes
from hiddennet.settings.section import Count, NameOf, Number, Positive, Section, Sections, place

METHODS = Sections("method")


def _device(name: str) -> str:
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (":" in name and not (kind == "cuda" and index.isdigit())):
        raise ValueError(f"expected one of auto, cpu, cuda, cuda:N, got {name!r}")
    return name


def _normalization(value: str | list[list[float]]) -> str | list[list[float]]:
    try:
        return check_normalization(value)
    except ValueError as error:
        raise ValueError(str(error).partition(": ")[2]) from None


def _folder_name(name: str) -> str:
    if not name or name.startswith(".") or set(name) & set("/\\\0\n"):
        raise ValueError(f"expected a file name without '/', got {name!r}")
    return name


Arguments = Annotated[dict[str, Any] | None, AfterValidator(lambda given: given or None)]


class ModelSection(Section):
    """model: the network that is hidden in."""

    sections: ClassVar[dict[str, object]] = {"graph": GraphSection}
    name: Annotated[str, NameOf("model")] = Field(description="the network's name")
    width: Number = Field(1.0, gt=0.0, description="factor on every layer's channels; above 0, 1 = the paper's")
    batch_norm: Literal["affine", "non_affine", "none"] = Field(
        "non_affine",
        description="batch norm with a trained scale and shift, without them, or no batch norm; "
        "for networks that have it",
    )
    num_classes: Positive | None = Field(
        None, description="logits of the classifier; null: as many as the data has classes"
    )
    bias: bool = Field(
        False,
        description="biases, zero at the start: in all layers of networks without batch norm, in the classifier "
        "of the others",
    )
    conv_bias: bool = Field(False, description="biases, zero at the start, in the convolutions of vgg11 to vgg19 too")
    stem_scaled: bool = Field(
        True, description="false: the first convolution of a ResNet keeps its 64 channels whatever the width"
    )
    layers: Positive | None = Field(None, description="layers of lstm_lm; null: 2")
    dropout: Annotated[Number, Field(ge=0.0, lt=1.0)] | None = Field(
        None, description="fraction of lstm_lm's units that training leaves out; null: 0.65"
    )
    graph: GraphSection | None = Field(None, description="nodes of the graph networks, dnw_*; null: as published")
    arguments: Arguments = Field(
        None, description="further arguments of a model of timm, of torchvision or of your own"
    )
    first_layer: Literal["dense"] | None = Field(None, description="dense: the first layer is not hidden")
    last_layer: Literal["dense"] | None = Field(None, description="dense: the classifier is not hidden")


class DataSection(Section):
    """data: what is learned from."""

    name: Annotated[str, NameOf("data")] = Field(description="the data set's name")
    root: str = place("data", description="folder that holds the data sets; ~ is the home")
    batch_size: Positive = Field(
        128, description="images (of a text: columns) in one optimiser step, over all parts and all ranks"
    )
    drop_last: bool = Field(
        False, description="leave the images that fill no whole batch out of an epoch; a text always does"
    )
    augment: bool = Field(True, description="random crops and flips, where the data set has them")
    augmentation: Literal["standard", "pad_resized_crop"] = Field(
        "standard", description="the data set's own, or a random resized crop from 4 pixels of padding and a flip"
    )
    normalization: Annotated[str | list[list[Number]], AfterValidator(_normalization)] = Field(
        "own",
        description="mean and standard deviation of each channel: the data set's own, imagenet, peek_a_boo_cifar10 or "
        "_cifar100, or two lists of numbers",
    )
    validation: Number = Field(
        0.1,
        ge=0.0,
        lt=1.0,
        description="fraction of the training set that is held out to choose the best epoch; 0 where it is not given "
        "and train.selection is test",
    )
    split: Literal["stratified", "permutation"] = Field(
        "stratified", description="held out: of each class in proportion, or the last of a random order"
    )
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        None, description="draws which images are held out; null: the config's seed"
    )
    workers: Count = place(4, description="processes that decode images of a large data set")
    limit: Positive | None = Field(
        None,
        description="at most so many training images, and as much less of the test images; null: all",
    )
    image_size: Positive | None = Field(None, description="side of the images in pixels; null: the data set's own")
    bptt: Positive = Field(35, description="words of each column of a text in one step; gradients go back so far")
    download: bool = place(False, description="fetch a data set that is missing")
    arguments: Arguments = Field(None, description="further arguments of a data set of your own")


class TrainSection(Section):
    """train: the loop."""

    epochs: Count = Field(100, description="passes over the training set")
    label_smoothing: Number = Field(0.0, ge=0.0, lt=1.0, description="weight of the uniform distribution in the target")
    mixup: Number = Field(
        0.0,
        ge=0.0,
        description="alpha of mixup: images and labels of a batch are blended in a proportion of Beta(alpha, alpha), "
        "and train accuracy counts the label of the larger part; 0: none",
    )
    amp: Literal["auto", "float32", "bf16"] = Field(
        "auto",
        description="bf16: forward and backward in bfloat16 where that is safe (autocast); auto: so on a CPU where the "
        "network's heaviest layers were measured to be 1.2 times as fast, else float32; a run keeps what it began with",
    )
    channels_last: bool | Literal["auto"] = Field(
        "auto", description="memory format of images and weights; auto: true, the faster one on CPUs and GPUs"
    )
    accumulate: Positive = Field(1, description="parts that a batch is split into; same gradient, memory of one part")
    selection: Literal["validation", "test"] = Field(
        "validation",
        description="the split whose accuracy chooses the best epoch; test: as most papers did, and all training "
        "images are trained on unless data.validation says otherwise",
    )
    deterministic: bool = Field(False, description="only algorithms with reproducible bits; slower on a GPU")
    graph: Literal["auto", "off"] = place(
        "auto",
        description="auto: on a GPU a step is captured as one CUDA graph after a few, where method and optimiser allow "
        "it; off: never",
    )
    save_every: Count = place(0, description="keep a checkpoint every n epochs; 0: none")
    save_epochs: list[Positive] = place([], description="keep a checkpoint after these epochs too")
    device: Annotated[str, AfterValidator(_device)] = place(
        "auto", description="auto, cpu, cuda or cuda:N; auto: a GPU if there is one"
    )
    log_every: Positive = place(10, description="steps between readings of loss and accuracy")
    loggers: list[Annotated[str, NameOf("logger")]] = place(
        ["tensorboard"], description="who is told of each epoch, beside metrics.csv"
    )


class Mistakes(ValueError):
    """Several mistakes that only show between keys."""

    def __init__(self, mistakes: list[str]):
        self.mistakes = mistakes
        super().__init__("; ".join(mistakes))


class Config(Section):
    """A resolved config. Make one with `hiddennet.config.load` or `parse`."""

    sections: ClassVar[dict[str, Any]] = {
        "model": ModelSection,
        "data": DataSection,
        "method": METHODS,
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "train": TrainSection,
    }

    name: Annotated[str, AfterValidator(_folder_name)] = place(
        description="name of the run's folder; default: the file's name"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of weights, scores, masks, data order and augmentation")
    model: ModelSection = Field(description="the network")
    data: DataSection = Field(description="the data set")
    method: METHODS.type = Field(description="the method")
    optimizer: OPTIMIZERS.type = SgdSection()
    schedule: SCHEDULES.type = ConstantSection()
    train: TrainSection = TrainSection()
    runs: str = place("runs", description="folder that all runs are kept in; ~ is the home")
    plugins: list[str] = place(
        [], description="modules, and .py files beside this one, that register what else may be named here"
    )

    @model_validator(mode="before")
    @classmethod
    def _hold_nothing_out(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Who chooses on the test images trains on all others, unless the config says otherwise."""
        data, train = values.get("data"), values.get("train")
        if not isinstance(data, DataSection) or not isinstance(train, TrainSection) or train.selection != "test":
            return values
        given = "validation" in data.model_fields_set
        return values if given else {**values, "data": data.model_copy(update={"validation": 0.0})}

    @model_validator(mode="after")
    def _check(self) -> Config:
        mistakes = [*self._numbers(), *self.method.mistakes(self.setting())]
        if mistakes:
            raise Mistakes(mistakes)
        return self

    def setting(self, *opener: Any) -> Setting:
        """What the method sees of it. opener: what opens a run, see Setting.open_run."""
        model, given = self.model, (self.method, self.seed, self.train.epochs, self.optimizer, self.schedule)
        return Setting(
            *given, model.name, self.data.name, self.data.validation, model.first_layer, model.last_layer, *opener
        )

    def _numbers(self) -> Iterator[str]:
        train, optimizer, schedule, data = self.train, self.optimizer, self.schedule, self.data
        if train.selection == "validation" and data.validation == 0.0:
            yield (
                "train.selection: expected test where data.validation is 0, got 'validation'; "
                "hold images out (data.validation: 0.1) or set train.selection: test"
            )
        if train.accumulate > data.batch_size:
            yield f"train.accumulate: expected at most data.batch_size ({data.batch_size}), got {train.accumulate}"
        yield from self._text()
        yield from self._graph()
        if self.model.arguments:
            yield from (f"model.{said}" for said in models.argument_mistakes(self.model.name, self.model.arguments))
        if data.arguments:
            yield from (f"data.{said}" for said in argument_mistakes(data.name, data.arguments))
        yield from recipe_mistakes("", optimizer, schedule, train.epochs, "train.epochs", data.validation)

    def _text(self) -> Iterator[str]:
        """What is wrong between a text, its model and the parts of a batch."""
        name, text = self.model.name, self.data.name in data.TEXT
        if text != (name in models.TEXT):
            kind = ", ".join(models.TEXT) if text else "a model of images"
            yield f"model.name: expected {kind} with data.name={self.data.name}, got {name!r}"
        elif text and self.train.accumulate > 1:
            yield f"train.accumulate: expected 1 with a text, got {self.train.accumulate}"
        elif text and self.train.mixup:
            yield f"train.mixup: expected 0 with a text, whose words cannot be blended, got {self.train.mixup}"

    def _graph(self) -> Iterator[str]:
        """What is wrong between a graph network, its keys and the method."""
        model, method = self.model, self.method
        if model.name not in models.GRAPHS:
            if model.graph is not None:
                yield f"model.graph: expected null with {model.name}, got a map; it is for {', '.join(models.GRAPHS)}"
            return
        able = [name for name, kind in methods.METHODS.items() if kind.takes_graphs]
        if method.name not in able:
            yield f"method.name: expected {one_of(able)} with model.name={model.name}, got {method.name!r}"
            return
        given = {} if model.graph is None else model.graph.given()
        try:
            models.dnw.config_of(model.name, given, width=model.width)
        except ValueError as error:
            yield str(error)
