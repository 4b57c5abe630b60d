"""The stages that train the two modes, restoration and degradation, on a base."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from flipnet.config.data import DegradationConfig, PairSourceConfig, StorageConfig
from flipnet.config.table import Fraction, NonNegative, Positive, Table

PredictionType = Literal["epsilon", "v_prediction"]


class ModeConfig(Table):
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
