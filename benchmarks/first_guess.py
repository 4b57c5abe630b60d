"""What the one step starts from: zeros, pure noise, the noised bad face, or a first guess that is noised again.

    python benchmarks/first_guess.py FACES.tar [--model compact] [--limit 24] [-o FILE.json]

Clean aligned faces are degraded at the benchmark's three severities, restored by the model's network from each
start, and decoded by restoration's own decoder. Prints a table (Markdown): PSNR, SSIM, gradient energy and identity
distance, mild / medium / severe. Nothing is trained for the other starts: the network knows every timestep.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from ablation_report import METRICS, values_table
from ablation_runs import measure
from torch import Tensor

from flipnet.commands.report import write_json
from flipnet.data.datasets import FaceDataset
from flipnet.evaluation.benchmark import SEVERITIES, degraded_cases, spread_evenly
from flipnet.evaluation.catalogue import choose
from flipnet.evaluation.provenance import provenance
from flipnet.evaluation.scoring import load_metrics
from flipnet.evaluation.weights import MetricWeights
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.pipelines.sampling import initial_noise
from flipnet.training.objective import estimated_clean

TIMESTEPS = (900, 700, 400)
GUESSES = 4

Estimate = Callable[[Tensor, int, Tensor], Tensor]
"""Maps clean-ish latents to be noised, a timestep and noise to the network's estimate of the clean latents."""


class FromStart:
    """Restores faces, float (B, 3, S, S) in [-1, 1], by `start`: LQ latents, noise (K, B, L, h, w), `Estimate`."""

    def __init__(
        self, pipeline: FlipnetPipeline, start: Callable[[Tensor, Tensor, Estimate], Tensor]
    ) -> None:
        self.pipeline, self.start = pipeline, start

    @torch.no_grad()
    def __call__(self, faces: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return restored faces of the same shape."""
        pipeline, network, scheduler = self.pipeline, self.pipeline.network, self.pipeline.scheduler
        latents, features = pipeline.encode(faces)
        latents = latents.float()
        with pipeline.autocast():
            condition = network.condition(latents, network.embed(faces))

            def estimate(clean: Tensor, timestep: int, noise: Tensor) -> Tensor:
                timesteps = torch.full((len(clean),), timestep)
                noisy = scheduler.add_noise(clean, noise, timesteps)
                return estimated_clean(
                    scheduler, network(noisy, timesteps, condition).float(), noisy, timesteps
                )

            shape = (GUESSES, *latents.shape[1:])
            noise = initial_noise([torch.Generator().manual_seed(s) for s in seeds], shape, latents.device)
            made = self.start(latents, noise.transpose(0, 1), estimate)
        return pipeline.decode(made, features).clamp(-1, 1)


def starts(last: int) -> dict[str, Callable[[Tensor, Tensor, Estimate], Tensor]]:
    """Return the starts by what the table calls them; `last` is the scheduler's last timestep."""
    named: dict[str, Callable[[Tensor, Tensor, Estimate], Tensor]] = {
        "the bad face's latents, no network": lambda lq, noise, estimate: lq,
        "pure noise": lambda lq, noise, estimate: estimate(lq, last, noise[0]),
        "zeros in the place of noise (default)": lambda lq, noise, estimate: estimate(
            0 * lq, last, 0 * noise[0]
        ),
        f"mean of {GUESSES} from pure noise": lambda lq, noise, estimate: torch.stack(
            [estimate(lq, last, one) for one in noise]
        ).mean(0),
    }
    for t in TIMESTEPS:
        named[f"bad face noised to t = {t}"] = lambda lq, noise, estimate, t=t: estimate(lq, t, noise[0])
    for t in TIMESTEPS:
        named[f"first guess noised to t = {t}"] = lambda lq, noise, estimate, t=t: estimate(
            estimate(lq, last, noise[0]), t, noise[1]
        )
    return named


def main() -> None:
    """Measure every start."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faces", nargs="+")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--starts", nargs="+", metavar="WORD", help="only starts whose name has one of these")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    pipeline = FlipnetPipeline.from_pretrained(options.model)
    pipeline.network.activate("restoration")
    pipeline.network.fuse()
    wanted, _ = choose([name for name in METRICS if name != "ldm"])
    loaded = load_metrics(wanted, (), MetricWeights(), has_reference=True, has_real=False)
    faces = FaceDataset(options.faces, size_px=pipeline.native_size_px)
    indices = spread_evenly(faces, options.limit)
    last = len(pipeline.scheduler.alphas_cumprod) - 1
    rows = {
        name: {
            severity: measure(
                FromStart(pipeline, start), degraded_cases(faces, indices, severity, seed=0), loaded
            )
            for severity in SEVERITIES
        }
        for name, start in starts(last).items()
        if options.starts is None or any(word in name for word in options.starts)
    }
    sys.stdout.write(values_table(rows) + "\n")
    if options.output:
        write_json(options.output, {"scores": rows, "provenance": provenance()})


if __name__ == "__main__":
    main()
