"""Where the pictures of a run come from: faces, degradations made online, and real pairs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from flipnet.config.table import Fraction, NonNegative, Positive, Quality, Table


class DataConfig(Table):
    """Where training and validation faces come from.

    Attributes:
        train: image folders, tar shards or globs of either; relative to the working directory. Every stage but
            degradation, which has pairs of its own, needs them.
        val: the same for validation faces.
        size_px: side of the square faces.
        source_weights: how often a source is drawn relative to its share (key prefix -> factor).
        group_power: 0 draws groups in proportion to their size, 1 draws every group equally often.
        cache: folder for decoded faces and latents, reused by later stages.
        crop_to_square: cut the central square out of images that are not square, in place of refusing them.
        streaming: read faces while training goes on, every face once per epoch, from files or any fsspec URL;
            nothing is decoded beforehand. For stages that degrade online.
        shuffle_buffer: faces that streaming draws the next one from; shards come in random order beside that.
    """

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    size_px: Positive = 512
    source_weights: dict[str, NonNegative] = Field(default_factory=dict)
    group_power: Fraction = 0.0
    cache: str = "runs/cache"
    crop_to_square: bool = False
    streaming: bool = False
    shuffle_buffer: Positive = 10_000

    @model_validator(mode="after")
    def _streaming_has_no_weights(self) -> DataConfig:
        if self.streaming and (self.source_weights or self.group_power):
            raise ValueError(
                "streaming takes every face once per epoch, so leave out source_weights and group_power"
            )
        if not self.streaming and any("://" in location for location in self.train + self.val):
            raise ValueError("faces behind URLs need streaming = true")
        return self


class DegradationConfig(Table):
    """Online naive degradation: preset names of `data.degradation`, one drawn per sample."""

    presets: tuple[str, ...] = ("gfpgan", "codeformer", "difface")


class PairSourceConfig(Table):
    """One source of real clean/degraded pairs.

    Attributes:
        layout: "shards" or the name of a public data set's folder layout, see `data.pair_layouts`.
        path: folder, shard, or glob of shards.
        weight: how often the source is drawn relative to the others.
        key_weights: the same for parts of it, by key prefix.
    """

    layout: str
    path: str
    weight: NonNegative = 1.0
    key_weights: dict[str, NonNegative] = Field(default_factory=dict)


class StorageConfig(Table):
    """What becomes of the LQ pictures of pairs beyond what the pairs show (see `data.storage`); off by default.

    Attributes:
        small_share: probability that a picture is stored small and enlarged again.
        small_factor: it is shrunk by 1 to this, log-uniformly, averaging areas.
        jpeg_share: probability that the small picture is compressed.
        jpeg_quality: range of the quality that it then gets.
        gray_share: probability that it is turned gray first.
        tint_share: probability that a gray picture is tinted as paper that yellowed.
        tint: how much red is above and blue below gray at most, as a share of it.
    """

    small_share: Fraction = 0.0
    small_factor: Annotated[float, Field(ge=1)] = 4.0
    jpeg_share: Fraction = 0.7
    jpeg_quality: tuple[Quality, Quality] = (30, 95)
    gray_share: Fraction = 0.0
    tint_share: Fraction = 0.5
    tint: Fraction = 0.2

    @model_validator(mode="after")
    def _range_is_a_range(self) -> StorageConfig:
        if self.jpeg_quality[0] > self.jpeg_quality[1]:
            raise ValueError(f"jpeg_quality must be [low, high], got {list(self.jpeg_quality)}")
        return self
