"""Ablations at compact scale: short restoration runs that differ in one thing, and φ on the finished model.

    python benchmarks/ablations.py runs --train train-*.tar --val val.tar -o runs/ablations \
        --face-encoder-without-association runs/compact-embedding/final
    python benchmarks/ablations.py phi --val val.tar -o runs/ablations

`runs` trains a new restoration mode (LoRA, hubs, tau) for every variant on the same frozen base, with the same
seed, faces, degraded variants and number of samples: BFR embedding (the reference), none, dlib's recognition
embedding, the BFR embedding before association, and "+O/F". Each is trained with every path of the condition and
with hubs and tokens alone, the paper's setting, where no channels carry what the embedding could. All are measured
on the same held-out faces, degraded mildly, moderately and severely, through the VAE's own decoder. A run that is
finished is not repeated. `phi` restores held-out faces at several φ with the model as it is.
Both write a table (Markdown), JSON and a picture into the output folder, which is all that stdout shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from ablation_report import METRICS, PATHS, differences_table, draw_differences, mean_scores, values_table
from ablation_runs import VARIANTS, Setting, measure, train_variant, trained

from flipnet.commands.demo import sample_photo
from flipnet.commands.report import write_json
from flipnet.config import load_recipe
from flipnet.data.datasets import FaceDataset
from flipnet.evaluation.benchmark import SEVERITIES, degraded_cases, spread_evenly
from flipnet.evaluation.catalogue import choose
from flipnet.evaluation.contact_sheet import contact_sheet
from flipnet.evaluation.provenance import provenance
from flipnet.evaluation.scoring import LoadedMetrics, load_metrics
from flipnet.evaluation.weights import MetricWeights
from flipnet.faces.align import align, estimate_similarity
from flipnet.faces.detect import CenterFaceDetector
from flipnet.images import Photo, faces_to_tensor, tensor_to_uint8, write_photo
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import FlipnetError

PORTRAIT_PX = 192
PHIS = (0.0, 0.5, 1.0, 1.5, 2.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do one of the two parts."""
    options = parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    wanted, _ = choose([name for name in METRICS if name != "ldm"])
    loaded = load_metrics(wanted, (), MetricWeights(), has_reference=True, has_real=False)
    if options.part == "phi":
        compare_phi(options, loaded)
    else:
        run_all(options, loaded)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    phi, runs = parts.add_parser("phi"), parts.add_parser("runs")
    for part, limit in ((phi, 24), (runs, 32)):
        part.add_argument("--val", nargs="+", required=True, help="held-out faces: shards or folders")
        part.add_argument("--limit", type=int, default=limit, help="held-out faces to measure")
        part.add_argument("--model", default="compact", help="the base, a pipeline of flipnet's")
        part.add_argument("-o", "--output", type=Path, required=True)
    runs.add_argument("--train", nargs="+", required=True, help="training faces")
    runs.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    runs.add_argument("--paths", nargs="+", choices=PATHS, default=list(PATHS))
    runs.add_argument("--seeds", nargs="+", type=int, default=[0])
    runs.add_argument("--samples", type=int, default=4000)
    runs.add_argument("--faces", type=int, default=1000, help="training faces, spread over the set")
    runs.add_argument("--steps", type=int, default=1, help="denoising steps when measuring")
    runs.add_argument("--face-encoder-without-association", type=Path, help="folder that stage I wrote")
    runs.add_argument("--recipe", type=Path, default=Path("recipes/compact-restoration.toml"))
    runs.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    runs.add_argument("--cache", default="runs/cache")
    return parser.parse_args(arguments)


def run_all(options: argparse.Namespace, loaded: LoadedMetrics) -> None:
    """Train and measure what is not there yet, and report all of it."""
    done = {
        f"{path}-{name}-{seed}": one_run(options, loaded, name, path, seed)
        for path in options.paths
        for seed in options.seeds
        for name in options.variants
    }
    write_report(options, {"input": measured_input(options, loaded), **done})
    sys.stdout.write((options.output / "ablations.md").read_text(encoding="utf-8"))


def setting_of(options: argparse.Namespace, seed: int) -> Setting:
    """Return the recipe as the options change it; --set has the last word."""
    own = {
        "data.train": options.train,
        "data.val": options.val,
        "data.cache": options.cache,
        "optim.batch_size": 8,
        "optim.warmup_steps": 30,
        "run.seed": seed,
        "run.tracker": "none",
        "restoration.base": options.model,
        "restoration.train_base": False,
        "restoration.condition_init": 0.0,
        "restoration.lq_variants": 2,
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in own.items()] + options.set
    size = load_recipe(options.recipe, tuple(overrides)).optim.batch_size
    steps = options.samples // size
    overrides = [f"optim.steps={steps}", f"run.validate_every={steps}", *overrides]
    return Setting(
        load_recipe(options.recipe, tuple(overrides)),
        options.face_encoder_without_association,
        options.faces,
    )


