"""Degradation recipes by name, and the naive one: blur, downsample, noise, JPEG, resize back, colour.

Drawing (`sample_parameters`) and doing (`degrade`) are apart, so every degraded face can be described, stored
and made again. Both work for every recipe; `second_order` holds the one that is not naive.
Inside, images are float32 (H, W, 3) RGB on the 0..255 scale ("levels").

Source: the order, the border and interpolation conventions and the ranges are those of the public recipes of
GFPGAN v1, CodeFormer and DifFace (each preset names its file); the three benchmark severities are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np

from flipnet.data.colour import ColourJitter, apply_jitter, round_to_uint8, to_grayscale
from flipnet.data.filters import convolve, jpeg_round_trip, resize_bilinear
from flipnet.data.kernels import BlurKernel
from flipnet.data.second_order import REAL_ESRGAN
from flipnet.types import FlipnetError

Range = tuple[float, float]


class Degradation(Protocol):
    """One drawn degradation: a frozen dataclass, so that `dataclasses.asdict` describes it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def grayscale(self) -> bool:
        """Whether the result is gray, and the HQ target should be."""
        ...

    def apply(self, hq: np.ndarray) -> np.ndarray:
        """Degrade one image, see `degrade`."""
        ...


class DegradationRecipe(Protocol):
    """What degradations are drawn from."""

    @property
    def name(self) -> str:
        """The recipe's name, as in `PRESETS`."""
        ...

    def sample(self, rng: np.random.Generator) -> Degradation:
        """Draw one degradation, see `sample_parameters`."""
        ...


@dataclass(frozen=True)
class DegradationRanges:
    """The ranges one naive recipe draws from, uniformly, both ends included.

    Attributes:
        name: the recipe's name, as in `PRESETS`.
        blur_sigma_px: standard deviation of the Gaussian blur, pixels of the HQ image.
        downsample: factor by which each side is divided; below 1 the image grows.
        noise_std_levels: standard deviation of the Gaussian noise, levels of 255, same for all channels.
        jpeg_quality: JPEG quality, rounded to an integer after drawing.
        kernel_size_px: side of the square to which the blur kernel is cut, odd.
        isotropic_probability: chance that the blur is round; otherwise two sigmas and an angle are drawn.
        colour_shift_probability: chance of one constant added to each channel.
        colour_shift_levels: the constants are drawn from [-this, this].
        jitter_probability: chance of brightness, contrast, saturation and hue jitter, in random order.
        jitter_brightness: factor on all levels.
        jitter_contrast: factor on the distance from the mean luma.
        jitter_saturation: factor on the distance from the pixel's own luma.
        jitter_hue_turns: hue rotation, fractions of a full turn.
        grayscale_probability: chance that the result is gray. The recipes that use it make the HQ target gray
            as well (`DegradationParameters.grayscale` tells), so that nothing learns to invent colour.
    """

    name: str
    blur_sigma_px: Range
    downsample: Range
    noise_std_levels: Range
    jpeg_quality: Range
    kernel_size_px: int = 41
    isotropic_probability: float = 0.5
    colour_shift_probability: float = 0.0
    colour_shift_levels: float = 20.0
    jitter_probability: float = 0.0
    jitter_brightness: Range = (0.5, 1.5)
    jitter_contrast: Range = (0.5, 1.5)
    jitter_saturation: Range = (0.0, 1.5)
    jitter_hue_turns: Range = (-0.1, 0.1)
    grayscale_probability: float = 0.0

    def __post_init__(self) -> None:
        if self.kernel_size_px < 1 or self.kernel_size_px % 2 == 0:
            raise FlipnetError(f"kernel_size_px must be odd and positive, got {self.kernel_size_px}.")
        for field, low_limit in (("blur_sigma_px", 0.01), ("downsample", 0.1), ("noise_std_levels", 0.0)):
            low, high = getattr(self, field)
            if not low_limit <= low <= high:
                raise FlipnetError(f"{field} needs {low_limit} <= low <= high, got ({low}, {high}).")
        low, high = self.jpeg_quality
        if not 1 <= low <= high <= 100:
            raise FlipnetError(f"jpeg_quality must be (low, high) within 1..100, got ({low}, {high}).")

    def sample(self, rng: np.random.Generator) -> DegradationParameters:
        """Draw one degradation.

        The number of random values taken from `rng` does not depend on their outcome, so that two recipes
        which differ in one range stay comparable face by face (our choice). Source: GFPGAN v1, which draws the
        same quantities; a round blur has one sigma, any other two independent ones and an angle.
        """
        sigma_x, sigma_y = (float(rng.uniform(*self.blur_sigma_px)) for _ in range(2))
        angle = float(rng.uniform(-np.pi, np.pi))
        isotropic = rng.uniform() < self.isotropic_probability
        downsample = float(rng.uniform(*self.downsample))
        noise_std = float(rng.uniform(*self.noise_std_levels))
        noise_seed = int(rng.integers(2**32))
        quality = round(float(rng.uniform(*self.jpeg_quality)))
        shifted = rng.uniform() < self.colour_shift_probability
        r, g, b = (float(s) for s in rng.uniform(-self.colour_shift_levels, self.colour_shift_levels, 3))
        grayscale = bool(rng.uniform() < self.grayscale_probability)
        jittered = rng.uniform() < self.jitter_probability
        jitter = self._sample_jitter(rng)
        return DegradationParameters(
            blur_sigma_x_px=sigma_x,
            blur_sigma_y_px=sigma_x if isotropic else sigma_y,
            blur_angle_rad=0.0 if isotropic else angle,
            kernel_size_px=self.kernel_size_px,
            downsample=downsample,
            noise_std_levels=noise_std,
            noise_seed=noise_seed,
            jpeg_quality=quality,
            colour_shift_levels=(r, g, b) if shifted else None,
            grayscale=grayscale,
            jitter=jitter if jittered else None,
        )

    def _sample_jitter(self, rng: np.random.Generator) -> ColourJitter:
        names = ("brightness", "contrast", "saturation", "hue_turns")
        return ColourJitter(
            brightness=float(rng.uniform(*self.jitter_brightness)),
            contrast=float(rng.uniform(*self.jitter_contrast)),
            saturation=float(rng.uniform(*self.jitter_saturation)),
            hue_turns=float(rng.uniform(*self.jitter_hue_turns)),
            order=tuple(names[i] for i in rng.permutation(4)),
        )


