"""The section model.graph: what the graph networks are made of, key by key; null: the network's own."""

from typing import Annotated, Any, Literal

from pydantic import Field

from hiddennet.settings.section import Number, Positive, Section


class GraphSection(Section):
    """model.graph: the nodes of a graph network; its edges are the method's."""

    blocks: list[Positive] | None = Field(
        None, description="dnw_static: nodes of each block, inputs first, outputs at the end of the last"
    )
    nodes: Positive | None = Field(
        None, description="dnw_discrete, dnw_continuous: all nodes; dnw_static: what blocks must add up to"
    )
    inputs: Positive | None = Field(
        None, description="dnw_discrete, dnw_continuous: nodes that hold the image at first"
    )
    outputs: Positive | None = Field(None, description="small graphs: nodes that the classifier reads, the last ones")
    steps: Positive | None = Field(None, description="dnw_discrete: how often all nodes are updated")
    lateral: bool | None = Field(None, description="dnw_static: the last block's nodes send to the outputs, too")
    window: Literal["original", "centre"] | None = Field(
        None, description="small graphs: which 2 x 2 pixels of the outputs are averaged"
    )
    stem_channels: Positive | None = Field(None, description="small graphs: channels of the stem's first convolutions")
    tolerance: Annotated[Number, Field(gt=0.0)] | None = Field(
        None, description="dnw_continuous: relative and absolute error of a solver's step"
    )
    solver: Literal["torchdiffeq", "original"] | None = Field(None, description="dnw_continuous: whose dopri5")
    clamp: bool | None = Field(
        None, description="dnw_continuous: each evaluation cuts the solver's state at 0, as the original does"
    )
    max_steps: Positive | None = Field(None, description="dnw_continuous: steps after which a solution is given up")
    small: bool | None = Field(None, description="dnw_mobilenet: the classifier is a wiring, too")
    stages: list[Annotated[list[Positive], Field(min_length=4, max_length=4)]] | None = Field(
        None, description="dnw_mobilenet: inputs, outputs, stride and blocks of each stage"
    )

    def given(self) -> dict[str, Any]:
        """The keys that are set."""
        return {key: value for key, value in self.model_dump().items() if value is not None}
