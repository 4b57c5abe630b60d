"""One run of `ablations.py`: a restoration mode trained anew on a frozen base, and measured."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from flipnet.checkpoints import resolve
from flipnet.config import Recipe, RestorationConfig
from flipnet.data.cache import DecodedFaces, fingerprint
from flipnet.data.latents import cached_encoding
from flipnet.evaluation.benchmark import Case
from flipnet.evaluation.scoring import LoadedMetrics, Scorer
from flipnet.faces.identity import IdentityNetwork
from flipnet.images import faces_to_tensor, tensor_to_uint8
from flipnet.models.backbone import downscale_factor, encode_latents, load_component
from flipnet.models.base import load_base
from flipnet.models.face_encoder import FaceEncoder
from flipnet.models.flipnet import load_mode, save_mode
from flipnet.pipelines.degrade import FaceDegrader
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.pipelines.restore import FaceRestorer
from flipnet.training.caching import LqVariants, cached_hq_latents, weights_fingerprint
from flipnet.training.faces import load_faces
from flipnet.training.loop import TrainingStage, seeded_batches, train
from flipnet.training.mode_data import CachedDataset
from flipnet.training.modes import ImageTerms, ModeObjective, add_mode, train_only
from flipnet.training.objective import diffusion_target
from flipnet.types import FlipnetError, Mode

Item = dict[str, Tensor]
DLIB_DIM = 128
MEASURED_AT_ONCE = 4
MODE_FILE = "restoration.safetensors"


@dataclass(frozen=True)
class Variant:
    """What one run differs in from the reference.

    Attributes:
        label: for tables and figures.
        embedding: what Adapter tau sees; "none" leaves it its learned null context alone.
        offline_share: share of the samples whose bad face was made by the degradation mode.
    """

    label: str
    embedding: Literal["associated", "unassociated", "dlib", "none"] = "associated"
    offline_share: float = 0.0


VARIANTS = {
    "reference": Variant("BFR embedding (reference)"),
    "no-embedding": Variant("no embedding", "none"),
    "dlib": Variant("dlib's embedding", "dlib"),
    "no-association": Variant("BFR embedding, not associated", "unassociated"),
    "offline": Variant("+O/F", offline_share=0.3),
}


@dataclass(frozen=True)
class Setting:
    """What all runs share.

    Attributes:
        recipe: of stage "restoration"; its base is a pipeline of flipnet's.
        unassociated: folder of a face encoder before association.
        faces: training faces, spread over the set.
    """

    recipe: Recipe
    unassociated: Path | None
    faces: int

    @property
    def config(self) -> RestorationConfig:
        """The recipe's own table."""
        assert self.recipe.restoration is not None
        return self.recipe.restoration


class DlibEncoder(nn.Module):
    """dlib's recognition embedding in the place of the face encoder: one vector, told to every token.

    Repeating it leaves tau and its number of tokens as they are in the reference (our choice).
    """

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens, self.config = num_tokens, SimpleNamespace(embedding_dim=DLIB_DIM)
        self._network = IdentityNetwork()
        self.device = torch.device("cpu")  # what a diffusers pipeline asks its parts for

    def vectors(self, faces: Tensor) -> Tensor:
        """Embed (B, 3, S, S) in [-1, 1] to (B, 128)."""
        rows = [self._network.embed(face) for face in tensor_to_uint8(faces)]
        return torch.from_numpy(np.array(rows, np.float32))

    def forward(self, faces: Tensor) -> Tensor:
        """Embed (B, 3, S, S) in [-1, 1] to (B, N, 128)."""
        return self.vectors(faces)[:, None].expand(-1, self.num_tokens, -1).to(faces.device)


def bare_pipeline(setting: Setting, variant: Variant, *, channels: bool) -> FlipnetPipeline:
    """Return the base without any mode, with the variant's face encoder and the VAE's own decoder.

    Args:
        channels: whether the base sees the condition's latents in its extra input channels.
    """
    folder = resolve(setting.config.base)
    parts = load_base(str(folder))
    if not channels:
        drop_condition_channels(parts.unet)
    return FlipnetPipeline(parts.vae, parts.unet, parts.scheduler, _encoder(setting, variant, folder))


def _encoder(setting: Setting, variant: Variant, base: Path) -> Any:
    folder = base / "face_encoder"
    if variant.embedding == "unassociated":
        if setting.unassociated is None:
            raise FlipnetError("--face-encoder-without-association: needed for the variant no-association.")
        folder = setting.unassociated
    encoder = load_component(folder, {"FaceEncoder": FaceEncoder}).without_decoders().eval()
    return DlibEncoder(encoder.num_tokens) if variant.embedding == "dlib" else encoder