@dataclass(frozen=True)
class DegradationParameters:
    """Everything that decides what `degrade` does to an image; units as in `DegradationRanges`.

    Attributes:
        blur_sigma_x_px: standard deviation along the direction `blur_angle_rad`.
        blur_sigma_y_px: standard deviation across it; equal to the first for a round blur.
        blur_angle_rad: angle of the kernel's first axis to the x axis, x towards y.
        kernel_size_px: side of the square the kernel is cut to.
        downsample: factor by which each side is divided.
        noise_std_levels: standard deviation of the noise.
        noise_seed: seed of the noise itself.
        jpeg_quality: integer in 1..100.
        colour_shift_levels: constants added to R, G, B, or None.
        grayscale: whether the result is gray, and the HQ target should be.
        jitter: colour changes, or None.
    """

    blur_sigma_x_px: float
    blur_sigma_y_px: float
    blur_angle_rad: float
    kernel_size_px: int
    downsample: float
    noise_std_levels: float
    noise_seed: int
    jpeg_quality: int
    colour_shift_levels: tuple[float, float, float] | None = None
    grayscale: bool = False
    jitter: ColourJitter | None = None

    def apply(self, hq: np.ndarray) -> np.ndarray:
        """Blur, downsample, add noise, JPEG, resize back, change colours, round; see `degrade`.

        Raises FlipnetError also for sides too short to mirror half the kernel.
        Source: GFPGAN gfpgan/data/ffhq_degradation_dataset.py, read for its order and conventions.
        """
        _check_image(hq, self.kernel_size_px)
        height, width = hq.shape[:2]
        levels = hq.astype(np.float32)
        levels = convolve(levels, gaussian_kernel(self))
        # GFPGAN's int(side // factor), kept from reaching zero.
        small = (max(1, int(height // self.downsample)), max(1, int(width // self.downsample)))
        levels = resize_bilinear(levels, *small)
        noise = np.random.default_rng(self.noise_seed).standard_normal(levels.shape, dtype=np.float32)
        levels = np.clip(levels + np.float32(self.noise_std_levels) * noise, 0, 255)
        levels = jpeg_round_trip(round_to_uint8(levels), self.jpeg_quality).astype(np.float32)
        levels = resize_bilinear(levels, height, width)
        return round_to_uint8(_change_colours(levels, self))


_RECIPES = (
    # GFPGAN options/train_gfpgan_v1.yml
    DegradationRanges(
        "gfpgan",
        blur_sigma_px=(0.1, 10),
        downsample=(0.8, 8),
        noise_std_levels=(0, 20),
        jpeg_quality=(60, 100),
        colour_shift_probability=0.3,
        jitter_probability=0.3,
        grayscale_probability=0.01,
    ),
    # CodeFormer options/CodeFormer_stage2.yml ("large") and the "small" branch of CodeFormer_stage3.yml
    DegradationRanges("codeformer", (1, 15), (4, 30), (0, 20), (30, 80)),
    DegradationRanges("codeformer-small", (0.1, 10), (1, 12), (0, 15), (60, 100)),
    # DifFace configs/training/swinir_ffhq512.yaml; ResShift and PMRF use the same
    DegradationRanges("difface", (0.1, 15), (0.8, 32), (0, 20), (30, 100), grayscale_probability=0.01),
    # Our choice: the severities of this project's benchmark; changing them voids its earlier numbers
    DegradationRanges("mild", (0.1, 6), (1, 4), (0, 10), (60, 100)),
    DegradationRanges("medium", (0.1, 10), (2, 12), (0, 15), (40, 90)),
    DegradationRanges("severe", (2, 15), (8, 30), (5, 20), (30, 70)),
)

PRESETS: Mapping[str, DegradationRecipe] = MappingProxyType(
    {recipe.name: recipe for recipe in (*_RECIPES, REAL_ESRGAN)}
)
"""Recipes by name: gfpgan, codeformer, codeformer-small, difface, mild, medium, severe, real-esrgan."""


def preset(name: str) -> DegradationRecipe:
    """Return `PRESETS[name]`; an unknown name raises FlipnetError listing the known ones."""
    if name not in PRESETS:
        raise FlipnetError(f"Unknown degradation '{name}'; known are {', '.join(PRESETS)}.")
    return PRESETS[name]


def sample_parameters(ranges: DegradationRecipe, rng: np.random.Generator) -> Degradation:
    """Draw one degradation from any recipe; the parameters are a frozen dataclass, see the recipe's `sample`."""
    return ranges.sample(rng)


def degrade(hq: np.ndarray, parameters: Degradation) -> np.ndarray:
    """Degrade one image as drawn.

    `hq` and the result are uint8 (H, W, 3) RGB of the same size. The same parameters give the same bytes (on
    one version of numpy, scipy, torch and the JPEG library). Levels are clipped after noise and colour steps;
    rounding happens where JPEG needs it and at the very end.
    Raises FlipnetError for another dtype or shape, and for sides too short for the recipe.
    """
    return parameters.apply(hq)


def degrade_with(
    ranges: DegradationRecipe, hq: np.ndarray, seed: int | tuple[int, ...]
) -> tuple[np.ndarray, Degradation]:
    """Draw one degradation with `np.random.default_rng(seed)` and apply it; see `degrade`."""
    parameters = sample_parameters(ranges, np.random.default_rng(seed))
    return degrade(hq, parameters), parameters


def _check_image(hq: np.ndarray, kernel_size_px: int) -> None:
    if hq.dtype != np.uint8 or hq.ndim != 3 or hq.shape[2] != 3:
        raise FlipnetError(f"degrade needs a uint8 (H, W, 3) image, got {hq.dtype} {hq.shape}.")
    smallest = max(2, kernel_size_px // 2 + 1)
    if min(hq.shape[:2]) < smallest:
        raise FlipnetError(f"degrade needs sides of at least {smallest} px, got {hq.shape[1]}x{hq.shape[0]}.")


def gaussian_kernel(parameters: DegradationParameters) -> np.ndarray:
    """Return the float32 (K, K) blur kernel, rows y, columns x, sum 1.

    exp(-(u²/σx² + v²/σy²) / 2) at whole pixels, (u, v) being (x, y) turned by the angle; cut to K x K, then
    normalised. Source: bivariate Gaussian of the public recipes.
    """
    return BlurKernel(
        "gaussian",
        parameters.kernel_size_px,
        parameters.blur_sigma_x_px,
        parameters.blur_sigma_y_px,
        parameters.blur_angle_rad,
    ).weights()


def _change_colours(levels: np.ndarray, parameters: DegradationParameters) -> np.ndarray:
    # GFPGAN's order: shift, gray, jitter.
    if parameters.colour_shift_levels is not None:
        levels = np.clip(levels + np.asarray(parameters.colour_shift_levels, np.float32), 0, 255)
    if parameters.grayscale:
        levels = to_grayscale(levels)
    return levels if parameters.jitter is None else apply_jitter(levels, parameters.jitter)
