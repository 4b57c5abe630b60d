"""Paired comparison of two reports: the same pictures, the same protocols, two methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flipnet.evaluation.image_sets import INPUT, REFERENCE
from flipnet.evaluation.report import finite
from flipnet.evaluation.statistics import estimate_mean, paired_difference
from flipnet.types import FlipnetError


def compare_reports(first: Mapping[str, Any], second: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Compare the main columns of two reports, second minus first, part by part.

    Returns:
        {"parts": [{"name", "images", "metrics": {name: {"first", "second", "difference", "low", "high",
        "count", "verdict"}}}], "not_compared": {metric: reason}, "remarks": [...]}; metrics in both reports
        with one protocol id are compared over the pictures that both have.

    Raises FlipnetError when no part of the same name has a picture or metric in common, or when the references
    are different pictures under the same names.
    """
    remarks = _check_files(first, second)
    protocols = [{metric["name"]: metric for metric in report["metrics"]} for report in (first, second)]
    shared, not_compared = {}, {}
    for name, metric in protocols[0].items():
        other = protocols[1].get(name)
        if other is None:
            not_compared[name] = "only in the first report"
        elif other["protocol"] != metric["protocol"]:
            not_compared[name] = f"protocols {metric['protocol']} and {other['protocol']}"
        elif other["weights_sha256"] != metric["weights_sha256"]:
            not_compared[name] = "measured with different networks"
        elif metric["of"] == "image":
            shared[name] = metric
    not_compared |= {name: "only in the second report" for name in protocols[1] if name not in protocols[0]}
    parts = []
    others = {part["name"]: part for part in second["parts"]}
    for part in first["parts"]:
        if part["name"] in others:
            mains = (first["main"], second["main"])
            parts.append(_compare_parts(part, others[part["name"]], mains, shared, seed))
    parts = [part for part in parts if part["images"]]
    if not parts or not shared:
        raise FlipnetError("the two reports have no part, picture or metric in common")
    return {"parts": parts, "not_compared": not_compared, "remarks": remarks}


def _compare_parts(
    part: Mapping[str, Any],
    other: Mapping[str, Any],
    mains: tuple[str, str],
    metrics: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    found = [
        {row["key"]: row["columns"][main] for row in side["scores"] if main in row["columns"]}
        for side, main in zip((part, other), mains, strict=True)
    ]
    keys = [key for key in found[0] if key in found[1]]
    rows = {}
    for name, metric in metrics.items():
        values = [np.array([_number(side[key].get(name)) for key in keys]) for side in found]
        difference, verdict = paired_difference(values[1], values[0], metric["better"], seed)
        rows[name] = finite(
            {
                "first": estimate_mean(values[0], seed).mean,
                "second": estimate_mean(values[1], seed).mean,
                "difference": difference.mean,
                "low": difference.low,
                "high": difference.high,
                "count": difference.count,
                "verdict": verdict,
            }
        )
    return {"name": part["name"], "images": len(keys), "metrics": rows}


def _number(value: float | str | None) -> float:
    return float("nan") if value is None else float(value)


def _check_files(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    remarks = []
    for column in (REFERENCE, INPUT):
        files = [report["files"].get(column) for report in (first, second)]
        if any(file is None for file in files) or files[0]["sha256"] == files[1]["sha256"]:
            continue
        if files[0]["images"] == files[1]["images"]:
            raise FlipnetError(
                f"the two reports have different {column} pictures, {files[0]['location']} and "
                f"{files[1]['location']}: their numbers cannot be compared"
            )
        remarks.append(f"the reports have {files[0]['images']} and {files[1]['images']} {column} pictures")
    return remarks
