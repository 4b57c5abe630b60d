"""Recipes: what a training run is, read from TOML, every key checked and every contradiction named.

A recipe file holds `stage`, and the tables `[data]`, `[optim]`, `[run]` and one named like the stage.
The resolved recipe is saved with the run. Source: our choice; litgpt's checked argument objects were the model.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flipnet.types import FlipnetError

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Quality = Annotated[int, Field(ge=1, le=100)]
PredictionType = Literal["epsilon", "v_prediction"]


class RecipeError(FlipnetError):
    """A recipe that cannot be used; the message names the file, the key and the cause."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Table):
    """Where training and validation faces come from.

    Attributes:
        train: image folders, tar shards or globs of either; relative to the working directory. Every stage but
            degradation, which has pairs of its own, needs them.
        val: the same for validation faces.
        size_px: side of the square faces.
        source_weights: how often a source is drawn relative to its share (key prefix -> factor).
        group_power: 0 draws groups in proportion to their size, 1 draws every group equally often.
        cache: folder for decoded faces and latents, reused by later stages.
        crop_to_square: cut the central square out of images that are not square, in place of refusing them.
        streaming: read faces while training goes on, every face once per epoch, from files or any fsspec URL;
            nothing is decoded beforehand. For stages that degrade online.
        shuffle_buffer: faces that streaming draws the next one from; shards come in random order beside that.
    """

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    size_px: Positive = 512
    source_weights: dict[str, NonNegative] = {}
    group_power: Fraction = 0.0
    cache: str = "runs/cache"
    crop_to_square: bool = False
    streaming: bool = False
    shuffle_buffer: Positive = 10_000

    @model_validator(mode="after")
    def _streaming_has_no_weights(self) -> DataConfig:
        if self.streaming and (self.source_weights or self.group_power):
            raise ValueError(
                "streaming takes every face once per epoch, so leave out source_weights and group_power"
            )
        if not self.streaming and any("://" in location for location in self.train + self.val):
            raise ValueError("faces behind URLs need streaming = true")
        return self


class OptimConfig(_Table):
    """AdamW with linear warm-up, cosine decay to zero, gradient clipping by norm and EMA of the weights.

    Attributes:
        steps: optimiser steps of the whole run.
        batch_size: samples per process and backward pass; an optimiser step sees batch_size *
            gradient_accumulation * processes of them.
        learning_rate: after the warm-up, whatever the number of processes.
        optimizer: "adamw8bit" keeps its state in 8 bits, needs bitsandbytes and a GPU.
    """

    steps: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: NonNegative = 0.01
    beta2: Fraction = 0.99
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    gradient_accumulation: Positive = 1
    ema_decay: Fraction = 0.999
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"


class RunConfig(_Table):
    """How the run behaves: seed, precision, intervals.

    Attributes:
        precision: "bf16" is autocast; "no" is float32.
        checkpoint_minutes: minutes between resumable checkpoints.
        validate_every, log_every: in optimiser steps.
        checkpoints_total_limit: the newest so many checkpoints are kept.
        workers: data loading processes per process; 0 loads in the process itself.
        tracker: where curves and validation pictures go beside log.jsonl.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        compile: run torch.compile on the networks.
    """

    seed: int = 0
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    checkpoints_total_limit: Positive = 2
    validate_every: Positive = 500
    log_every: Positive = 10
    workers: Annotated[int, Field(ge=0)] = 0
    tracker: Literal["tensorboard", "wandb", "mlflow", "none"] = "tensorboard"
    gradient_checkpointing: bool = False
    compile: bool = False


class DegradationConfig(_Table):
    """Online naive degradation: preset names of `data.degradation`, one drawn per sample."""

    presets: tuple[str, ...] = ("gfpgan", "codeformer", "difface")


