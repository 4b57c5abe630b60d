"""Stages "embedding" (I, reconstruction) and "association" (II) of the BFR-oriented face embedding."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from flipnet.config import AssociationConfig, DegradationConfig, EmbeddingConfig, Recipe
from flipnet.data.datasets import DegradedFaceDataset, FaceSource
from flipnet.data.degradation import preset
from flipnet.images import tensor_to_uint8
from flipnet.models.backbone import encoder_features
from flipnet.models.base import load_base_vae
from flipnet.models.face_encoder import FaceEncoder, PatchDiscriminator, as_tokens, prepare_face
from flipnet.training.faces import load_or_stream_faces
from flipnet.training.loop import TrainingStage, seeded_batches
from flipnet.training.objective import (
    association_loss,
    hinge_losses,
    perceptual_distance,
    psnr,
    to_unit_range,
)
from flipnet.training.run_log import Pictures

PICTURED_FACES = 4


class PreparedPairs(Dataset[dict[str, Tensor]]):
    """HQ and LQ of one face, mirrored together, area-averaged to `input_px`: uint8 (3, P, P) each."""

    def __init__(self, faces: FaceSource, degradation: DegradationConfig, input_px: int) -> None:
        self.pairs = DegradedFaceDataset(faces, [preset(name) for name in degradation.presets])
        self.input_px = input_px

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        pair = self.pairs[item]
        return {role: self._shrink(pair[role]) for role in ("hq", "lq")}

    def _shrink(self, face: Tensor) -> Tensor:
        return prepare_face(face[None].float(), self.input_px)[0].round().to(torch.uint8)


class EmbeddingObjective(nn.Module):
    """L_ae of stage I for both auto-encoders; L_adv by a hinge loss, its discriminator trained in the same step."""

    def __init__(self, encoder: FaceEncoder, vae: Any, config: EmbeddingConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.perceptual_features = partial(encoder_features, vae)
        self.discriminator = PatchDiscriminator() if config.adversarial_weight else None

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return total, l1, perceptual and (when its weight is not 0) adversarial and discriminator losses."""
        image = to_unit_range(torch.cat([batch["hq"], batch["lq"]]))
        count = len(batch["hq"])
        restored = torch.cat(
            [
                self.encoder.decode(self.encoder.encode(image[:count], "hq"), "hq"),
                self.encoder.decode(self.encoder.encode(image[count:], "lq"), "lq"),
            ]
        ).float()
        l1 = (restored - image).abs().mean()
        perceptual = perceptual_distance(self.perceptual_features, restored, image)
        total = l1 + self.config.perceptual_weight * perceptual
        losses = {"l1": l1.detach(), "perceptual": perceptual.detach()}
        if self.discriminator is not None:
            adversarial, judged = hinge_losses(self.discriminator, restored, image)
            total = total + self.config.adversarial_weight * adversarial + judged
            losses |= {"adversarial": adversarial.detach(), "discriminator": judged.detach()}
        return {"total": total, **losses}


class AssociationObjective(nn.Module):
    """L_ce^H + L_ce^L between the two encoders' patches, plus stage I's L1 to keep them informative."""

    def __init__(self, encoder: FaceEncoder, config: AssociationConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return total, association and l1."""
        hq, lq = to_unit_range(batch["hq"]), to_unit_range(batch["lq"])
        hq_map, lq_map = self.encoder.encode(hq, "hq"), self.encoder.encode(lq, "lq")
        association = association_loss(
            as_tokens(hq_map).float(), as_tokens(lq_map).float(), self.config.temperature
        )
        l1 = (self.encoder.decode(hq_map, "hq").float() - hq).abs().mean()
        l1 = l1 + (self.encoder.decode(lq_map, "lq").float() - lq).abs().mean()
        total = association + self.config.reconstruction_weight * l1
        return {"total": total, "association": association.detach(), "l1": l1.detach()}


def build(recipe: Recipe) -> TrainingStage:
    """Assemble stage I or stage II from its recipe."""
    objective: EmbeddingObjective | AssociationObjective
    frozen: tuple[nn.Module, ...]
    if recipe.embedding is not None:
        config = recipe.embedding
        vae = load_base_vae(config.vae).eval().requires_grad_(False)
        torch.manual_seed(recipe.run.seed)
        encoder = FaceEncoder(
            channels=config.channels,
            blocks=config.blocks,
            unshuffle=config.unshuffle,
            embedding_dim=config.embedding_dim,
            input_px=config.input_px,
        )
        objective, degradation = EmbeddingObjective(encoder, vae, config), config.degradation
        frozen = (vae,)
    else:
        assert recipe.association is not None
        encoder = FaceEncoder.from_pretrained(recipe.association.face_encoder)
        objective = AssociationObjective(encoder, recipe.association)
        degradation, frozen = recipe.association.degradation, ()
    train_faces, val_faces, draw = load_or_stream_faces(recipe.data)
    size = encoder.config.input_px
    dataset = PreparedPairs(train_faces, degradation, size)
    val = PreparedPairs(val_faces, degradation, size)

    return TrainingStage(
        objective,
        seeded_batches(dataset, draw, recipe),
        validate=lambda: evaluate_embedding(encoder, val),
        save=encoder.save_pretrained,
        pictures=lambda: embedding_pictures(encoder, val),
        frozen=frozen,
    )


@torch.no_grad()
def evaluate_embedding(encoder: FaceEncoder, pairs: PreparedPairs) -> dict[str, float]:
    """Reconstruction PSNR in dB of both auto-encoders, and the share of LQ patches whose most similar HQ patch
    of the same face is the one at their own place, in [0, 1]."""
    hq_psnr, lq_psnr, matched = [], [], []
    device = encoder.device
    for index in range(len(pairs)):
        item = pairs[index, index]
        hq, lq = (to_unit_range(item[role].to(device))[None] for role in ("hq", "lq"))
        hq_map, lq_map = encoder.encode(hq, "hq"), encoder.encode(lq, "lq")
        hq_psnr.append(float(psnr(encoder.decode(hq_map, "hq").clamp(-1, 1), hq)))
        lq_psnr.append(float(psnr(encoder.decode(lq_map, "lq").clamp(-1, 1), lq)))
        similarity = F.normalize(as_tokens(lq_map), dim=-1) @ F.normalize(as_tokens(hq_map), dim=-1).mT
        best = similarity[0].argmax(1)
        matched.append(float((best.cpu() == torch.arange(len(best))).float().mean()))
    return {
        "hq_psnr_db": float(np.mean(hq_psnr)),
        "lq_psnr_db": float(np.mean(lq_psnr)),
        "patches_matched": float(np.mean(matched)),
    }


def embedding_pictures(encoder: FaceEncoder, pairs: PreparedPairs) -> Pictures:
    """Return the first validation faces beside what their own auto-encoder makes of them, HQ and LQ."""
    rows = []
    for index in range(min(PICTURED_FACES, len(pairs))):
        item, row = pairs[index, index], []
        for role in ("hq", "lq"):
            face = to_unit_range(item[role].to(encoder.device))[None]
            row += [face, encoder.decode(encoder.encode(face, role), role)]
        rows.append(list(tensor_to_uint8(torch.cat(row))))
    return Pictures(("HQ", "HQ again", "LQ", "LQ again"), rows)
