"""Sections of a config: typed, strict, no unknown keys; and the sections of what is registered, by name."""

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SerializeAsAny,
    create_model,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from hiddennet.registry import REGISTRIES


class Section(BaseModel):
    """A map of a config. Unknown keys are errors, nothing is converted, values do not change.

    A docstring such as `method: all weights are learned.` is what `hiddennet keys` says of the section.
    """

    # What keys hold sections themselves: a class, or Sections for one of several by its `name`.
    sections: ClassVar[dict[str, Any]] = {}
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=False)


class Sections(Mapping[str, type[Section]]):
    """The sections of a kind of registered things, by name, as they are registered now.

    A thing is a section itself, or a class that has its own as `Section`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        REGISTRIES[kind].check = self._check

    def __getitem__(self, name: str) -> type[Section]:
        thing = REGISTRIES[self.kind][name]
        return getattr(thing, "Section", thing)

    def _check(self, name: str, thing: Any) -> None:
        section = getattr(thing, "Section", thing)
        if not (isinstance(section, type) and issubclass(section, Section)):
            raise ValueError(
                f"register: expected {self.title(name)} to be a section of hiddennet.settings, or a class with one as "
                f"Section, got {thing!r}"
            )

    def __iter__(self) -> Iterator[str]:
        return iter(REGISTRIES[self.kind])

    def __len__(self) -> int:
        return len(REGISTRIES[self.kind])

    def title(self, name: str) -> str:
        """What mistakes call the section of that name."""
        return f"{self.kind} {name!r}"

    @property
    def type(self) -> Any:
        """The type of a key that holds one of them: an instance, or a map of keys with its `name`."""
        return Annotated[SerializeAsAny[Section], BeforeValidator(self._of)]

    def _of(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        REGISTRIES[self.kind].find(value.get("name"))
        return self[value["name"]](**value)


def _whole_as_float(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Values(Sections):
    """The sections of registered dataclasses whose fields are plain values, such as rules: made from the fields."""

    def __getitem__(self, name: str) -> type[Section]:
        thing = REGISTRIES[self.kind][name]
        if _plain_fields(thing) is None:
            raise KeyError(name)
        return _value_section(self.kind, name, thing)

    def __iter__(self) -> Iterator[str]:
        return (name for name, thing in REGISTRIES[self.kind].items() if _plain_fields(thing) is not None)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _check(self, name: str, thing: Any) -> None:
        """A rule or source that no config can name is one all the same."""


_PLAIN = {int: int, float: Annotated[float, BeforeValidator(_whole_as_float)], str: str, bool: bool}


def _plain_fields(thing: Any) -> dict[str, Any] | None:
    """Type and default of each field that a dataclass is made with; None where not all are plain values."""
    if not dataclasses.is_dataclass(thing) or not thing.__dataclass_params__.init:
        return None
    kinds, found = typing.get_type_hints(thing), {}
    for field in dataclasses.fields(thing):
        optional = [kind for kind in typing.get_args(kinds[field.name]) if kind is not type(None)]
        kind = _PLAIN.get(optional[0] if len(optional) == 1 else kinds[field.name])
        if kind is None:
            return None
        if field.init and field.name != "layer":  # whose number the network knows
            default = ... if field.default is dataclasses.MISSING else field.default
            found[field.name] = (kind | None if optional else kind, default)
    return found


class _ValueSection(Section):
    thing: ClassVar[Any]

    def make(self, **known: Any) -> Any:
        """What the section describes; known: fields it need not give, such as the run's seed."""
        given = self.model_fields_set - {"name"}
        names = {field.name for field in dataclasses.fields(self.thing)}
        return self.thing(**{k: v for k, v in known.items() if k in names} | {k: getattr(self, k) for k in given})

    @model_validator(mode="after")
    def _can_be_made(self) -> Section:
        self.make()
        return self


@functools.cache
def _value_section(kind: str, name: str, thing: Any) -> type[Section]:
    says = (thing.__doc__ or "").strip().partition("\n")[0]
    fields = {"name": (str, name), **_plain_fields(thing)}
    made = create_model(f"{thing.__name__}Section", __base__=_ValueSection, __doc__=f"{kind}: {says}", **fields)
    made.thing = thing
    return made


class NameOf:
    """Beside `str` in an Annotated type: a name of REGISTRIES[kind], whoever registered it; refused as a Literal is.

    Names of outside are found: mistakes in them are their own sentences.
    """

    def __init__(self, kind: str):
        self.names = REGISTRIES[kind]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._known, handler(source))

    def _known(self, value: object) -> object:
        if self.names.is_outside(value):
            self.names.outside(value)
        elif not isinstance(value, str) or value not in self.names:
            raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, sorted(self.names)))})
        return value


def place(*arguments: Any, **more: Any) -> Any:
    """A field that says where or how fast, and not what: the results are the same, and so is the run."""
    return Field(*arguments, json_schema_extra={"identity": False}, **more)


Number = Annotated[float, BeforeValidator(_whole_as_float)]
Density = Annotated[Number, Field(gt=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
