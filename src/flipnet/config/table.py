"""What all tables of a recipe have in common: no unknown keys, no changes, numbers within their range."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Quality = Annotated[int, Field(ge=1, le=100)]


class Table(BaseModel):
    """A table of a recipe: frozen, and every key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