class AutoencoderConfig(_Table):
    """The compact VAE and its losses: L1 + gradient_weight * L1 of gradients.

    Attributes:
        channels: width per stage, finest first.
        latent_noise: standard deviation of the noise added to latents while training, so that the decoder
            forgives small errors of the denoiser.
        latent_penalty: weight of the mean square of the latents, keeps them near unit scale.
        crop_px: side of the random training crops.
        degraded_fraction: share of crops that are degraded first, so that LQ faces encode well too.
        start_from: folder of a trained VAE to go on from, in place of the shape above.
        freeze_encoder: train the decoder alone, so that latents stay what they were.
    """

    channels: tuple[Positive, ...] = (32, 64, 128, 256)
    blocks: Positive = 2
    unshuffle: Positive = 2
    latent_channels: Positive = 32
    crop_px: Positive = 192
    degraded_fraction: Fraction = 0.25
    degradation: DegradationConfig = DegradationConfig()
    gradient_weight: NonNegative = 0.5
    latent_noise: NonNegative = 0.05
    latent_penalty: NonNegative = 1e-3
    start_from: str | None = None
    freeze_encoder: bool = False

    @model_validator(mode="after")
    def _crop_fits(self) -> AutoencoderConfig:
        factor = self.unshuffle * 2 ** (len(self.channels) - 1)
        if self.crop_px % factor:
            raise ValueError(f"crop_px {self.crop_px} is not a multiple of the downscale factor {factor}")
        return self


class PriorConfig(_Table):
    """The unconditional face prior: a diffusers UNet2DConditionModel trained on HQ latents.

    Attributes:
        vae: folder of a trained VAE.
        unet: keyword arguments of UNet2DConditionModel; in_channels may be twice the latent channels, the
            second half then being the (here absent) condition latents.
        scheduler: keyword arguments of DDIMScheduler.
        start_from: folder of an earlier UNet, or None.
    """

    vae: str
    unet: dict[str, Any]
    scheduler: dict[str, Any] = {}
    start_from: str | None = None


class EmbeddingConfig(_Table):
    """Stage I: the HQ and the LQ face auto-encoder, each reconstructing its own input.

    L_ae = L1 + perceptual_weight * L_p + adversarial_weight * L_adv (FLIPNET, "Reconstruction").
    The encoders see the face area-averaged to `input_px`. L_p compares features of the VAE's encoder
    (our choice: no network trained elsewhere is needed).
    """

    vae: str
    channels: tuple[Positive, ...] = (64, 96, 128, 192)
    blocks: Positive = 2
    unshuffle: Positive = 4
    embedding_dim: Positive = 192
    input_px: Positive = 256
    perceptual_weight: NonNegative = 0.1
    adversarial_weight: NonNegative = 0.01
    degradation: DegradationConfig = DegradationConfig()


class AssociationConfig(_Table):
    """Stage II: both encoders pulled together by L_ce^H + L_ce^L over patch similarities.

    Attributes:
        face_encoder: folder that stage I wrote.
        temperature: softmax temperature over cosine similarities (our choice).
        reconstruction_weight: weight of stage I's L1, which keeps the features informative.
    """

    face_encoder: str
    temperature: Annotated[float, Field(gt=0)] = 0.1
    reconstruction_weight: NonNegative = 1.0
    degradation: DegradationConfig = DegradationConfig()


class ModeConfig(_Table):
    """What training a mode has in common, whichever way the faces go.

    Attributes:
        lora_rank: rank of the LoRA on every attention projection (64 in the paper).
        lora_convolutions: LoRA on the base's convolutions too (our choice).
        rotary: 2-D rotary positions on the hub's queries and keys, started as a local kernel (our choice).
        condition_gradient: let gradients flow through the condition pass.
        hub_drop, concat_drop: probability per sample that the condition is withheld from hubs and tokens, or
            from the extra input channels; drawn independently so that each path learns to stand alone.
        timestep_mean, timestep_std: of the logit-normal timesteps; std 0 is uniform (our choice).
        terminal_share: share of samples at the last timestep, where sampling starts and a one-step restoration
            ends (our choice: measured in docs/training-log.md).
        context_tokens: M of Adapter tau (77 for Stable Diffusion 2.1); by default the number of face tokens.
        min_snr_gamma: weigh L_ldm over timesteps by min-SNR with this gamma (5 in its paper); None weighs all
            alike.
        default_steps: denoising steps that the finished mode takes unless told otherwise.
    """

    lora_rank: Positive = 64
    lora_convolutions: bool = False
    rotary: bool = False
    condition_gradient: bool = True
    hub_drop: Fraction = 0.1
    concat_drop: Fraction = 0.1
    timestep_mean: float = 0.0
    timestep_std: NonNegative = 1.0
    terminal_share: Fraction = 0.0
    context_tokens: Positive | None = None
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = None
    default_steps: Positive = 4


