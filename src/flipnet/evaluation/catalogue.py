"""Every metric flipnet can measure: what its number means, where its definition comes from, and how to load it.

A metric is a frozen record; nothing registers itself. Protocol ids change whenever a number would, and two reports
are compared only where the ids agree. The traps of each protocol are in docs/metrics.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from flipnet.evaluation import metrics
from flipnet.evaluation.arcface import ArcFaceEmbedder, angle_deg
from flipnet.evaluation.distributions import frechet_distance, frechet_of_gaussians, kernel_distance
from flipnet.evaluation.inception import InceptionFeatures
from flipnet.evaluation.landmarks import FindLandmarks, FivePoints, landmark_distance, load_landmarks
from flipnet.evaluation.lpips import load_lpips, lpips_distance
from flipnet.evaluation.niqe import BUNDLED, load_model, niqe
from flipnet.evaluation.no_reference import load_pyiqa
from flipnet.evaluation.weights import MetricUnavailableError, MetricWeights
from flipnet.faces.identity import IdentityNetwork, IdentityUnavailableError, identity_distance
from flipnet.types import FlipnetError

Better = Literal["higher", "lower", "one"]
"""Which way a number should go; "one": the nearer to 1 the better."""

Measure = Callable[[np.ndarray, np.ndarray | None], float]
"""Measures a uint8 (H, W, 3) RGB image beside its reference; NaN where it cannot be measured on this image."""

Features = Callable[[np.ndarray], np.ndarray]
"""Maps a uint8 (H, W, 3) RGB image to float64 (d,) features."""


@dataclass(frozen=True)
class Metric:
    """What one number per image means.

    Attributes:
        name: key in JSON and on the command line, unit as suffix where there is one.
        label: heading in tables.
        protocol: id of the exact definition.
        better: which way it should go.
        range: smallest and largest value.
        unit: of the number, "" for none.
        source: paper or tool the definition follows.
        load: makes the measuring function; MetricUnavailableError says why it cannot.
        needs_reference: whether it compares with the true image.
        standard: measured, or named as left out, unless other metrics are asked for.
        network: name in `WEIGHT_FILES` of the file its numbers depend on, "" for none.
        digits: decimals worth printing.
    """

    name: str
    label: str
    protocol: str
    better: Better
    range: tuple[float, float]
    unit: str
    source: str
    load: Callable[[MetricWeights], Measure]
    needs_reference: bool = True
    standard: bool = True
    network: str = ""
    digits: int = 3


@dataclass(frozen=True)
class SetMetric:
    """What one number per set of images means; most attributes are those of `Metric`.

    Attributes:
        load: makes the function from an image to its features.
        distance: of the real images' features (N, d) and the set's (M, d).
        of_moments: the same of their means and covariances, for references saved as such; None if it needs more.
    """

    name: str
    label: str
    protocol: str
    better: Better
    range: tuple[float, float]
    unit: str
    source: str
    load: Callable[[MetricWeights], Features]
    distance: Callable[[np.ndarray, np.ndarray], float]
    of_moments: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float] | None = None
    standard: bool = True
    network: str = ""
    digits: int = 3


def _paired(function: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[MetricWeights], Measure]:
    """Make a loader of a function that needs no weights."""

    def measure(image: np.ndarray, reference: np.ndarray | None) -> float:
        assert reference is not None  # `Metric.needs_reference` keeps others away
        return function(image, reference)

    return lambda weights: measure


class _Remembered:
    """A function of an image whose answers are kept: a reference is asked about once for every column."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray | None]) -> None:
        self._function = function
        self._answers: dict[bytes, np.ndarray | None] = {}

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        if digest not in self._answers:
            self._answers[digest] = self._function(image)
        return self._answers[digest]


def _by_feature(remembered: _Remembered, compare: Callable[..., float]) -> Measure:
    def measure(image: np.ndarray, reference: np.ndarray | None) -> float:
        assert reference is not None
        return compare(remembered(image), remembered(reference))

    return measure


