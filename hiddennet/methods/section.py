"""What all sections of a config have in common: typed, strict, no unknown keys."""

from __future__ import annotations

from typing import Annotated, ClassVar, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from hiddennet.registry import REGISTRIES


class Section(BaseModel):
    """A map of a config. Unknown keys are errors, nothing is converted, values do not change."""

    # What keys hold sections themselves: one class, or one for each `name`.
    sections: ClassVar[dict[str, object]] = {}
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=False)


class NameOf:
    """Beside `str` in an Annotated type: a name of REGISTRIES[kind], whoever registered it; refused as a Literal is."""

    def __init__(self, kind: str):
        self.names = REGISTRIES[kind]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._known, handler(source))

    def _known(self, value: object) -> object:
        if not isinstance(value, str) or value not in self.names:
            raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, self.names))})
        return value


def _whole_as_float(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Number = Annotated[float, BeforeValidator(_whole_as_float)]
Density = Annotated[Number, Field(gt=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


def union(variants: dict[str, type[Section]]) -> object:
    """The type of a key that holds one of several sections, told apart by their `name`."""
    return Annotated[Union[tuple(variants.values())], Field(discriminator="name")]  # noqa: UP007  (made of a list)