def drop_condition_channels(unet: Any) -> None:
    """Take the input channels for the condition's latents out: the same as zeros in them, always."""
    before, kept = unet.conv_in, unet.config.out_channels
    unet.conv_in = nn.Conv2d(kept, before.out_channels, before.kernel_size, padding=before.padding)
    unet.conv_in.weight.data = before.weight.data[:, :kept].clone()
    unet.conv_in.bias.data = before.bias.data.clone()
    unet.register_to_config(in_channels=kept)


class Samples(Dataset[Item]):
    """Training items by (face, seed), a share of them with the offline bad face in place of an online one."""

    def __init__(
        self, online: CachedDataset, offline: CachedDataset | None, share: float, *, embeds: bool
    ) -> None:
        self.online, self.offline, self.share, self.embeds = online, offline, share, embeds

    def __getitem__(self, item: tuple[int, int]) -> Item:
        is_offline = self.offline is not None and np.random.default_rng((item[1], 1)).random() < self.share
        found = (self.offline if is_offline and self.offline else self.online)[item]
        return {key: value for key, value in found.items() if self.embeds or key != "embedding"}


def training_data(
    pipeline: FlipnetPipeline, setting: Setting, variant: Variant
) -> tuple[Samples, np.ndarray]:
    """Return the cached samples of a variant and how often each face is drawn, float64 (N,)."""
    recipe, config = setting.recipe, setting.config
    faces, _, weights = load_faces(recipe.data)
    chosen = np.unique(np.linspace(0, len(faces) - 1, setting.faces).astype(int))
    vae, cache = pipeline.vae, Path(recipe.data.cache)
    sees = load_component(resolve(config.base) / "face_encoder", {"FaceEncoder": FaceEncoder}).config.input_px
    lq = LqVariants(faces, config.degradation.presets, sees, recipe.run.seed, cache)
    hq = cached_hq_latents(vae, faces, cache)
    encoder = pipeline.network.face_encoder
    variants = [
        (
            lq.latents(vae, number)["latents"],
            _dlib_embeddings(encoder, lq, number, chosen)
            if isinstance(encoder, DlibEncoder)
            else lq.embeddings(vae, encoder, number),
        )
        for number in range(config.lq_variants)
    ]
    crop, factor = config.image_crop_latents, downscale_factor(vae)
    online = CachedDataset(faces.pixels, hq, variants, crop, factor)
    offline = None
    if variant.offline_share:
        pairs = offline_variant(config.base, pipeline, faces, chosen, cache)
        offline = CachedDataset(faces.pixels, hq, [pairs], crop, factor)
    drawn = np.where(np.isin(np.arange(len(faces)), chosen), weights, 0)
    return Samples(online, offline, variant.offline_share, embeds=variant.embedding != "none"), drawn


def _dlib_embeddings(encoder: DlibEncoder, lq: LqVariants, number: int, chosen: np.ndarray) -> np.ndarray:
    pixels = lq.pixels(number)
    assert isinstance(pixels, np.memmap)
    name = f"dlib-{fingerprint(Path(str(pixels.filename)).name, chosen.tolist())}"
    found = cached_encoding(
        lambda index: faces_to_tensor(np.array(pixels[chosen[index]])),
        len(chosen),
        lambda faces: {"embedding": encoder.vectors(faces)},
        lq.cache,
        name,
    )["embedding"]
    return _at(chosen, np.repeat(found[:, None], encoder.num_tokens, axis=1), len(pixels))


