"""The report of an evaluation as one JSON document, and what can be read out of it again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flipnet.evaluation.catalogue import Metric, SetMetric
from flipnet.evaluation.image_sets import Problem
from flipnet.evaluation.provenance import provenance
from flipnet.evaluation.scoring import LoadedMetrics, Part
from flipnet.evaluation.statistics import LEVEL, RESAMPLES, estimate_mean, paired_difference
from flipnet.types import FlipnetError

PROTOCOL = "evaluation-1"
"""Name of the report's layout and statistics; any change that moves a number or a key changes it."""

JSON_NAME = "report.json"
PAGE_NAME = "report.html"


def document(
    parts: Sequence[Part],
    loaded: LoadedMetrics,
    *,
    main: str,
    seed: int,
    settings: Mapping[str, Any],
    files: Mapping[str, Any],
    problems: Sequence[Problem] = (),
    remarks: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the whole report as JSON types.

    Args:
        parts: the numbers.
        loaded: the metrics they were measured with.
        main: the column the others are compared with.
        seed: of the bootstrap, and of whatever `settings` says.
        settings: what the run was asked to do, JSON types.
        files: location, number and hash of every column's images.
        problems: images left out, and remarks on others.
        remarks: sentences about the run.
        extra: further sections, such as "speed" and "calibration".
    """
    metrics = [_about(metric, "image", loaded) for metric, _ in loaded.single]
    metrics += [_about(metric, "set", loaded) for metric, _ in loaded.of_sets]
    return {
        "protocol": PROTOCOL,
        **provenance(),
        "seed": seed,
        "main": main,
        "bootstrap": {"resamples": RESAMPLES, "level": LEVEL},
        "settings": dict(settings),
        "files": dict(files),
        "metrics": metrics,
        "not_measured": dict(loaded.missing),
        "parts": [_part(part, loaded, main, seed) for part in parts],
        "problems": [asdict(problem) for problem in problems],
        "remarks": list(remarks),
        **(extra or {}),
    }


def _about(metric: Metric | SetMetric, of: str, loaded: LoadedMetrics) -> dict[str, Any]:
    return {
        "name": metric.name,
        "label": metric.label,
        "protocol": metric.protocol,
        "better": metric.better,
        "range": [finite(float(end)) for end in metric.range],
        "unit": metric.unit,
        "source": metric.source,
        "digits": metric.digits,
        "of": of,
        "weights_sha256": loaded.digests.get(metric.network),
    }


def _part(part: Part, loaded: LoadedMetrics, main: str, seed: int) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for column, scores in part.scores.items():
        columns[column] = {
            "metrics": {name: finite(asdict(estimate_mean(v, seed))) for name, v in scores.items()},
            "set_metrics": {name: finite(value) for name, value in part.set_scores[column].items()},
            "seconds": part.seconds.get(column),
        }
    return {
        "name": part.name,
        "images": len(part.keys),
        "real": None if part.real is None else {"location": part.real.location, "images": part.real.count},
        "columns": columns,
        "differences": _differences(part, loaded, main, seed),
        "scores": [
            {
                "key": key,
                "columns": {
                    column: {name: finite(float(values[index])) for name, values in scores.items()}
                    for column, scores in part.scores.items()
                },
            }
            for index, key in enumerate(part.keys)
        ],
    }


def _differences(part: Part, loaded: LoadedMetrics, main: str, seed: int) -> dict[str, Any]:
    """Return main - other by other column and metric, with verdicts."""
    found: dict[str, Any] = {}
    for column in part.scores:
        if column == main or main not in part.scores:
            continue
        found[column] = {}
        for metric, _ in loaded.single:
            values, baseline = part.scores[main][metric.name], part.scores[column][metric.name]
            difference, verdict = paired_difference(values, baseline, metric.better, seed)
            found[column][metric.name] = finite(asdict(difference)) | {"verdict": verdict}
    return found


def finite(value: Any) -> Any:
    """Return JSON-ready numbers: NaN becomes None, an infinity its name ("inf", "-inf")."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def read_report(path: Path) -> dict[str, Any]:
    """Read a report's JSON, from the file or the folder that holds it.

    Raises FlipnetError naming a file that is missing or no report of this layout.
    """
    file = path / JSON_NAME if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FlipnetError(f"{file}: cannot be read as a report ({error})") from error
    if not isinstance(found, dict) or found.get("protocol") != PROTOCOL:
        raise FlipnetError(f"{file}: is no report of the layout {PROTOCOL}")
    return found
