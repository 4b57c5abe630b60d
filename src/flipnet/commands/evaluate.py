"""`flipnet evaluate RESTORED`: numbers of restored pictures as a table, as JSON, and as a page to look at."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from flipnet.commands.outputs import make_folder
from flipnet.commands.report import write_json
from flipnet.evaluation.catalogue import choose
from flipnet.evaluation.comparison import compare_reports
from flipnet.evaluation.image_sets import INPUT, REFERENCE, RESTORED, ImageSets, bring_together
from flipnet.evaluation.report import JSON_NAME, PAGE_NAME, document, read_report
from flipnet.evaluation.report_page import Pictures, data_uri, keys_to_show, render_page, write_page
from flipnet.evaluation.scoring import LoadedMetrics, Part, RealSet, Scorer, load_metrics, read_real_set
from flipnet.evaluation.weights import MetricWeights
from flipnet.types import FlipnetError

PICTURES = 100
"""Pictures on the page by default."""

ARROWS = {"higher": "↑", "lower": "↓", "one": "→1"}


@dataclass(frozen=True)
class EvaluateSettings:
    """What `flipnet evaluate` was asked to do; each field is the option of the same name."""

    restored: Path
    output: Path
    reference: Path | None = None
    input: Path | None = None
    real: Path | None = None
    method: tuple[str, ...] = ()
    metric: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    size: int | None = None
    limit: int | None = None
    pictures: int = PICTURES
    device: str = "cpu"
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        found = asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}


def evaluate_restored(settings: EvaluateSettings) -> bool:
    """Measure restored pictures, print the table, write report.json and report.html into the output folder.

    Returns:
        Whether every picture could be measured.

    Raises:
        FlipnetError: an option that says nothing usable, a folder without common names, weights that cannot be
            used, or a file that cannot be written.
    """
    single, of_sets = choose(settings.metric)
    weights = MetricWeights(assign_paths(settings.weights, "--weights"), settings.device)
    places = locations_of(settings)
    sets = bring_together(places, limit=settings.limit, size_px=settings.size)
    make_folder(settings.output)
    with remarks_of_warnings() as remarks:
        loaded = load_metrics(
            single,
            of_sets,
            weights,
            has_reference=settings.reference is not None,
            has_real=(settings.real or settings.reference) is not None,
        )
    real = None if settings.real is None else read_real_set(settings.real, loaded)
    with progress_bar(len(sets.keys), "pictures") as advance:
        part, pictures = score_sets("all", sets, loaded, real, advance, remarks)
    found = document(
        [part],
        loaded,
        main=RESTORED,
        seed=settings.seed,
        settings=settings.as_json(),
        files=files_of(sets, places),
        problems=sets.problems,
        remarks=remarks,
    )
    title = (
        f"{settings.restored} against {settings.reference}" if settings.reference else str(settings.restored)
    )
    write_report(settings.output, found, {part.name: pictures}, title, settings.pictures)
    print_report(found)
    return not any(problem.left_out for problem in sets.problems)


def score_sets(
    name: str,
    sets: ImageSets,
    loaded: LoadedMetrics,
    real: RealSet | None,
    advance: Callable[[], None],
    remarks: list[str],
) -> tuple[Part, Pictures]:
    """Measure all pictures that can be read, and encode them for the page.

    Raises FlipnetError when not a single one can be used.
    """
    scorer, pictures = Scorer(name, loaded, real), {}
    for key in list(sets.keys):
        images = sets.read(key)
        advance()
        if images is None:
            continue
        pictures[key] = encode(images)
        reference = images.pop(REFERENCE, None)
        scorer.add(key, images, reference)
    if not sets.keys:
        first = sets.problems[0]
        raise FlipnetError(f"none of the pictures can be measured; {first.image}: {first.cause}")
    remarks += [f"{metric}: {reason}" for metric, reason in scorer.remarks.items()]
    return scorer.result(), pictures


def encode(images: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return data URIs of one picture's columns."""
    return {column: data_uri(pixels) for column, pixels in images.items()}


def locations_of(settings: EvaluateSettings) -> dict[str, Path]:
    """Return where each column lies, restored and input before other methods; FlipnetError for a name taken."""
    given = ((REFERENCE, settings.reference), (INPUT, settings.input), (RESTORED, settings.restored))
    places = {name: place for name, place in given if place is not None}
    for name, place in assign_paths(settings.method, "--method").items():
        if name in (REFERENCE, INPUT, RESTORED):
            raise FlipnetError(f"--method {name}={place}: the name is taken, choose another")
        places[name] = place
    return places


def files_of(sets: ImageSets, places: Mapping[str, Path]) -> dict[str, Any]:
    """Return where every column came from, how many of its pictures were chosen, and their hash."""
    return {
        column: {"location": str(places[column]), "images": len(entries), "sha256": sets.list_hash(column)}
        for column, entries in sets.entries.items()
    }