def _load_niqe(weights: MetricWeights) -> Measure:
    model = load_model(weights.find("niqe", BUNDLED))
    return lambda image, reference: niqe(image, model)


def _dlib(weights: MetricWeights) -> _Remembered:
    def load() -> _Remembered:
        try:
            return _Remembered(IdentityNetwork().embed)
        except IdentityUnavailableError as error:
            raise MetricUnavailableError(str(error)) from error

    return weights.share("dlib", load)


def _load_identity(weights: MetricWeights) -> Measure:
    return _by_feature(_dlib(weights), identity_distance)


def _load_lpips(kind: str, weights: MetricWeights) -> Measure:
    return _paired(partial(lpips_distance, load_lpips(kind, weights)))(weights)


def _load_arcface(least_deg: float, weights: MetricWeights) -> Measure:
    def compare(embedding: np.ndarray, other: np.ndarray) -> float:
        angle = angle_deg(embedding, other)
        return angle if angle >= least_deg else float("nan")

    return _by_feature(weights.share("arcface", lambda: _Remembered(ArcFaceEmbedder(weights))), compare)


def _load_landmarks(load: Callable[[MetricWeights], FindLandmarks], weights: MetricWeights) -> Measure:
    return _by_feature(_Remembered(load(weights)), landmark_distance)


def _features(remember: Callable[[MetricWeights], _Remembered], weights: MetricWeights) -> Features:
    remembered = remember(weights)

    def features(image: np.ndarray) -> np.ndarray:
        found = remembered(image)
        assert found is not None  # only landmarks can be missing
        return found

    return features


def _inception(weights: MetricWeights) -> _Remembered:
    return weights.share("inception", lambda: _Remembered(InceptionFeatures(weights)))


_INFINITY = float("inf")
_SSIM_SOURCE = "Wang et al. 2004, scikit-image"
_PYIQA = "pyiqa (PolyForm Noncommercial licence)"