def one_run(
    options: argparse.Namespace, loaded: LoadedMetrics, name: str, path: str, seed: int
) -> dict[str, Any]:
    """Train and measure one variant, or read what an earlier call with the same options found.

    Raises FlipnetError when an earlier call had other options.
    """
    folder = options.output / f"{path}-{name}-{seed}"
    file = folder / "result.json"
    settings = {key: getattr(options, key) for key in ("model", "samples", "faces", "limit", "steps", "set")}
    if not file.exists():
        setting, variant, channels = setting_of(options, seed), VARIANTS[name], path == "all"
        seconds = train_variant(setting, variant, folder, channels=channels)
        pipeline = trained(setting, variant, folder, channels=channels)
        restorer = FaceRestorer(pipeline, phi=1.0, steps=options.steps, model_name=name)
        scores = measured(restorer, options, loaded, setting.recipe.data.size_px, with_ldm=True)
        result = {"settings": settings, "seconds": seconds, "scores": scores, "provenance": provenance()}
        write_json(file, result)
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["settings"] != settings:
        raise FlipnetError(f"{file}: was made with other options, {found['settings']}; use another folder.")
    return found


def measured_input(options: argparse.Namespace, loaded: LoadedMetrics) -> dict[str, Any]:
    """Measure the degraded faces themselves, or read what an earlier call found."""
    file = options.output / "input.json"
    if not file.exists():
        size_px = setting_of(options, 0).recipe.data.size_px
        write_json(file, {"scores": measured(None, options, loaded, size_px)})
    return json.loads(file.read_text(encoding="utf-8"))


def measured(
    restorer: FaceRestorer | None,
    options: argparse.Namespace,
    loaded: LoadedMetrics,
    size_px: int,
    *,
    with_ldm: bool = False,
) -> dict[str, dict[str, list[float]]]:
    """Measure the held-out faces at every severity."""
    faces = FaceDataset(options.val, size_px)
    chosen = spread_evenly(faces, options.limit)
    return {
        severity: measure(restorer, degraded_cases(faces, chosen, severity, 0), loaded, with_ldm=with_ldm)
        for severity in SEVERITIES
    }


def write_report(options: argparse.Namespace, done: Mapping[str, Any]) -> None:
    """Write ablations.md, ablations.json and, where there is something to compare, ablations.png."""
    sections, compared = [], {}
    for path in options.paths:
        runs = {
            name: [done[f"{path}-{name}-{seed}"]["scores"] for seed in options.seeds]
            for name in options.variants
        }
        rows = {VARIANTS[name].label: mean_scores(scores) for name, scores in runs.items()}
        table = values_table({"input": done["input"]["scores"], **rows})
        sections.append(f"### With {PATHS[path]}\n\n{table}")
        if "reference" in runs and len(runs) > 1:
            sections.append(differences_table(rows, VARIANTS["reference"].label))
            compared[path] = runs
    text = "\n\n".join(sections) + "\n"
    (options.output / "ablations.md").write_text(text, encoding="utf-8")
    write_json(options.output / "ablations.json", dict(done))
    if compared:
        write_photo(options.output / "ablations.png", Photo(draw_differences(compared)))


def compare_phi(options: argparse.Namespace, loaded: LoadedMetrics) -> None:
    """Measure the model at every φ, and draw scikit-image's astronaut at each."""
    pipeline = FlipnetPipeline.from_pretrained(options.model)
    restorers = {phi: FaceRestorer(pipeline, phi=phi, steps=None, model_name=options.model) for phi in PHIS}
    named = {"input": None, **{f"φ = {phi:g}": restorer for phi, restorer in restorers.items()}}
    rows = {
        name: measured(restorer, options, loaded, pipeline.native_size_px) for name, restorer in named.items()
    }
    table = values_table(rows) + "\n"
    (options.output / "phi.md").write_text(table, encoding="utf-8")
    write_json(options.output / "phi.json", {"scores": rows, "provenance": provenance()})
    draw_astronaut(restorers, options.output / "phi.png")
    sys.stdout.write(table)


def draw_astronaut(restorers: Mapping[float, FaceRestorer], path: Path) -> None:
    """Write the degraded portrait's face, itself at every φ, and the clean one, side by side."""
    size = next(iter(restorers.values())).native_size_px
    clean = skimage.data.astronaut()
    matrix = estimate_similarity(CenterFaceDetector()(clean)[0].landmarks_px, size)
    bad, truth = (
        np.rint(align(pixels, matrix, size) * 255).astype(np.uint8)
        for pixels in (sample_photo().pixels, clean)
    )
    restored = [tensor_to_uint8(one(faces_to_tensor(bad), [0]))[0] for one in restorers.values()]
    columns = ["input", *(f"phi = {phi:g}" for phi in restorers), "clean"]
    contact_sheet([[bad, *restored, truth]], path, columns=columns, cell_px=PORTRAIT_PX)


if __name__ == "__main__":
    main()