def write_report(
    folder: Path, found: dict[str, Any], pictures: Mapping[str, Pictures], title: str, limit: int
) -> None:
    """Write report.json and report.html, the page with at most `limit` pictures per part."""
    write_json(folder / JSON_NAME, found)
    chosen = {}
    for part in found["parts"]:
        keys = keys_to_show(part, found["main"], found["metrics"], limit)
        chosen[part["name"]] = {key: uris for key, uris in pictures[part["name"]].items() if key in keys}
    write_page(folder / PAGE_NAME, render_page(found, chosen, title))


def compare_runs(first: Path, second: Path, output: Path | None = None) -> None:
    """Print the paired comparison of two reports, and write it as JSON where asked.

    Raises:
        FlipnetError: a report that cannot be read or compared, or a file that cannot be written.
    """
    found = compare_reports(read_report(first), read_report(second))
    console = Console()
    for part in found["parts"]:
        title = f"{part['name']}: {part['images']} pictures in both; A {first}, B {second}, 95 % interval"
        table = Table("metric", "A", "B", "B - A", "interval", "B is", title=title)
        for name, row in part["metrics"].items():
            interval = (
                "–" if row["low"] is None else f"{_rounded(row['low'], 4)} – {_rounded(row['high'], 4)}"
            )
            numbers = (_rounded(row[key], 4) for key in ("first", "second", "difference"))
            table.add_row(name, *numbers, interval, row["verdict"])
        console.print(table)
    for line in (
        *(f"{n} not compared: {why}" for n, why in found["not_compared"].items()),
        *found["remarks"],
    ):
        console.print(line, markup=False, highlight=False)
    if output is not None:
        write_json(output, found)


# ------------------------------------------------------------------------------------------------ printing


def print_report(found: Mapping[str, Any]) -> None:
    """Print the tables of all parts, what was not measured, and what was left out."""
    console = Console()
    for part in found["parts"]:
        console.print(means_table(part, found["metrics"]))
        if part["differences"]:
            console.print(differences_table(part, found["metrics"], found["main"]))
    lines = [f"not measured: {name}: {reason}" for name, reason in found["not_measured"].items()]
    lines += found["remarks"]
    for problem in found["problems"]:
        left_out = "left out: " if problem["left_out"] else ""
        lines.append(f"{left_out}{problem['image']}: {problem['cause']}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def means_table(part: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row per metric, one column per method: the mean, its 95 % interval, the best one marked."""
    columns = part["columns"]
    title = f"{part['name']}: {part['images']} pictures, mean and 95 % interval"
    table = Table("", *columns, title=title)
    for metric in metrics:
        table.add_row(
            _heading(metric), *(_mean_cell(found, metric, part["images"]) for found in columns.values())
        )
    if any(found["seconds"] is not None for found in columns.values()):
        times = (found["seconds"] for found in columns.values())
        table.add_row("s / picture ↓", *("" if value is None else f"{value:.2f}" for value in times))
    return table


def _heading(metric: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (metric["label"], metric["unit"], ARROWS[metric["better"]])))


def _mean_cell(numbers: Mapping[str, Any], metric: Mapping[str, Any], images: int) -> str:
    digits = metric["digits"]
    if metric["of"] == "set":
        return _rounded(numbers["set_metrics"].get(metric["name"]), digits)
    estimate = numbers["metrics"][metric["name"]]
    cell = _rounded(estimate["mean"], digits)
    if estimate["low"] is not None:
        cell += f" ({_rounded(estimate['low'], digits)} – {_rounded(estimate['high'], digits)})"
    return cell if estimate["count"] == images else f"{cell} n={estimate['count']}"


def _rounded(value: float | str | None, digits: int) -> str:
    return "–" if value is None else f"{float(value):.{digits}f}"


def differences_table(part: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], main: str) -> Table:
    """Return one row per metric, one column per other method: main minus that method, and the verdict."""
    others = part["differences"]
    table = Table("", *(f"{main} - {other}" for other in others), title="paired differences")
    for metric in metrics:
        if metric["of"] == "image":
            found = [numbers[metric["name"]] for numbers in others.values()]
            cells = (f"{_rounded(one['mean'], metric['digits'])} {one['verdict']}" for one in found)
            table.add_row(_heading(metric), *cells)
    return table


# ------------------------------------------------------------------------------------------------ options


def assign_paths(values: Sequence[str], option: str) -> dict[str, Path]:
    """Split NAME=PATH options; FlipnetError names one that is none, or a name given twice."""
    found: dict[str, Path] = {}
    for value in values:
        name, sign, rest = value.partition("=")
        if not (name and sign and rest):
            raise FlipnetError(f"{option} {value}: expected NAME=PATH")
        if name in found:
            raise FlipnetError(f"{option} {value}: the name '{name}' is given twice")
        found[name] = Path(rest)
    return found


@contextmanager
def progress_bar(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr while the block runs; call what it gives once per picture."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def remarks_of_warnings() -> Iterator[list[str]]:
    """Collect what is warned about inside the block, for the report as well as for the terminal."""
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield remarks
    remarks += dict.fromkeys(str(warning.message) for warning in caught)
