"""Sections of a config: typed, strict, no unknown keys; and the sections of what is registered, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny

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


def place(*arguments: Any, **more: Any) -> Any:
    """A field that says where or how fast, and not what: the results are the same, and so is the run."""
    return Field(*arguments, json_schema_extra={"identity": False}, **more)


def _whole_as_float(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Number = Annotated[float, BeforeValidator(_whole_as_float)]
Density = Annotated[Number, Field(gt=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
