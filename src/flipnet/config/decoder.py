"""The stage that gives a mode a decoder of its own, alone or trained together with the mode."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from flipnet.config.data import DegradationConfig, PairSourceConfig, StorageConfig
from flipnet.config.modes import ModeConfig
from flipnet.config.table import Fraction, NonNegative, Positive, Table


class TogetherConfig(ModeConfig):
    """A mode trained together with its decoder, end to end through the few steps it is used with.

    Attributes:
        lora_rank, lora_convolutions: the mode's LoRA is widened to this, keeping what it does; the base stays
            frozen.
        ldm_weight: of L_ldm on the same faces at every timestep, so that many steps go on working.
        ldm_faces: how many faces of a batch L_ldm looks at; 0: all of them.
        learning_rate_scale: factor on the learning rate of the mode's own parameters.
    """

    ldm_weight: NonNegative = 1.0
    ldm_faces: Annotated[int, Field(ge=0)] = 0
    learning_rate_scale: NonNegative = 0.3


class DecoderConfig(Table):
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
        parts_share: restoration: share of the other crops that lie around an eye, the nose or a mouth corner.
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
    parts_share: Fraction = 0.0
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