class RestorationConfig(ModeConfig):
    """Restoration mode: LoRA, hubs and tau on a base, L_rm = L_ldm + mse_weight L_mse + perceptual_weight L_p.

    Attributes:
        base: folder in diffusers' layout with `vae`, `unet` and `scheduler`, hub id of one, .safetensors file in
            Stable Diffusion's original layout, or pipeline of flipnet's, whose other modes stay in the result.
        prediction_type: of a single-file base, which does not say itself.
        face_encoder: folder that stage II wrote, for a bare base.
        train_base: also train the base (our choice for the compact model, whose prior is small); the paper
            keeps it frozen.
        condition_init: the extra input channels start as this share of the weights that read the noised
            latents, so that the base sees the condition as evidence from the first step (our choice: measured in
            docs/training-log.md); 0 starts them at zero.
        base_learning_rate_scale: factor on the learning rate of the base's own weights.
        image_crop_latents: L_mse and L_p are taken on a random crop of this many latent pixels, 0 for whole.
        lq_variants: degraded variants cached per face, 0 degrades and encodes online.
        degradation: the online naive recipe.
        offline: folders of offline pairs, as `flipnet degrade --shards` writes them: "+O/F".
        offline_share: share of samples that are offline pairs.
        validation_preset: degradation of the validation faces.
        start_from: folder of an earlier run's pipeline to go on from, in place of base and face_encoder.
    """

    base: str
    prediction_type: PredictionType | None = None
    face_encoder: str | None = None
    train_base: bool = False
    condition_init: NonNegative = 0.0
    base_learning_rate_scale: NonNegative = 1.0
    mse_weight: NonNegative = 1.0
    perceptual_weight: NonNegative = 0.1
    image_crop_latents: Annotated[int, Field(ge=0)] = 0
    lq_variants: Annotated[int, Field(ge=0)] = 0
    degradation: DegradationConfig = DegradationConfig()
    offline: tuple[str, ...] = ()
    offline_share: Fraction = 0.5
    validation_preset: str = "medium"
    start_from: str | None = None

    @model_validator(mode="after")
    def _offline_pairs_are_not_cached(self) -> RestorationConfig:
        if self.offline and self.lq_variants:
            raise ValueError("offline pairs need lq_variants = 0, cached variants are online pairs only")
        return self


class PairSourceConfig(_Table):
    """One source of real clean/degraded pairs.

    Attributes:
        layout: "shards" or the name of a public data set's folder layout, see `data.pair_layouts`.
        path: folder, shard, or glob of shards.
        weight: how often the source is drawn relative to the others.
        key_weights: the same for parts of it, by key prefix.
    """

    layout: str
    path: str
    weight: NonNegative = 1.0
    key_weights: dict[str, NonNegative] = {}


class StorageConfig(_Table):
    """What becomes of the LQ pictures of pairs beyond what the pairs show (see `data.storage`); off by default.

    Attributes:
        small_share: probability that a picture is stored small and enlarged again.
        small_factor: it is shrunk by 1 to this, log-uniformly, averaging areas.
        jpeg_share: probability that the small picture is compressed.
        jpeg_quality: range of the quality that it then gets.
        gray_share: probability that it is turned gray first.
        tint_share: probability that a gray picture is tinted as paper that yellowed.
        tint: how much red is above and blue below gray at most, as a share of it.
    """

    small_share: Fraction = 0.0
    small_factor: Annotated[float, Field(ge=1)] = 4.0
    jpeg_share: Fraction = 0.7
    jpeg_quality: tuple[Quality, Quality] = (30, 95)
    gray_share: Fraction = 0.0
    tint_share: Fraction = 0.5
    tint: Fraction = 0.2

    @model_validator(mode="after")
    def _range_is_a_range(self) -> StorageConfig:
        if self.jpeg_quality[0] > self.jpeg_quality[1]:
            raise ValueError(f"jpeg_quality must be [low, high], got {list(self.jpeg_quality)}")
        return self


