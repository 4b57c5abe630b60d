"""Real-ESRGAN's second-order degradation: blur, resize, noise and JPEG twice, with sinc filters.

Drawing (`SecondOrderRanges.sample`) and doing (`SecondOrderParameters.apply`) are apart, as in the naive recipe.
Inside, images are float32 (H, W, 3) RGB on the 0..255 scale ("levels").

Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", 2021,
section 3; numbers from its options/train_realesrnet_x4plus.yml, kernel sizes and sinc cutoffs
from realesrgan/data/realesrgan_dataset.py, order of the steps from realesrgan/models/realesrnet_model.py.
Its sharpening of the HQ image is a training target's matter and no part of this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flipnet.data.colour import round_to_uint8
from flipnet.data.filters import ResizeMode, convolve, jpeg_round_trip, resize_by_mode
from flipnet.data.kernels import BlurKernel, KernelShape
from flipnet.data.noise import Noise, add_noise
from flipnet.types import FlipnetError

Range = tuple[float, float]

MIN_SIDE_PX = 32
"""Shortest side of an image that the recipe takes (our choice: below it, nothing of the image is left)."""

_RESIZE_MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic")
_KERNELS: tuple[tuple[KernelShape, bool, float], ...] = (  # shape, round, probability
    ("gaussian", True, 0.45),
    ("gaussian", False, 0.25),
    ("generalized", True, 0.12),
    ("generalized", False, 0.03),
    ("plateau", True, 0.12),
    ("plateau", False, 0.03),
)
_KERNEL_SIZES_PX = tuple(range(7, 22, 2))


@dataclass(frozen=True)
class RoundRanges:
    """What one of the two rounds draws from, uniformly where a range is given.

    Attributes:
        blur_probability: chance that the round blurs at all.
        blur_sigma_px: standard deviation of the Gaussian-like kernels, two draws where not round.
        resize_probabilities: chances of growing, shrinking and keeping the size, sum 1.
        resize: the factors on each side: shrinking draws from (low, 1), growing from (1, high).
        noise_std_levels: standard deviation of Gaussian noise, levels of 255.
        poisson_scale: factor on Poisson noise.
        sinc_probability: chance that the blur is a sinc filter.
        generalized_beta, plateau_beta: exponents, drawn from (low, 1) and (1, high) equally often.
        gaussian_noise_probability: chance that the noise is Gaussian, else it is Poisson.
        gray_noise_probability: chance that the three channels share their noise.
        jpeg_quality: JPEG quality, rounded to an integer after drawing.
    """

    blur_probability: float
    blur_sigma_px: Range
    resize_probabilities: tuple[float, float, float]
    resize: Range
    noise_std_levels: Range
    poisson_scale: Range
    sinc_probability: float = 0.1
    generalized_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)
    gaussian_noise_probability: float = 0.5
    gray_noise_probability: float = 0.4
    jpeg_quality: Range = (30, 95)

    def __post_init__(self) -> None:
        if abs(sum(self.resize_probabilities) - 1) > 1e-9 or min(self.resize_probabilities) < 0:
            raise FlipnetError(f"resize_probabilities must sum to 1, got {self.resize_probabilities}.")
        if not 0 < self.resize[0] <= 1 <= self.resize[1]:
            raise FlipnetError(f"resize needs 0 < low <= 1 <= high, got {self.resize}.")
        if not 0.01 <= self.blur_sigma_px[0] <= self.blur_sigma_px[1]:
            raise FlipnetError(f"blur_sigma_px needs 0.01 <= low <= high, got {self.blur_sigma_px}.")
        if not 1 <= self.jpeg_quality[0] <= self.jpeg_quality[1] <= 100:
            raise FlipnetError(f"jpeg_quality must be (low, high) within 1..100, got {self.jpeg_quality}.")

    def sample(self, rng: np.random.Generator) -> RoundParameters:
        """Draw one round; the number of values taken from `rng` does not depend on their outcome."""
        kernel = self._sample_kernel(rng)
        blurred = rng.uniform() < self.blur_probability
        grown, shrunk = rng.uniform(1, self.resize[1]), rng.uniform(self.resize[0], 1)
        factor = rng.choice([grown, shrunk, 1.0], p=self.resize_probabilities)
        return RoundParameters(
            kernel=kernel if blurred else None,
            resize=float(factor),
            resize_mode=_RESIZE_MODES[rng.integers(3)],
            noise=self._sample_noise(rng),
            jpeg_quality=round(float(rng.uniform(*self.jpeg_quality))),
        )

    def _sample_kernel(self, rng: np.random.Generator) -> BlurKernel:
        size = _KERNEL_SIZES_PX[rng.integers(len(_KERNEL_SIZES_PX))]
        # Small kernels cannot hold the slow waves of a low cutoff.
        sinc = BlurKernel("sinc", size, cutoff_rad=float(rng.uniform(np.pi / (3 if size < 13 else 5), np.pi)))
        is_sinc = rng.uniform() < self.sinc_probability
        shape, isotropic, _ = _KERNELS[rng.choice(len(_KERNELS), p=[p for *_, p in _KERNELS])]
        sigma_x, sigma_y = (float(rng.uniform(*self.blur_sigma_px)) for _ in range(2))
        angle, side, position = float(rng.uniform(-np.pi, np.pi)), rng.uniform(), float(rng.uniform())
        low, high = self.plateau_beta if shape == "plateau" else self.generalized_beta
        beta = low + (1 - low) * position if side < 0.5 else 1 + (high - 1) * position
        return (
            sinc
            if is_sinc
            else BlurKernel(
                shape,
                size,
                sigma_x_px=sigma_x,
                sigma_y_px=sigma_x if isotropic else sigma_y,
                angle_rad=0.0 if isotropic else angle,
                beta=1.0 if shape == "gaussian" else beta,
            )
        )

    def _sample_noise(self, rng: np.random.Generator) -> Noise:
        std, scale = float(rng.uniform(*self.noise_std_levels)), float(rng.uniform(*self.poisson_scale))
        gaussian = rng.uniform() < self.gaussian_noise_probability
        gray = bool(rng.uniform() < self.gray_noise_probability)
        seed = int(rng.integers(2**32))
        return Noise("gaussian", std, gray, seed) if gaussian else Noise("poisson", scale, gray, seed)


@dataclass(frozen=True)
class RoundParameters:
    """One drawn round; units as in `RoundRanges`. `kernel` is None where the round does not blur."""

    kernel: BlurKernel | None
    resize: float
    resize_mode: ResizeMode
    noise: Noise
    jpeg_quality: int


@dataclass(frozen=True)
class SecondOrderRanges:
    """A second-order recipe.

    Attributes:
        name: the recipe's name, as in `degradation.PRESETS`.
        first, second: the two rounds.
        final_sinc_probability: chance of a last sinc filter.
        scale: the LQ is made at 1/scale of the size; it is then enlarged again to the size of the HQ.
    """

    name: str
    first: RoundRanges
    second: RoundRanges
    final_sinc_probability: float
    scale: int

    def sample(self, rng: np.random.Generator) -> SecondOrderParameters:
        """Draw one degradation; the number of values taken from `rng` does not depend on their outcome."""
        first, second = self.first.sample(rng), self.second.sample(rng)
        size = _KERNEL_SIZES_PX[rng.integers(len(_KERNEL_SIZES_PX))]
        sinc = BlurKernel("sinc", size, cutoff_rad=float(rng.uniform(np.pi / 3, np.pi)))
        return SecondOrderParameters(
            first=first,
            second=second,
            final_kernel=sinc if rng.uniform() < self.final_sinc_probability else None,
            final_resize_mode=_RESIZE_MODES[rng.integers(3)],
            sinc_before_jpeg=bool(rng.uniform() < 0.5),
            scale=self.scale,
        )


@dataclass(frozen=True)
class SecondOrderParameters:
    """Everything that decides what a second-order degradation does to an image.

    Attributes:
        first, second: the two rounds; the second one's JPEG is part of the last step.
        final_kernel: the last sinc filter, None for none.
        final_resize_mode: how the image comes to 1/scale of its size, right before the sinc filter.
        sinc_before_jpeg: order of [resizing, sinc filter] and the second JPEG.
        scale: see `SecondOrderRanges`.
    """

    first: RoundParameters
    second: RoundParameters
    final_kernel: BlurKernel | None
    final_resize_mode: ResizeMode
    sinc_before_jpeg: bool
    scale: int

    @property
    def grayscale(self) -> bool:
        """False: the recipe never makes an image gray."""
        return False

    def apply(self, hq: np.ndarray) -> np.ndarray:
        """Degrade uint8 (H, W, 3) RGB into the same shape and dtype; the same parameters give the same bytes.

        The last enlargement is bicubic, as in DiffBIR's use of this recipe for images of 512 px
        (configs/train/train_stage2_v2.1.yaml). Sizes are rounded down. Raises FlipnetError for another dtype or
        shape and for sides under `MIN_SIDE_PX`.
        """
        if hq.dtype != np.uint8 or hq.ndim != 3 or hq.shape[2] != 3:
            raise FlipnetError(f"degrade needs a uint8 (H, W, 3) image, got {hq.dtype} {hq.shape}.")
        height, width = hq.shape[:2]
        if min(height, width) < MIN_SIDE_PX:
            raise FlipnetError(f"degrade needs sides of at least {MIN_SIDE_PX} px, got {width}x{height}.")
        levels = _blur_resize_noise(hq.astype(np.float32), self.first, height, width)
        levels = _jpeg(levels, self.first.jpeg_quality)
        levels = _blur_resize_noise(levels, self.second, height / self.scale, width / self.scale)
        if self.sinc_before_jpeg:
            levels = _jpeg(self._resize_and_sinc(levels, height, width), self.second.jpeg_quality)
        else:
            levels = self._resize_and_sinc(_jpeg(levels, self.second.jpeg_quality), height, width)
        levels = round_to_uint8(levels).astype(np.float32)
        return round_to_uint8(resize_by_mode(levels, height, width, "bicubic"))

    def _resize_and_sinc(self, levels: np.ndarray, height: int, width: int) -> np.ndarray:
        small = (height // self.scale, width // self.scale)
        levels = resize_by_mode(levels, *small, self.final_resize_mode)
        return levels if self.final_kernel is None else convolve(levels, self.final_kernel.weights())


def _blur_resize_noise(levels: np.ndarray, drawn: RoundParameters, height: float, width: float) -> np.ndarray:
    """One round up to its JPEG; the image is resized to (height, width) times the drawn factor."""
    if drawn.kernel is not None:
        levels = convolve(levels, drawn.kernel.weights())
    size = (max(1, int(height * drawn.resize)), max(1, int(width * drawn.resize)))
    return add_noise(resize_by_mode(levels, *size, drawn.resize_mode), drawn.noise)


def _jpeg(levels: np.ndarray, quality: int) -> np.ndarray:
    return jpeg_round_trip(round_to_uint8(levels), quality).astype(np.float32)


REAL_ESRGAN = SecondOrderRanges(
    "real-esrgan",
    first=RoundRanges(
        blur_probability=1.0,
        blur_sigma_px=(0.2, 3),
        resize_probabilities=(0.2, 0.7, 0.1),
        resize=(0.15, 1.5),
        noise_std_levels=(1, 30),
        poisson_scale=(0.05, 3),
    ),
    second=RoundRanges(
        blur_probability=0.8,
        blur_sigma_px=(0.2, 1.5),
        resize_probabilities=(0.3, 0.4, 0.3),
        resize=(0.3, 1.2),
        noise_std_levels=(1, 25),
        poisson_scale=(0.05, 2.5),
    ),
    final_sinc_probability=0.8,
    scale=4,
)
"""The published x4 recipe."""
