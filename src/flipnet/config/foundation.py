"""The stages that train what the modes stand on: VAE, face prior, and face encoders."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from flipnet.config.data import DegradationConfig
from flipnet.config.table import Fraction, NonNegative, Positive, Table


class AutoencoderConfig(Table):
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


class PriorConfig(Table):
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
    scheduler: dict[str, Any] = Field(default_factory=dict)
    start_from: str | None = None


class EmbeddingConfig(Table):
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


class AssociationConfig(Table):
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
