"""The naive degradation recipe: blur, downsample, noise, JPEG, resize back, colour, as pure functions.

Drawing (`sample_parameters`) and doing (`degrade`) are apart, so every degraded face can be described, stored
and made again. Inside, images are float32 (H, W, 3) RGB on the 0..255 scale ("levels").

Source: the order, the border and interpolation conventions and the ranges are those of the public recipes of
GFPGAN v1, CodeFormer and DifFace (each preset names its file); the three benchmark severities are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from flipnet.data.colour import ColourJitter, apply_jitter, round_to_uint8, to_grayscale
from flipnet.data.filters import convolve, jpeg_round_trip, resize_bilinear
from flipnet.types import FlipnetError

Range = tuple[float, float]


@dataclass(frozen=True)
class DegradationRanges:
    """The ranges one recipe draws from, uniformly, both ends included.

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

PRESETS: Mapping[str, DegradationRanges] = MappingProxyType({recipe.name: recipe for recipe in _RECIPES})
"""Recipes by name: gfpgan, codeformer, codeformer-small, difface, mild, medium, severe."""


def preset(name: str) -> DegradationRanges:
    """Return `PRESETS[name]`; an unknown name raises FlipnetError listing the known ones."""
    if name not in PRESETS:
        raise FlipnetError(f"Unknown degradation '{name}'; known are {', '.join(PRESETS)}.")
    return PRESETS[name]


def sample_parameters(ranges: DegradationRanges, rng: np.random.Generator) -> DegradationParameters:
    """Draw one degradation.

    The number of random values taken from `rng` does not depend on their outcome, so that two recipes which
    differ in one range stay comparable face by face (our choice). Source: GFPGAN v1, which draws the same
    quantities; a round blur has one sigma, any other two independent ones and an angle.
    """
    sigma_x, sigma_y = (float(rng.uniform(*ranges.blur_sigma_px)) for _ in range(2))
    angle = float(rng.uniform(-np.pi, np.pi))
    isotropic = rng.uniform() < ranges.isotropic_probability
    downsample = float(rng.uniform(*ranges.downsample))
    noise_std = float(rng.uniform(*ranges.noise_std_levels))
    noise_seed = int(rng.integers(2**32))
    quality = round(float(rng.uniform(*ranges.jpeg_quality)))
    shifted = rng.uniform() < ranges.colour_shift_probability
    r, g, b = (float(s) for s in rng.uniform(-ranges.colour_shift_levels, ranges.colour_shift_levels, 3))
    grayscale = bool(rng.uniform() < ranges.grayscale_probability)
    jittered = rng.uniform() < ranges.jitter_probability
    jitter = _sample_jitter(ranges, rng)
    return DegradationParameters(
        blur_sigma_x_px=sigma_x,
        blur_sigma_y_px=sigma_x if isotropic else sigma_y,
        blur_angle_rad=0.0 if isotropic else angle,
        kernel_size_px=ranges.kernel_size_px,
        downsample=downsample,
        noise_std_levels=noise_std,
        noise_seed=noise_seed,
        jpeg_quality=quality,
        colour_shift_levels=(r, g, b) if shifted else None,
        grayscale=grayscale,
        jitter=jitter if jittered else None,
    )


def _sample_jitter(ranges: DegradationRanges, rng: np.random.Generator) -> ColourJitter:
    names = ("brightness", "contrast", "saturation", "hue_turns")
    return ColourJitter(
        brightness=float(rng.uniform(*ranges.jitter_brightness)),
        contrast=float(rng.uniform(*ranges.jitter_contrast)),
        saturation=float(rng.uniform(*ranges.jitter_saturation)),
        hue_turns=float(rng.uniform(*ranges.jitter_hue_turns)),
        order=tuple(names[i] for i in rng.permutation(4)),
    )


def degrade(hq: np.ndarray, parameters: DegradationParameters) -> np.ndarray:
    """Degrade one image: blur, downsample, noise, JPEG, resize back, colour, round.

    `hq` and the result are uint8 (H, W, 3) RGB of the same size. The same parameters give the same bytes (on
    one version of numpy, scipy and the JPEG library). Levels are clipped after the noise and after each
    colour step; rounding happens where JPEG needs it and at the very end.
    Raises FlipnetError for another dtype or shape, and for sides too short to mirror half the kernel.
    Source: GFPGAN gfpgan/data/ffhq_degradation_dataset.py, read for its order and conventions.
    """
    _check_image(hq, parameters.kernel_size_px)
    height, width = hq.shape[:2]
    levels = hq.astype(np.float32)
    levels = convolve(levels, gaussian_kernel(parameters))
    # GFPGAN's int(side // factor), kept from reaching zero.
    small = (max(1, int(height // parameters.downsample)), max(1, int(width // parameters.downsample)))
    levels = resize_bilinear(levels, *small)
    noise = np.random.default_rng(parameters.noise_seed).standard_normal(levels.shape, dtype=np.float32)
    levels = np.clip(levels + np.float32(parameters.noise_std_levels) * noise, 0, 255)
    levels = jpeg_round_trip(round_to_uint8(levels), parameters.jpeg_quality).astype(np.float32)
    levels = resize_bilinear(levels, height, width)
    return round_to_uint8(_change_colours(levels, parameters))


def degrade_with(
    ranges: DegradationRanges, hq: np.ndarray, seed: int | tuple[int, ...]
) -> tuple[np.ndarray, DegradationParameters]:
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
    half = parameters.kernel_size_px // 2
    offsets = np.arange(-half, half + 1, dtype=np.float64)
    x, y = offsets[None, :], offsets[:, None]
    cos, sin = np.cos(parameters.blur_angle_rad), np.sin(parameters.blur_angle_rad)
    u = (cos * x + sin * y) / parameters.blur_sigma_x_px
    v = (cos * y - sin * x) / parameters.blur_sigma_y_px
    kernel = np.exp(-0.5 * (u**2 + v**2))
    return (kernel / kernel.sum()).astype(np.float32)


def _change_colours(levels: np.ndarray, parameters: DegradationParameters) -> np.ndarray:
    # GFPGAN's order: shift, gray, jitter.
    if parameters.colour_shift_levels is not None:
        levels = np.clip(levels + np.asarray(parameters.colour_shift_levels, np.float32), 0, 255)
    if parameters.grayscale:
        levels = to_grayscale(levels)
    return levels if parameters.jitter is None else apply_jitter(levels, parameters.jitter)
