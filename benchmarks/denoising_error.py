"""Error of the estimated clean latents by timestep, with and without each path of the condition.

    python benchmarks/denoising_error.py FACES [--model compact] [--count 16]

FACES is a shard or folder of aligned HQ faces, degraded by "medium" with the index as seed. Prints mean squared
errors in latent units (HQ latents have variance 1),
and the share of clean faces' gradient energy that the VAE keeps.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flipnet.data.datasets import FaceDataset
from flipnet.data.degradation import degrade_with, preset
from flipnet.models.backbone import decode_latents, encode_latents
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training.objective import estimated_clean, gradient_energy, to_unit_range

TIMESTEPS = (999, 950, 850, 750, 500, 250)


@torch.no_grad()
def main() -> None:
    """Print one row per timestep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faces", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--count", type=int, default=16)
    options = parser.parse_args()
    faces = FaceDataset(options.faces)
    chosen = [int(i) for i in np.linspace(0, len(faces) - 1, options.count)]
    clean = [faces.read(i) for i in chosen]
    bad = [degrade_with(preset("medium"), face, i)[0] for face, i in zip(clean, chosen, strict=True)]
    pipeline = FlipnetPipeline.from_pretrained(options.model)
    network, scheduler = pipeline.network, pipeline.scheduler
    network.activate("restoration")
    with torch.autocast("cpu", torch.bfloat16):
        hq, lq = (_batch(pictures) for pictures in (clean, bad))
        hq_latents, lq_latents = (encode_latents(pipeline.vae, images).float() for images in (hq, lq))
        kept = decode_latents(pipeline.vae, hq_latents).float()
        ratio = float(gradient_energy(kept) / gradient_energy(hq))
        copied = float((hq_latents - lq_latents).square().mean())
        sys.stdout.write(f"VAE keeps {ratio:.2f} of the gradient energy; LQ latents differ by {copied:.3f}\n")
        embedding = network.embed(lq)
        withheld = torch.zeros(len(lq), dtype=torch.bool)
        conditions = {
            "full": network.condition(lq_latents, embedding),
            "no channels": network.condition(lq_latents, embedding, concat_scale=0.0),
            "no hubs": network.condition(lq_latents, embedding, keep=withheld, concat_scale=1.0),
            "none": network.condition(lq_latents, embedding, phi=0.0),
        }
        noise = torch.randn(hq_latents.shape, generator=torch.Generator().manual_seed(0))
        for step in TIMESTEPS:
            timesteps = torch.full((len(hq),), step)
            noisy = scheduler.add_noise(hq_latents, noise, timesteps)
            errors = []
            for name, condition in conditions.items():
                prediction = network(noisy, timesteps, condition).float()
                estimate = estimated_clean(scheduler, prediction, noisy, timesteps)
                errors.append(f"{name} {float((estimate - hq_latents).square().mean()):.3f}")
            sys.stdout.write(f"t {step}: {', '.join(errors)}\n")


def _batch(pictures: list[np.ndarray]) -> Tensor:
    return to_unit_range(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))


if __name__ == "__main__":
    main()
