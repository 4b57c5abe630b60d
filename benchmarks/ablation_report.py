"""Tables and the figure of `ablations.py`: means, and paired differences to the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ablation_runs import VARIANTS

from flipnet.evaluation.benchmark import SEVERITIES
from flipnet.evaluation.calibration import check_plotting
from flipnet.evaluation.catalogue import Better
from flipnet.evaluation.statistics import Estimate, paired_difference

PATHS = {"hubs": "hubs and tokens alone", "all": "every path of the condition"}
METRICS: dict[str, tuple[str, Better, int]] = {
    "psnr_db": ("PSNR, dB", "higher", 2),
    "ssim": ("SSIM", "higher", 3),
    "gradient_energy_ratio": ("gradient energy", "one", 3),
    "identity_distance": ("identity distance", "lower", 3),
    "ldm": ("L_ldm", "lower", 4),
}
"""Label, what is better, and digits in tables."""
Scores = Mapping[str, Mapping[str, Sequence[float] | np.ndarray]]
"""Numbers per face by severity and metric."""


def mean_scores(seeds: Sequence[Scores]) -> Scores:
    """Average each face's numbers over the seeds."""
    return {
        severity: {
            metric: np.mean([np.asarray(one[severity][metric]) for one in seeds], axis=0) for metric in found
        }
        for severity, found in seeds[0].items()
    }


def values_table(rows: Mapping[str, Scores]) -> str:
    """Means over faces, mild / medium / severe in a cell, as Markdown; metrics that no row has are left out."""
    columns = [name for name in METRICS if any(name in scores[SEVERITIES[0]] for scores in rows.values())]
    lines = [_line("", [METRICS[name][0] for name in columns]), "|---" * (1 + len(columns)) + "|"]
    for label, scores in rows.items():
        cells = [_means(scores, name) if name in scores[SEVERITIES[0]] else "" for name in columns]
        lines.append(_line(label, cells))
    return "\n".join(lines)


def _means(scores: Scores, metric: str) -> str:
    return " / ".join(f"{np.mean(found[metric]):.{METRICS[metric][2]}f}" for found in scores.values())


def _line(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"


def differences_table(rows: Mapping[str, Scores], reference: str) -> str:
    """Paired differences to the reference's row, over all severities, with 95 % intervals over faces."""
    labels = [label for label, _, _ in METRICS.values()]
    lines = [_line("minus the reference", labels), "|---" * (1 + len(labels)) + "|"]
    for name in (name for name in rows if name != reference):
        cells = []
        for metric, (_, _, digits) in METRICS.items():
            found, verdict = difference(rows[name], rows[reference], metric)
            cells.append(f"{found.mean:+.{digits}f} ({_interval(found, digits)}), {verdict}")
        lines.append(_line(name, cells))
    return "\n".join(lines)


def _interval(found: Estimate, digits: int) -> str:
    return "one face" if found.low is None else f"{found.low:+.{digits}f} to {found.high:+.{digits}f}"


def difference(
    scores: Scores, reference: Scores, metric: str, severities: Sequence[str] = SEVERITIES
) -> tuple[Estimate, str]:
    """Paired difference of each face's mean over severities, for gradient energy of its distances to 1."""
    better = METRICS[metric][1]
    values, baseline = (
        np.array([np.asarray(one[severity][metric]) for severity in severities])
        for one in (scores, reference)
    )
    if better == "one":
        values, baseline, better = np.abs(values - 1), np.abs(baseline - 1), "lower"
    return paired_difference(values.mean(0), baseline.mean(0), better)


def draw_differences(paths: Mapping[str, Mapping[str, Sequence[Scores]]]) -> np.ndarray:
    """Draw bars of differences to the reference by metric and severity, uint8 (H, W, 3) RGB.

    Lines are 95 % intervals over faces, dots the single seeds where there are several.
    """
    agg, figures = check_plotting()
    figure = figures.Figure(figsize=(15, 3.4 * len(paths) + 0.5), dpi=100, layout="constrained")
    panels = figure.subplots(len(paths), len(METRICS), squeeze=False)
    for row, (path, runs) in zip(panels, paths.items(), strict=True):
        for axes, metric in zip(row, METRICS, strict=True):
            _draw_panel(axes, runs, metric)
        row[0].set_ylabel(f"{PATHS[path]},\nminus the reference")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    canvas = agg.FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


def _draw_panel(axes: Any, runs: Mapping[str, Sequence[Scores]], metric: str) -> None:
    others = [name for name in runs if name != "reference"]
    reference, width = mean_scores(runs["reference"]), 0.8 / len(others)
    for number, name in enumerate(others):
        places = np.arange(len(SEVERITIES)) + (number - (len(others) - 1) / 2) * width
        color = f"C{list(VARIANTS).index(name)}"
        found = [
            difference(mean_scores(runs[name]), reference, metric, [severity])[0] for severity in SEVERITIES
        ]
        means = np.array([one.mean for one in found])
        ends = [(one.mean, one.mean) if one.low is None else (one.low, one.high) for one in found]
        spread = np.abs(np.array(ends).T - means)
        axes.bar(places, means, width, yerr=spread, capsize=2, color=color, label=VARIANTS[name].label)
        if len(runs[name]) > 1:
            for own, base in zip(runs[name], runs["reference"], strict=False):
                dots = [difference(own, base, metric, [severity])[0].mean for severity in SEVERITIES]
                axes.plot(places, dots, "k.", markersize=4)
    label, better, _ = METRICS[metric]
    shown = "lower" if better == "one" else better
    what = f"|{label} - 1|" if better == "one" else label
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set(title=f"{what}\n({shown} is better)", xticks=range(len(SEVERITIES)))
    axes.set_xticklabels(SEVERITIES)
