"""`flipnet benchmark`: several methods on the same bad faces, as tables, as JSON, as a page, as a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from flipnet.commands.benchmark_columns import MAIN, make_columns, split_methods
from flipnet.commands.benchmark_sheet import SheetRows
from flipnet.commands.evaluate import (
    PICTURES,
    assign_paths,
    encode,
    files_of,
    print_report,
    progress_bar,
    remarks_of_warnings,
    write_report,
)
from flipnet.commands.outputs import make_folder
from flipnet.commands.report import write_json
from flipnet.data.datasets import FaceDataset, ImageEntry, index_images
from flipnet.evaluation.benchmark import (
    SEVERITIES,
    Case,
    MeasuredCase,
    benchmark_seed,
    degraded_cases,
    listed_cases,
    run_part,
    spread_evenly,
)
from flipnet.evaluation.benchmark_recipe import BenchmarkRecipe, load_benchmark_recipe
from flipnet.evaluation.calibration import plot_reliability
from flipnet.evaluation.catalogue import choose
from flipnet.evaluation.image_sets import INPUT, REFERENCE, ImageSets, Problem, bring_together
from flipnet.evaluation.report import document, finite
from flipnet.evaluation.report_page import Pictures, data_uri
from flipnet.evaluation.scoring import LoadedMetrics, Part, RealSet, load_metrics, read_real_set
from flipnet.evaluation.timing import measure_speed
from flipnet.evaluation.uncertainty import UncertaintyCheck
from flipnet.evaluation.weights import MetricWeights
from flipnet.images import Photo, write_photo
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import FlipnetError, Restorer


@dataclass(frozen=True)
class BenchmarkSettings:
    """What `flipnet benchmark` was asked to do; each field is the option of the same name."""

    limit: int | None = None
    phi: float = 1.0
    steps: tuple[int, ...] = ()
    seed: int = 0
    batch_size: int = 1
    model: str = "compact"
    device: str = "auto"
    method: tuple[str, ...] = ()
    metric: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    real: Path | None = None
    uncertainty: int | None = None
    time: bool = False
    inputs: Path | None = None
    report: Path | None = None
    pictures: int = PICTURES

    def as_json(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        found = asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}


@dataclass
class _Run:
    """What a benchmark is made of, and what it collects on its way."""

    settings: BenchmarkSettings
    restorers: dict[str, Restorer]
    outputs: dict[str, Path]
    loaded: LoadedMetrics
    remarks: list[str]
    real: RealSet | None = None
    pictures: dict[str, Pictures] = field(default_factory=dict)
    sheet: SheetRows | None = None
    check: UncertaintyCheck | None = None

    @property
    def size_px(self) -> int:
        return self.restorers[MAIN].native_size_px

    def part(self, name: str, cases: Iterable[Case], advance: Callable[[], None]) -> Part:
        def on_case(measured: MeasuredCase) -> None:
            advance()
            self._keep(measured)

        settings = self.settings
        return run_part(
            name,
            cases,
            self.restorers,
            self.loaded,
            real=self.real,
            seed=settings.seed,
            batch_size=settings.batch_size,
            on_case=on_case,
            remarks=self.remarks,
        )

    def _keep(self, measured: MeasuredCase) -> None:
        case = measured.case
        if self.settings.report is not None:
            truth = {} if case.truth is None else {REFERENCE: case.truth}
            self.pictures.setdefault(measured.part, {})[case.key] = encode({**measured.images, **truth})
        if self.settings.inputs is not None:
            path = self.settings.inputs / measured.part / f"{case.key}.png"
            make_folder(path.parent)
            write_photo(path, Photo(case.degraded))
        if self.sheet is not None:
            self.sheet.add(measured)
        if self.check is not None and case.truth is not None:
            self.check.add(case.degraded, case.truth, sum(benchmark_seed(self.settings.seed, case.key)))


def benchmark(
    what: Path, output: Path | None, sheet: Path | None, settings: BenchmarkSettings
) -> dict[str, Any]:
    """Benchmark a model on clean faces degraded at three severities, or on the test set of a recipe (.toml).

    Prints the tables; writes JSON, page, inputs and contact sheet where asked; returns the report.

    Raises:
        FlipnetError: no images, an unknown model or method, an option out of range, or a file that cannot be
            written.
    """
    for path in (output, sheet):
        if path is not None:
            make_folder(path.parent)
    if settings.report is not None:
        make_folder(settings.report)
    recipe = load_benchmark_recipe(what) if what.suffix == ".toml" else None
    with remarks_of_warnings() as remarks:
        run = _prepare(settings, recipe, remarks, has_sheet=sheet is not None)
    if recipe is None:
        parts, files, problems = _run_severities(run, what)
    else:
        parts, files, problems = _run_recipe(run, recipe)
    found = document(
        parts,
        run.loaded,
        main=MAIN,
        seed=settings.seed,
        settings=settings.as_json() | {"what": str(what)},
        files=files,
        problems=problems,
        remarks=run.remarks,
        extra=_extra(run),
    )
    print_report(found)
    _print_extra(found)
    if output is not None:
        write_json(output, found)
    if settings.report is not None:
        title = recipe.name if recipe else f"{settings.model} on {what.name}"
        write_report(settings.report, found, run.pictures, title, settings.pictures)
    if run.sheet is not None and sheet is not None:
        run.sheet.write(sheet)
    return found


def _prepare(
    settings: BenchmarkSettings, recipe: BenchmarkRecipe | None, remarks: list[str], *, has_sheet: bool
) -> _Run:
    weights = (recipe.weights if recipe else {}) | assign_paths(settings.weights, "--weights")
    single, of_sets = choose(settings.metric or (recipe.metrics if recipe else ()))
    real = settings.real or (recipe.real if recipe else None)
    has_reference = recipe is None or recipe.reference is not None
    if settings.uncertainty is not None and not has_reference:
        raise FlipnetError("--uncertainty: the true error needs a reference, which the recipe does not name")
    loaded = load_metrics(
        single,
        of_sets,
        MetricWeights(weights),
        has_reference=has_reference,
        has_real=has_reference or real is not None,
    )
    main = FaceRestorer.from_checkpoint(
        settings.model,
        phi=settings.phi,
        steps=settings.steps[0] if settings.steps else None,
        device=settings.device,
    )
    columns = make_columns(
        main, settings.steps[1:], (recipe.methods if recipe else {}) | split_methods(settings.method)
    )
    remarks += columns.remarks
    return _Run(
        settings=settings,
        restorers=columns.restorers,
        outputs=columns.outputs,
        loaded=loaded,
        remarks=remarks,
        real=None if real is None else read_real_set(real, loaded),
        sheet=SheetRows() if has_sheet else None,
        check=None if settings.uncertainty is None else UncertaintyCheck(main, settings.uncertainty),
    )


def _run_severities(run: _Run, images: Path) -> tuple[list[Part], dict[str, Any], list[Problem]]:
    faces = FaceDataset(images, size_px=run.size_px)
    indices = spread_evenly(faces, run.settings.limit)
    chosen = {faces.keys[index]: faces.entries[index] for index in indices}
    outputs = {
        severity: {name: _outputs_of(name, place / severity, chosen) for name, place in run.outputs.items()}
        for severity in SEVERITIES
    }
    parts = []
    with progress_bar(len(indices) * len(SEVERITIES), "faces") as advance:
        for severity in SEVERITIES:
            cases = degraded_cases(faces, indices, severity, run.settings.seed, outputs[severity])
            parts.append(run.part(severity, cases, advance))
    sets = ImageSets({REFERENCE: chosen}, list(chosen))
    return parts, files_of(sets, {REFERENCE: images}), []


def _outputs_of(name: str, folder: Path, keys: Iterable[str]) -> Mapping[str, ImageEntry]:
    """List a method's outputs at one severity; FlipnetError names a face that has none, before anything runs."""
    found = {entry.key: entry for entry in index_images(folder)}
    for key in keys:
        if key not in found:
            raise FlipnetError(f"{folder}: method {name} has no output named '{key}'")
    return found