def offline_variant(
    base: str, pipeline: FlipnetPipeline, faces: DecodedFaces, chosen: np.ndarray, cache: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Latents and embeddings of the chosen faces as the base's degradation mode makes them bad."""
    degrader, encoder = FaceDegrader.from_checkpoint(base), pipeline.network.face_encoder
    made_by: tuple[nn.Module, ...] = (
        degrader.pipeline.network,
        *degrader.pipeline.decoders.values(),
        encoder,
    )
    name = f"offline-{fingerprint(weights_fingerprint(*made_by), *faces.keys, chosen.tolist())}"

    @torch.no_grad()
    def encode(bad: Tensor) -> dict[str, Tensor]:
        with pipeline.autocast():
            return {"latents": encode_latents(pipeline.vae, bad), "embedding": encoder(bad)}

    def picture(index: int) -> Tensor:
        return degrader(faces_to_tensor(faces.read(int(chosen[index]))), [index])

    found = cached_encoding(picture, len(chosen), encode, cache, name)
    return _at(chosen, found["latents"], len(faces)), _at(chosen, found["embedding"], len(faces))


def _at(chosen: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Put rows (M, ...) at the chosen M of `count` places; the others are never drawn."""
    spread = np.zeros((count, *rows.shape[1:]), rows.dtype)
    spread[chosen] = rows
    return spread


def train_variant(setting: Setting, variant: Variant, folder: Path, *, channels: bool) -> float:
    """Train one run into `folder`/final and return its seconds; a run that was stopped goes on."""
    pipeline, config = bare_pipeline(setting, variant, channels=channels), setting.config
    # LoRA and hubs, which come first, start alike in every variant of one seed.
    torch.manual_seed(setting.recipe.run.seed)
    add_mode(pipeline, Mode.RESTORATION, config, embeds=variant.embedding != "none")
    dataset, draw = training_data(pipeline, setting, variant)
    train_only(pipeline, Mode.RESTORATION)
    terms = ImageTerms(config.mse_weight, config.perceptual_weight, config.image_crop_latents)
    stage = TrainingStage(
        ModeObjective(pipeline, Mode.RESTORATION, config, terms),
        seeded_batches(dataset, draw, setting.recipe),
        validate=dict,
        save=lambda final: save_mode(pipeline.network, Mode.RESTORATION, final / MODE_FILE),
        frozen=(pipeline.vae,),
    )
    started = time.perf_counter()
    train(setting.recipe, stage, folder, resume=any((folder / "checkpoints").glob("step-*")))
    return time.perf_counter() - started


def trained(setting: Setting, variant: Variant, folder: Path, *, channels: bool) -> FlipnetPipeline:
    """Return the pipeline of a finished run, ready to restore."""
    pipeline = bare_pipeline(setting, variant, channels=channels)
    load_mode(pipeline.network, Mode.RESTORATION, folder / "final" / MODE_FILE)
    pipeline.network.float().eval().requires_grad_(False)
    pipeline.vae.eval().requires_grad_(False)
    return pipeline


def measure(
    restorer: FaceRestorer | None, cases: Iterator[Case], loaded: LoadedMetrics, *, with_ldm: bool = False
) -> dict[str, list[float]]:
    """Restore cases and return the metrics' numbers per face.

    Args:
        restorer: None measures the bad faces themselves.
        cases: of clean faces made bad.
        loaded: the metrics.
        with_ldm: add L_ldm as "ldm".
    """
    scorer, losses = Scorer("ablation", loaded), []
    for number, batch in enumerate(batched(cases, MEASURED_AT_ONCE)):
        images, truths = (
            np.stack([picture for picture in pictures if picture is not None])
            for pictures in zip(*((case.degraded, case.truth) for case in batch), strict=True)
        )
        if restorer is not None:
            lq = faces_to_tensor(images)
            if with_ldm:
                losses += denoising_losses(restorer.pipeline, faces_to_tensor(truths), lq, seed=number)
            seeds = [number * MEASURED_AT_ONCE + place for place in range(len(batch))]
            images = tensor_to_uint8(restorer(lq, seeds))
        for case, image in zip(batch, images, strict=True):
            scorer.add(case.key, {"restored": image}, case.truth)
    found = {name: values.tolist() for name, values in scorer.result().scores["restored"].items()}
    return found | {"ldm": losses} if with_ldm else found


def batched(cases: Iterator[Case], size: int) -> Iterator[list[Case]]:
    """Yield lists of up to `size` cases."""
    while batch := list(itertools.islice(cases, size)):
        yield batch


def noise_levels(total: int) -> Sequence[int]:
    """Timesteps that L_ldm is averaged over: a quarter, half and three quarters of all, and the last."""
    return total // 4, total // 2, 3 * total // 4, total - 1


@torch.no_grad()
def denoising_losses(pipeline: FlipnetPipeline, hq: Tensor, lq: Tensor, seed: int) -> list[float]:
    """L_ldm of each pair, (B, 3, S, S) in [-1, 1] twice, over `noise_levels`."""
    network, scheduler = pipeline.network, pipeline.scheduler
    network.activate(Mode.RESTORATION)
    with pipeline.autocast():
        target, given = (encode_latents(pipeline.vae, images).float() for images in (hq, lq))
        condition = network.condition(given, network.embed(lq))
        noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(seed))
        errors = []
        for step in noise_levels(scheduler.config.num_train_timesteps):
            timesteps = torch.full((len(target),), step)
            noisy = scheduler.add_noise(target, noise, timesteps)
            prediction = network(noisy, timesteps, condition).float()
            aim = diffusion_target(scheduler, target, noise, timesteps)
            errors.append((prediction - aim).square().mean((1, 2, 3)))
    return torch.stack(errors).mean(0).tolist()