class TogetherConfig(ModeConfig):
    """A mode trained together with its decoder, end to end through the few steps it is used with.

    Attributes:
        lora_rank, lora_convolutions: the mode's LoRA is widened to this, keeping what it does; the base stays
            frozen.
        ldm_weight: of L_ldm on the same faces at every timestep, so that many steps go on working.
        learning_rate_scale: factor on the learning rate of the mode's own parameters.
    """

    ldm_weight: NonNegative = 1.0
    learning_rate_scale: NonNegative = 0.3


class DecoderConfig(_Table):
    """A decoder of a mode's own: L1 + gradient_weight * L1 of gradients + perceptual + adversarial terms.

    Attributes:
        base: folder of a pipeline with the mode; UNet, VAE and mode stay as they are. Where it has such a decoder
            already, training goes on from that, else from the VAE's own.
        mode: whose decoder it is. Restoration's looks at the LQ face and learns from faces; degradation's adds
            noise and learns from the LQ pictures of `pairs`.
        crop_px: side of the random training crops.
        fidelity_px: L1 and gradients compare means of squares of this side, so that finer grain is free.
        perceptual_weight: of the distance in a frozen network's features (see `training.adversary`).
        perceptual_halved: take that distance at half size too, and the mean of both.
        adversarial_weight: of the discriminators' verdict; 0 trains without any.
        grid_weight: of the grid of latent pixels that the truth does not have (`objective.grid_distance`).
        latent_noise: deviation of the noise added to latents, so that the network's errors do not show as texture.
        identity_weight: restoration: of the distance between made and true faces to `identity_network`, the
            safetensors file of `training.recognition`; 0 needs no file.
        face_share: restoration: share of the crops that are the middle of the face, where identity is looked at;
            `crop_px` is then its side.
        together: restoration: train the mode as well; without it, latents are cached.
        lq_variants: restoration: degraded variants per face, cached together with the latents restored from them.
        denoising_steps: restoration: steps that those latents are restored with.
        degradation: restoration: the online naive recipe.
        validation_preset: restoration: degradation of the validation faces.
        pairs, val_pairs: degradation: real clean/degraded pairs.
        storage: degradation: what becomes of their LQ pictures, as in the mode's own stage.
    """

    base: str
    mode: Literal["restoration", "degradation"] = "restoration"
    crop_px: Positive = 192
    fidelity_px: Positive = 1
    gradient_weight: NonNegative = 0.5
    perceptual_weight: NonNegative = 0.2
    perceptual_halved: bool = True
    adversarial_weight: NonNegative = 0.0
    grid_weight: NonNegative = 0.0
    latent_noise: NonNegative = 0.0
    identity_weight: NonNegative = 0.0
    identity_network: str | None = None
    face_share: Fraction = 0.0
    together: TogetherConfig | None = None
    lq_variants: Positive = 2
    denoising_steps: Positive = 1
    degradation: DegradationConfig = DegradationConfig()
    validation_preset: str = "medium"
    pairs: tuple[PairSourceConfig, ...] = ()
    val_pairs: tuple[PairSourceConfig, ...] = ()
    storage: StorageConfig = StorageConfig()

    @model_validator(mode="after")
    def _degradation_has_pairs(self) -> DecoderConfig:
        if (self.mode == "degradation") != bool(self.pairs and self.val_pairs):
            raise ValueError("pairs and val_pairs belong to mode 'degradation', and to it alone")
        if self.identity_weight and not self.identity_network:
            raise ValueError("identity_weight needs identity_network")
        if self.mode == "degradation" and (self.identity_weight or self.together):
            raise ValueError("identity_weight and together belong to mode 'restoration'")
        if self.mode == "restoration" and self.storage != StorageConfig():
            raise ValueError("storage belongs to mode 'degradation'")
        return self


