"""Where each input photo's result goes: mirrored folders, names, collisions, and files that exist already.

Everything here looks at paths only and runs before a model is loaded, so that a mistake costs no waiting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from flipnet.images import SUPPORTED_SUFFIXES, WRITABLE_SUFFIXES, find_images
from flipnet.types import FlipnetError

SIDE_FILE = re.compile(r"_(compare|uncertainty|face\d+_(before|restored))$")
"""End of the stem of what --compare, --uncertainty and --save-faces write beside a result."""

VARIANT_NUMBER = re.compile(r"_\d{2,}$")
"""End of the stem of one of several results of an input."""


class Existing(StrEnum):
    """What to do with an input whose output is there already."""

    FAIL = "fail"
    OVERWRITE = "overwrite"
    SKIP = "skip"


@dataclass(frozen=True)
class OutputNaming:
    """How outputs are named.

    Attributes:
        output: the output folder; with one input file it may also name an image file.
        suffix: text put between the input's stem and the extension.
        extension: "png", "jpg", ...; None keeps the input's.
        variants: number of results per input, their stems ending in _00, _01, ...; None is one, unnumbered.
    """

    output: Path
    suffix: str = ""
    extension: str | None = None
    variants: int | None = None


@dataclass(frozen=True)
class Job:
    """One photo to restore and the path its result gets; `variant` is the number of a numbered result."""

    source: Path
    target: Path
    variant: int | None = None

    @property
    def compare_path(self) -> Path:
        """Path of the side-by-side picture, beside the result."""
        return self.target.with_stem(f"{self.target.stem}_compare")

    @property
    def uncertainty_path(self) -> Path:
        """Path of the picture of how much was made up, beside the result."""
        return self.target.with_stem(f"{self.target.stem}_uncertainty")

    def face_path(self, index: int, what: str) -> Path:
        """Path of one saved face; `index` counts from 0 in the photo, `what` is "before" or "restored"."""
        return self.target.with_stem(f"{self.target.stem}_face{index}_{what}")


@dataclass
class Plan:
    """What to do with the inputs, in the order they were given.

    Attributes:
        jobs: photos to restore.
        skipped: photos whose output is there already, with `Existing.SKIP`.
        failures: (input, cause) of those that cannot be tried.
    """

    jobs: list[Job] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)


def plan_outputs(
    inputs: Sequence[Path],
    naming: OutputNaming,
    existing: Existing,
    side_files: bool = False,
    packed: Mapping[Path, Sequence[str]] = MappingProxyType({}),
) -> Plan:
    """Find the photos below `inputs` and give each its output path.

    A folder's structure is mirrored below the output folder; files already in the output folder are no
    inputs when that folder lies inside an input folder, so that a second run does not restore results.

    Args:
        side_files: saved faces or comparisons are written beside the results, so their names count too.
        packed: for inputs that hold pictures inside, their names; such an input is then like a folder.

    Raises:
        FlipnetError: two inputs would share an output, or an output would overwrite an input.

    Our choice: such mistakes stop the whole run before it starts, and an output that exists already is a
    failure of that one file unless the user said overwrite or skip.
    """
    plan = Plan()
    found = list(_candidates(inputs, naming, packed, plan.failures))
    candidates = _without_earlier_results(found, inputs, naming)
    _refuse_overwritten_inputs(candidates, side_files)
    _refuse_shared_targets(candidates, side_files)
    for job in candidates:
        if not os.path.lexists(job.target) or existing is Existing.OVERWRITE:
            plan.jobs.append(job)
        elif existing is Existing.SKIP:
            plan.skipped.append(job)
        else:
            cause = f"its output {job.target} exists already (--overwrite or --skip-existing)"
            plan.failures.append((job.source, cause))
    return plan


def _candidates(
    inputs: Sequence[Path],
    naming: OutputNaming,
    packed: Mapping[Path, Sequence[str]],
    failures: list[tuple[Path, str]],
) -> Iterator[Job]:
    seen: set[Path] = set()
    named_file = _names_a_file(inputs, naming)
    for given in inputs:
        if not os.path.exists(given):
            failures.append((given, "no such file or folder"))
            continue
        root = given if given.is_dir() or given in packed else given.parent
        sources = _folder_images(given, naming.output) if given.is_dir() else [given]
        if given in packed:
            sources = [given / name for name in packed[given]]
        if not sources:
            failures.append((given, "this folder holds no images"))
        for source in sources:
            if _real(source) in seen:
                continue
            seen.add(_real(source))
            target = naming.output if named_file else _target(source.relative_to(root), naming)
            if naming.variants is None:
                yield Job(source, target)
            for number in range(naming.variants or 0):
                yield Job(source, target.with_stem(f"{target.stem}_{number:02}"), number)


def _folder_images(folder: Path, output: Path) -> list[Path]:
    """Images below `folder`, without those below the output folder if that lies inside `folder`."""
    found = find_images(folder)
    inside = _real(output)
    if inside == _real(folder) or not inside.is_relative_to(_real(folder)):
        return found
    return [path for path in found if not _real(path).is_relative_to(inside)]


def _names_a_file(inputs: Sequence[Path], naming: OutputNaming) -> bool:
    """Whether `-o` names the result itself: one input file, and an image suffix on no existing folder."""
    output = naming.output
    if output.suffix.lower() not in SUPPORTED_SUFFIXES or os.path.isdir(output):
        return False
    if naming.variants is not None:
        raise FlipnetError(f"-o {output}: give a folder, each input's results are numbered files in it")
    if len(inputs) != 1 or os.path.isdir(inputs[0]):
        raise FlipnetError(f"-o {output}: it names one image, but the input is not one file; give a folder")
    if output.suffix.lower() not in WRITABLE_SUFFIXES:
        raise FlipnetError(
            f"-o {output}: {output.suffix} files cannot be written; choose png, jpg, webp or tiff"
        )
    if naming.suffix or naming.extension:
        raise FlipnetError(f"-o {output}: it names the result itself, so leave out --suffix and --format")
    return True


def _target(relative: Path, naming: OutputNaming) -> Path:
    extension = relative.suffix if relative.suffix.lower() in WRITABLE_SUFFIXES else ".png"
    if naming.extension is not None:
        extension = f".{naming.extension}"
    return naming.output / relative.with_name(f"{relative.stem}{naming.suffix}{extension}")


def _without_earlier_results(
    jobs: Sequence[Job], inputs: Sequence[Path], naming: OutputNaming
) -> Sequence[Job]:
    """Drop what an earlier run wrote beside its inputs (`-o` the input folder, with a suffix or numbers)."""
    named = set(inputs)
    if naming.variants is not None:
        # Also numbers that this run would not write, as an earlier one may have made more.
        plain = {_real(_unnumbered(job.target)) for job in jobs}
        return [job for job in jobs if job.source in named or not _is_variant(_real(job.source), plain)]
    if not naming.suffix:
        return jobs
    targets = {_real(job.target) for job in jobs}
    return [job for job in jobs if job.source in named or _real(_main_file(job.source)) not in targets]


def _real(path: Path) -> Path:
    """The path without links; unlike `Path.resolve`, it does not mind links that go in a circle."""
    return Path(os.path.realpath(path))


def _unnumbered(path: Path) -> Path:
    return path.with_stem(VARIANT_NUMBER.sub("", path.stem))


def _is_variant(path: Path, plain: set[Path]) -> bool:
    return _unnumbered(path) != path and _unnumbered(path) in plain


def _main_file(path: Path) -> Path:
    """The result that `path` would be a companion of, or `path` itself."""
    return path.with_stem(SIDE_FILE.sub("", path.stem))


def _refuse_overwritten_inputs(jobs: Sequence[Job], side_files: bool) -> None:
    protected = {_real(job.source) for job in jobs}
    if side_files:
        protected |= {_real(_main_file(job.source)) for job in jobs}
    for job in jobs:
        if _real(job.target) in protected:
            or_suffix = " or give --suffix" if job.variant is None else ""
            raise FlipnetError(
                f"{job.source}: its result {job.target} would overwrite an input; "
                f"choose another output folder{or_suffix}"
            )


def _refuse_shared_targets(jobs: Sequence[Job], side_files: bool) -> None:
    owners: dict[str, Job] = {}
    for job in jobs:
        target = _main_file(job.target) if side_files else job.target
        key = os.path.normcase(os.path.abspath(target))
        other = owners.setdefault(key, job)
        if other is not job:
            advice = "leave out --format or restore" if job.variant is None else "degrade"
            raise FlipnetError(
                f"{other.source} and {job.source} would write to the same place, {job.target}; "
                f"{advice} them into separate folders"
            )


def refuse_report_over_image(plan: Plan, report: Path | None) -> None:
    """Make sure before the work starts that the report can be written and replaces no picture.

    Raises:
        FlipnetError: it is a folder, an input or an output, or its folder cannot be made.
    """
    if report is None:
        return
    taken = {_real(path) for job in plan.jobs + plan.skipped for path in (job.source, job.target)}
    if _real(report) in taken or os.path.isdir(report):
        raise FlipnetError(f"--report {report}: this is a folder or one of the pictures, give another file")
    make_folder(report.parent)


def make_folder(folder: Path) -> None:
    """Make an output folder and its parents; an existing one is fine.

    Raises:
        FlipnetError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlipnetError(f"{folder}: this output folder cannot be made ({error.strerror})") from error
