"""Blur kernels of degradation recipes: Gaussian, generalised and plateau Gaussian, and the ringing sinc filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import j1

KernelShape = Literal["gaussian", "generalized", "plateau", "sinc"]


@dataclass(frozen=True)
class BlurKernel:
    """One blur kernel.

    With q = u²/σx² + v²/σy², (u, v) being the pixel offset (x, y) turned by the angle, the shapes are
    gaussian exp(-q/2), generalized exp(-q^β/2), plateau 1/(1 + q^β), and sinc, the ideal circular low-pass
    filter ω J₁(ωr)/(2πr), which ignores sigmas, angle and beta.
    Source: Wang et al., "Real-ESRGAN", 2021, sections "Classical Degradation Model" and "Ringing and overshoot
    artifacts".

    Attributes:
        shape: the formula.
        size_px: side of the square to which the kernel is cut, odd.
        sigma_x_px: standard deviation along `angle_rad`.
        sigma_y_px: standard deviation across it.
        angle_rad: angle of the kernel's first axis to the x axis, x towards y.
        beta: exponent of the generalised and the plateau form; 1 makes the former a Gaussian.
        cutoff_rad: cutoff ω of the sinc filter in radians per pixel, at most π.
    """

    shape: KernelShape
    size_px: int
    sigma_x_px: float = 1.0
    sigma_y_px: float = 1.0
    angle_rad: float = 0.0
    beta: float = 1.0
    cutoff_rad: float = np.pi

    def weights(self) -> np.ndarray:
        """Return the float32 (size_px, size_px) kernel, rows y, columns x, cut and then normalised to sum 1."""
        half = self.size_px // 2
        offsets = np.arange(-half, half + 1, dtype=np.float64)
        x, y = offsets[None, :], offsets[:, None]
        if self.shape == "sinc":
            kernel = _low_pass(np.hypot(x, y), self.cutoff_rad)
        else:
            cos, sin = np.cos(self.angle_rad), np.sin(self.angle_rad)
            u = (cos * x + sin * y) / self.sigma_x_px
            v = (cos * y - sin * x) / self.sigma_y_px
            squared = u**2 + v**2
            if self.shape == "plateau":
                kernel = 1 / (1 + squared**self.beta)
            else:
                kernel = np.exp(-0.5 * (squared if self.shape == "gaussian" else squared**self.beta))
        return (kernel / kernel.sum()).astype(np.float32)


def _low_pass(radius: np.ndarray, cutoff: float) -> np.ndarray:
    # J1(ωr)/r tends to ω/2 at the centre.
    safe = np.where(radius == 0, 1, radius)
    return np.where(radius == 0, cutoff**2 / (4 * np.pi), cutoff * j1(cutoff * safe) / (2 * np.pi * safe))