def _run_recipe(run: _Run, recipe: BenchmarkRecipe) -> tuple[list[Part], dict[str, Any], list[Problem]]:
    places = {INPUT: recipe.input, **run.outputs}
    if recipe.reference is not None:
        places = {REFERENCE: recipe.reference, **places}
    sets = bring_together(places, limit=run.settings.limit, size_px=recipe.size_px)
    found = len(sets.keys)
    if recipe.expected_images not in (None, found) and run.settings.limit is None:
        run.remarks.append(
            f"{recipe.input}: {found} pictures, the published set has {recipe.expected_images}"
        )
    with progress_bar(found, recipe.name) as advance:
        part = run.part(recipe.name, listed_cases(sets), advance)
    return [part], files_of(sets, places), sets.problems


# ---------------------------------------------------------------------------------------- speed, uncertainty


def _extra(run: _Run) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    settings = run.settings
    if settings.time:
        extra["speed"] = [
            row
            for steps in settings.steps or (None,)
            for row in measure_speed(
                settings.model,
                phi=settings.phi,
                steps=steps,
                device=settings.device,
                threads=torch.get_num_threads(),
            )
        ]
    if run.check is not None:
        found = run.check.result()
        about = {"samples": run.check.samples, "steps": run.check.steps}
        numbers = finite(asdict(found)) | {"bins": [asdict(one) for one in found.bins]}
        plot = data_uri(plot_reliability(found), lossless=True)
        extra["calibration"] = about | numbers | {"plot": plot}
    return extra


def _print_extra(found: Mapping[str, Any]) -> None:
    lines = [
        f"{row['model']} {row['steps']} steps, {row['what']}: cold {row['cold_s']:.2f} s, "
        f"warm {row['warm_s']:.3f} s (processor {row['warm_cpu_s']:.3f} s), load {row['load_s']:.2f} s, "
        f"peak {row['peak_mib']:.0f} MiB ({row['device']}, {row['dtype']}, {row['threads']} threads)"
        for row in found.get("speed", ())
    ]
    if "calibration" in found:
        one = found["calibration"]
        spearman = "–" if one["spearman"] is None else f"{one['spearman']:.3f}"
        lines.append(
            f"uncertainty of {one['samples']} samples ({one['steps']} steps), {one['faces']} faces: rank "
            f"correlation with the true error {spearman} within faces; error / spread {float(one['ratio']):.2f}"
        )
    for line in lines:
        Console().print(line, highlight=False, soft_wrap=True)