METRICS: tuple[Metric, ...] = (
    Metric(
        "psnr_db", "PSNR", "psnr-rgb-crop0-1", "higher", (0, _INFINITY), "dB",
        "BasicSR calculate_psnr, crop_border 0", _paired(metrics.psnr), digits=2,
    ),
    Metric(
        "ssim", "SSIM", "ssim-rgb-gauss11-crop0-1", "higher", (-1, 1), "", _SSIM_SOURCE, _paired(metrics.ssim),
    ),
    Metric(
        "ms_ssim", "MS-SSIM", "ms-ssim-rgb-5-1", "higher", (0, 1), "", "Wang et al. 2003, torchmetrics",
        _paired(metrics.ms_ssim),
    ),
    Metric(
        "gradient_energy_ratio", "gradient energy", "gradient-energy-ratio-1", "one", (0, _INFINITY), "",
        "our choice", _paired(metrics.gradient_energy_ratio), digits=2,
    ),
    Metric(
        "niqe", "NIQE", "niqe-y-96-1", "lower", (0, _INFINITY), "", "Mittal et al. 2013", _load_niqe,
        needs_reference=False, network="niqe", digits=2,
    ),
    Metric(
        "identity_distance", "identity", "dlib-fixed-points-1", "lower", (0, 2), "", "dlib ResNet v1",
        _load_identity,
    ),
    Metric(
        "landmark5_px", "LMD-5", "lmd-centerface-5-512-1", "lower", (0, _INFINITY), "px", "CenterFace",
        partial(_load_landmarks, lambda weights: FivePoints()), digits=2,
    ),
    Metric(
        "lpips_vgg", "LPIPS", "lpips-0.1-vgg-rgb-1", "lower", (0, _INFINITY), "", "Zhang et al. 2018",
        partial(_load_lpips, "vgg"), network="lpips-vgg",
    ),
    Metric(
        "deg", "Deg", "arcface-r18-gray128-all-1", "lower", (0, 180), "°", "VQFR script, arcface-pytorch",
        partial(_load_arcface, 0.0), network="arcface", digits=2,
    ),
    Metric(
        "landmark_px", "LMD", "lmd-model-512-1", "lower", (0, _INFINITY), "px", "VQFR script, model by path",
        partial(_load_landmarks, load_landmarks), network="landmarks", digits=2,
    ),
    Metric(
        "deg_over_1", "Deg >1°", "arcface-r18-gray128-over1-1", "lower", (1, 180), "°",
        "VQFR script: pairs below 1° left out", partial(_load_arcface, 1.0), standard=False, network="arcface",
        digits=2,
    ),
    Metric(
        "lpips_alex", "LPIPS alex", "lpips-0.1-alex-rgb-1", "lower", (0, _INFINITY), "", "Zhang et al. 2018",
        partial(_load_lpips, "alex"), standard=False, network="lpips-alex",
    ),
    Metric(
        "psnr_y_db", "PSNR-Y", "psnr-y-crop0-1", "higher", (0, _INFINITY), "dB", "BasicSR test_y_channel",
        _paired(metrics.psnr_luma), standard=False, digits=2,
    ),
    Metric(
        "ssim_y", "SSIM-Y", "ssim-y-gauss11-crop0-1", "higher", (-1, 1), "", "BasicSR test_y_channel",
        _paired(metrics.ssim_luma), standard=False,
    ),
    Metric(
        "psnr_matched_db", "PSNR matched", "psnr-rgb-crop0-matched-1", "higher", (0, _INFINITY), "dB",
        "VQFR script, --correct_mean_var", _paired(metrics.psnr_matched), standard=False, digits=2,
    ),
    Metric(
        "dists", "DISTS", "pyiqa-dists-1", "lower", (0, 1), "", _PYIQA, partial(load_pyiqa, "dists"),
        standard=False,
    ),
    *(
        Metric(
            name, name.upper(), f"pyiqa-{name}-1", "higher", (0, top), "", _PYIQA, partial(load_pyiqa, name),
            needs_reference=False, standard=False, digits=digits,
        )
        for name, top, digits in (("musiq", 100, 2), ("maniqa", 1, 3), ("clipiqa", 1, 3))
    ),
)  # fmt: skip
"""One number per image, in the order of tables."""

SET_METRICS: tuple[SetMetric, ...] = (
    SetMetric(
        "frechet_dlib", "Fréchet dlib", "frechet-dlib128-fixed-points-1", "lower", (0, _INFINITY), "",
        "our choice: FID's formula on dlib's embedding", partial(_features, _dlib), frechet_distance, digits=4,
    ),
    SetMetric(
        "fid", "FID", "fid-inception-tf-torch-fidelity-1", "lower", (0, _INFINITY), "", "Heusel et al. 2017",
        partial(_features, _inception), frechet_distance, frechet_of_gaussians, network="inception",
        digits=2,
    ),
    SetMetric(
        "kid", "KID", "kid-inception-tf-1000x100-1", "lower", (-_INFINITY, _INFINITY), "",
        "Binkowski et al. 2018", partial(_features, _inception), kernel_distance, standard=False,
        network="inception", digits=4,
    ),
)  # fmt: skip
"""One number per set of images; biased for small sets, compare equal counts only."""


def choose(names: Sequence[str]) -> tuple[tuple[Metric, ...], tuple[SetMetric, ...]]:
    """Return the named metrics in the catalogue's order, the standard ones for no names.

    Raises FlipnetError naming a metric that is none.
    """
    known = [*(metric.name for metric in METRICS), *(metric.name for metric in SET_METRICS)]
    for name in names:
        if name not in known:
            raise FlipnetError(f"--metric {name}: is none of {', '.join(known)}")
    single = tuple(m for m in METRICS if (m.name in names if names else m.standard))
    of_sets = tuple(m for m in SET_METRICS if (m.name in names if names else m.standard))
    return single, of_sets
