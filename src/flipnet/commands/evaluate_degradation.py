"""`flipnet evaluate degradation`: how real a method's bad faces look, as a table, as JSON, and as a map."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flipnet import __version__
from flipnet.commands.evaluate import progress_bar
from flipnet.commands.outputs import make_folder
from flipnet.commands.report import write_json
from flipnet.data.datasets import ImageEntry, index_images
from flipnet.evaluation import degradation, scene_statistics
from flipnet.evaluation.degradation import (
    MIN_IMAGES,
    REAL,
    REPETITIONS,
    Comparison,
    Estimate,
    Likeness,
    check_names,
    compare_with_real,
)
from flipnet.evaluation.distributions import COVERAGE_NEIGHBOURS, PRECISION_NEIGHBOURS
from flipnet.evaluation.embedding_plot import check_plotting, plot_embedding
from flipnet.evaluation.face_sets import FaceSet, SetFeatures, load_face_set, measure_set
from flipnet.evaluation.paired_sets import Content, ContentMeasurer, Diversity, Spread, measure_diversity
from flipnet.faces.detect import CenterFaceDetector
from flipnet.types import FlipnetError

JSON_NAME = "degradation.json"
PLOT_NAME = "embedding.png"
CONTENT_IMAGES = 200
"""Images per method whose content is checked by default; also the faces whose variants are compared."""

_PACKAGES = ("numpy", "scipy", "scikit-learn", "pillow", "onnxruntime", "dlib-bin")


@dataclass(frozen=True)
class EvaluationSettings:
    """What `flipnet evaluate degradation` was asked to do; each field is the option of the same name."""

    real: Path
    methods: tuple[str, ...]
    output: Path
    unions: tuple[str, ...] = ()
    hq: Path | None = None
    detect: bool = False
    limit: int | None = None
    content_limit: int = CONTENT_IMAGES
    repetitions: int = REPETITIONS
    colour: bool = False
    seed: int = 0
    cache: Path | None = None


@dataclass(frozen=True)
class MethodFindings:
    """What was found about one method besides its likeness; None where it could not be measured."""

    diversity: Diversity | None
    content: Content | None


def evaluate_degradation(settings: EvaluationSettings) -> Comparison:
    """Compare methods with real photographs, print the tables, and write JSON and map into the output folder.

    Raises:
        FlipnetError: an option that says nothing usable, a missing or unreadable set, one too small or without
            faces, a missing package, or a file that cannot be written.
    """
    locations = _assignments(settings.methods, "--method")
    unions = {
        name: tuple(members.split("+")) for name, members in _assignments(settings.unions, "--union").items()
    }
    check_names(tuple(locations), unions)
    check_plotting()
    sets = {REAL: load_face_set(REAL, settings.real, settings.limit)}
    sets |= {name: load_face_set(name, place, settings.limit) for name, place in locations.items()}
    hq = {} if settings.hq is None else {entry.key: entry for entry in index_images(settings.hq)}
    make_folder(settings.output)
    features = _measure_features(sets, settings)
    comparison = compare_with_real(
        features[REAL].features,
        {name: features[name].features for name in locations},
        unions,
        seed=settings.seed,
        repetitions=settings.repetitions,
        colour=settings.colour,
    )
    findings = _measure_pairs(sets, features, comparison, hq, settings)
    write_json(settings.output / JSON_NAME, as_json(settings, sets, features, comparison, findings))
    title = f"degradation features, {comparison.space.dimensions} coordinates, t-SNE seed {settings.seed}"
    points = {name: comparison.space.project(found.features) for name, found in features.items()}
    plot_embedding(points, settings.output / PLOT_NAME, title=title, seed=settings.seed)
    console = Console()
    console.print(likeness_table(comparison))
    if any(finding.diversity or finding.content for finding in findings.values()):
        console.print(content_table(findings))
    for line in notes(features, findings):
        console.print(line, markup=False, highlight=False)
    return comparison


def _assignments(values: Sequence[str], option: str) -> dict[str, str]:
    """Split NAME=VALUE options."""
    found: dict[str, str] = {}
    for value in values:
        name, sign, rest = value.partition("=")
        if not (name and sign and rest):
            raise FlipnetError(
                f"{option} {value}: expected NAME={'A+B' if option == '--union' else 'FOLDER'}"
            )
        if name in found:
            raise FlipnetError(f"{option} {value}: the name '{name}' is given twice")
        found[name] = rest
    return found


def _measure_features(sets: Mapping[str, FaceSet], settings: EvaluationSettings) -> dict[str, SetFeatures]:
    found = {}
    for name, faces in sets.items():
        is_real = name == REAL
        detector = CenterFaceDetector() if is_real and settings.detect else None
        with progress_bar(len(faces.entries), f"{name}: features") as advance:
            found[name] = measure_set(faces, detector=detector, cache=settings.cache, on_image=advance)
        fewest, count = (2 if is_real else 1) * MIN_IMAGES, len(found[name].features)
        if count < fewest:
            raise FlipnetError(
                f"{faces.location}: has {count} usable faces, but at least {fewest} are needed"
            )
    return found


def _measure_pairs(
    sets: Mapping[str, FaceSet],
    features: Mapping[str, SetFeatures],
    comparison: Comparison,
    hq: Mapping[str, ImageEntry],
    settings: EvaluationSettings,
) -> dict[str, MethodFindings]:
    findings = {}
    measurer, limit = ContentMeasurer(hq), settings.content_limit
    for name, faces in sets.items():
        if name == REAL:
            continue
        points = comparison.space.project(features[name].features)
        with progress_bar(2 * len(faces.entries), f"{name}: content") as advance:
            content = measurer.measure(faces, max_images=limit, on_image=advance)
            diversity = measure_diversity(
                features[name].entries, points, hq, max_faces=limit, on_image=advance
            )
        findings[name] = MethodFindings(diversity, content)
    return findings


# ------------------------------------------------------------------------------------------------ printing


def likeness_table(comparison: Comparison) -> Table:
    """Return one row per set: mean and standard deviation over the repetitions."""
    title = (
        f"{comparison.drawn_images} images drawn per row against {comparison.reference_images} real ones, "
        f"{comparison.repetitions} times; {comparison.space.dimensions} coordinates"
    )
    columns = (
        "set",
        "images",
        "Fréchet² ↓",
        "precision ↑",
        "recall ↑",
        "density ↑",
        "coverage ↑",
        "all: recall",
        "cover.",
    )
    table = Table(*columns, title=title)
    for row in comparison.rows:
        table.add_row(*_likeness_cells(row))
    return table


def _likeness_cells(row: Likeness) -> list[str]:
    def cell(estimate: Estimate, digits: int = 2) -> str:
        return f"{estimate.mean:.{digits}f} ±{estimate.deviation:.{digits}f}"

    estimates = (row.frechet, row.precision, row.recall, row.density, row.coverage)
    name = f"{row.name} (other half)" if row.name == REAL else row.name
    totals = ["–" if value is None else f"{value:.2f}" for value in (row.recall_all, row.coverage_all)]
    return [name, str(row.images), *(cell(estimate) for estimate in estimates), *totals]


def content_table(findings: Mapping[str, MethodFindings]) -> Table:
    """Return one row per method: how its variants differ, and whether the face survives."""
    columns = (
        "method", "faces x variants", "feature distance", "pixel RMSE",
        "pairs", "identity 50 / 95 %", "shift px 50 / 95 %", "no face in LQ",
    )  # fmt: skip
    table = Table(*columns, title="variants of one face, and HQ against LQ")
    for name, found in findings.items():
        table.add_row(name, *_diversity_cells(found.diversity), *_content_cells(found.content))
    return table


def _diversity_cells(diversity: Diversity | None) -> list[str]:
    if diversity is None:
        return ["–", "–", "–"]
    counts = f"{diversity.faces} x {diversity.variants:.3g}"
    return [counts, f"{diversity.feature_distance:.2f}", f"{diversity.pixel_rmse_levels:.1f}"]


def _content_cells(content: Content | None) -> list[str]:
    if content is None:
        return ["–", "–", "–", "–"]

    def cell(spread: Spread | None, digits: int) -> str:
        return "–" if spread is None else f"{spread.median:.{digits}f} / {spread.percentile_95:.{digits}f}"

    shifts = cell(content.landmark_shift_px, 1)
    return [str(content.pairs), cell(content.identity_distance, 2), shifts, str(content.lq_without_face)]


def notes(features: Mapping[str, SetFeatures], findings: Mapping[str, MethodFindings]) -> list[str]:
    """Return what was left out and what it cost, one sentence per line."""
    lines = []
    missing = len(features[REAL].without_face)
    if missing:
        lines.append(f"{missing} real images without a face were left out.")
    for name, found in findings.items():
        content = found.content
        if content is not None and content.without_hq:
            lines.append(f"{name}: {content.without_hq} images without an HQ face were left out of content.")
        if content is not None and content.hq_without_face:
            lines.append(f"{name}: no face was found in {content.hq_without_face} HQ images.")
    reasons = {found.content.identity_missing for found in findings.values() if found.content is not None}
    lines += [f"no identity distance: {reason}" for reason in reasons if reason is not None]
    times = {name: found.milliseconds for name, found in features.items() if found.milliseconds is not None}
    if times:
        lines.append("ms per image: " + ", ".join(f"{name} {value:.0f}" for name, value in times.items()))
    return lines


# ------------------------------------------------------------------------------------------------ JSON


def as_json(
    settings: EvaluationSettings,
    sets: Mapping[str, FaceSet],
    features: Mapping[str, SetFeatures],
    comparison: Comparison,
    findings: Mapping[str, MethodFindings],
) -> dict[str, Any]:
    """Return the whole report as JSON types; keys are the attributes' names, explained where these are defined."""
    space = comparison.space
    return {
        "flipnet": __version__,
        "protocol": degradation.PROTOCOL,
        "features": scene_statistics.PROTOCOL,
        "packages": {name: _version(name) for name in _PACKAGES},
        "settings": {
            "seed": settings.seed,
            "repetitions": settings.repetitions,
            "colour": settings.colour,
            "detect": settings.detect,
            "limit": settings.limit,
            "content_limit": settings.content_limit,
            "hq": None if settings.hq is None else str(settings.hq),
            "precision_neighbours": PRECISION_NEIGHBOURS,
            "coverage_neighbours": COVERAGE_NEIGHBOURS,
        },
        "space": {"dimensions": space.dimensions, "kept_variance": space.kept_variance},
        "reference_images": comparison.reference_images,
        "drawn_images": comparison.drawn_images,
        "sets": {
            name: {
                "location": sets[name].location,
                "images": len(sets[name].entries),
                "faces": len(found.features),
                "without_face": list(found.without_face),
                "milliseconds_per_image": found.milliseconds,
            }
            for name, found in features.items()
        },
        "likeness": [_finite(asdict(row)) for row in comparison.rows],
        "methods": {name: asdict(found) for name, found in findings.items()},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
