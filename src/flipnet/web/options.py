"""What a visitor may set, checked before any work starts, whoever sent it."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flipnet.types import FlipnetError

Phi = Annotated[float, Field(ge=0, le=2)]
Steps = Annotated[int, Field(ge=0, le=100)]
"""Denoising steps; 0 is the model's own number."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class Options(BaseModel):
    """Base: frozen, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """Make the options; FlipnetError names the first that is out of range or of the wrong type."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            raise FlipnetError(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from error


class RestoreOptions(Options):
    """How to restore the faces of a photo; the options of `flipnet restore` with the same names.

    `faces` is "all", "largest", "center", or indices like "0,2".
    """

    faces: Annotated[str, Field(min_length=1, max_length=1000)] = "all"
    phi: Phi = 1.0
    blend: Annotated[float, Field(ge=0, le=1)] = 1.0
    steps: Steps = 0
    seed: Seed = 0
    samples: Annotated[int, Field(ge=1, le=8)] = 1


class DegradeOptions(Options):
    """How to degrade a face; the options of `flipnet degrade` with the same names.

    `find_face` cuts the largest face out of the picture, otherwise the whole picture is taken as an aligned
    face.
    """

    variants: Annotated[int, Field(ge=1, le=16)] = 4
    find_face: bool = True
    phi: Phi = 1.0
    steps: Steps = 0
    seed: Seed = 0