class DegradationModeConfig(ModeConfig):
    """Degradation mode: LoRA, hubs and the null context on a frozen base, L_ldm only (FLIPNET, "Losses").

    Attributes:
        base: folder of a pipeline whose base and VAE the mode shares, or a bare base as restoration takes it.
        prediction_type, face_encoder: for a bare base, as in restoration.
        pairs, val_pairs: real clean/degraded pairs.
        crop_px: side of the random square crops.
        window: range of the factor on the side of what is cut out and scaled to crop_px.
        flip_horizontal, flip_vertical: mirror half of the crops.
        storage: what becomes of the LQ pictures beyond what the pairs show.
        code: tell the network how bad the picture is that it shall make, by the code measured of each pair (see
            `data.degradation_code`), and draw codes when it is used. A base whose mode has a code keeps it.
        code_bank: training items whose codes are kept to draw from.
    """

    base: str
    prediction_type: PredictionType | None = None
    face_encoder: str | None = None
    pairs: tuple[PairSourceConfig, ...]
    val_pairs: tuple[PairSourceConfig, ...]
    crop_px: Positive = 384
    window: tuple[float, float] = (1.0, 1.0)
    flip_horizontal: bool = True
    flip_vertical: bool = False
    storage: StorageConfig = StorageConfig()
    code: bool = False
    code_bank: Annotated[int, Field(ge=2)] = 2048


Stage = Literal["autoencoder", "prior", "embedding", "association", "restoration", "decoder", "degradation"]
STREAMING_STAGES = ("embedding", "association", "restoration")
"""Stages that degrade online and so can read their faces while they train."""


class Recipe(_Table):
    """One training run. Exactly the table named by `stage` must be present beside data, optim and run."""

    stage: Stage
    data: DataConfig = DataConfig()
    optim: OptimConfig
    run: RunConfig = RunConfig()
    autoencoder: AutoencoderConfig | None = None
    prior: PriorConfig | None = None
    embedding: EmbeddingConfig | None = None
    association: AssociationConfig | None = None
    restoration: RestorationConfig | None = None
    decoder: DecoderConfig | None = None
    degradation: DegradationModeConfig | None = None

    @model_validator(mode="after")
    def _one_stage(self) -> Recipe:
        tables = get_args(Stage)
        given = [name for name in tables if getattr(self, name) is not None]
        if given != [self.stage]:
            raise ValueError(f"stage is '{self.stage}' but the stage tables given are {given}")
        has_pairs = self.stage == "degradation" or (self.decoder is not None and bool(self.decoder.pairs))
        if not has_pairs and not (self.data.train and self.data.val):
            raise ValueError(f"data.train and data.val: stage '{self.stage}' needs faces")
        if self.data.streaming and self.stage not in STREAMING_STAGES:
            raise ValueError(f"data.streaming: stage '{self.stage}' trains on decoded faces")
        if self.data.streaming and self.restoration is not None and self.restoration.lq_variants:
            raise ValueError("data.streaming: variants are not cached, so set restoration.lq_variants = 0")
        return self


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a TOML recipe and apply `table.key=value` overrides, whose values are TOML literals.

    Raises RecipeError naming the file, the key and the cause.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: not a valid TOML recipe: {error}") from error
    for override in overrides:
        _apply_override(content, override)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise RecipeError(f"{path}: {key}: {first['msg']}") from error


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise RecipeError(f"--set {override}: expected table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = content
    *tables, name = key.split(".")
    for part in tables:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: '{part}' is not a table")
    table[name] = value


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe as JSON."""
    path.write_text(json.dumps(recipe.model_dump(mode="json", exclude_none=True), indent=2) + "\n")
