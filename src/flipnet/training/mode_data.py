"""What the modes train on: pairs made online, cached latents of such pairs, offline pairs, and mixtures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flipnet.data.datasets import DegradedFaceDataset
from flipnet.data.latents import is_mirrored
from flipnet.data.shards import OfflinePairs

Item = dict[str, Tensor]
ONLINE, OFFLINE = 0, 1


class MixedDataset(Dataset[Item]):
    """ "+O/F": each item is an offline pair with probability `share`, an online one otherwise.

    Indexed by (face, seed); the offline pair is drawn from the seed. Items carry "kind", ONLINE or OFFLINE, so
    that the losses are reported apart. Source: FLIPNET, "Data for restoration"; the ratio is our choice.
    """

    def __init__(self, online: DegradedFaceDataset, offline: OfflinePairs, share: float) -> None:
        self.online, self.offline, self.share = online, offline, share

    def __getitem__(self, item: tuple[int, int]) -> Item:
        _, seed = item
        rng = np.random.default_rng((seed, 1))
        if rng.random() >= self.share:
            pair = self.online[item]
            return {"hq": pair["hq"], "lq": pair["lq"], "kind": torch.tensor(ONLINE)}
        pair = self.offline[int(rng.integers(len(self.offline)))]
        hq, lq = pair["hq"], pair["lq"]
        if rng.random() < 0.5:
            hq, lq = hq.flip(-1), lq.flip(-1)
        return {"hq": hq, "lq": lq, "kind": torch.tensor(OFFLINE)}


class CachedDataset(Dataset[Item]):
    """HQ and LQ latents, LQ embedding, and a crop of the HQ image with its place; indexed by (face, seed).

    Args:
        faces: uint8 (N, S, S, 3).
        hq: latents of the faces and of their mirror images.
        variants: LQ latents and embeddings of every degraded variant; one variant is drawn per sample.
        crop: side of the crop in latent pixels; the whole face for 0.
        factor: image pixels per latent pixel.
    """

    def __init__(
        self,
        faces: np.ndarray,
        hq: tuple[np.ndarray, np.ndarray],
        variants: Sequence[tuple[np.ndarray, np.ndarray]],
        crop: int,
        factor: int,
    ) -> None:
        self.faces, self.hq, self.variants, self.factor = faces, hq, variants, factor
        self.crop = crop or faces.shape[1] // factor

    def __getitem__(self, item: tuple[int, int]) -> Item:
        index, seed = item
        rng = np.random.default_rng(seed)
        variant = int(rng.integers(len(self.variants)))
        lq_latents, embeddings = self.variants[variant]
        mirrored = is_mirrored(variant)
        top, left = rng.integers(0, self.faces.shape[1] // self.factor - self.crop + 1, 2)
        face = self.faces[index][:, ::-1] if mirrored else self.faces[index]
        rows = slice(top * self.factor, (top + self.crop) * self.factor)
        columns = slice(left * self.factor, (left + self.crop) * self.factor)
        return {
            "hq_latents": _float(self.hq[int(mirrored)][index]),
            "lq_latents": _float(lq_latents[index]),
            "embedding": _float(embeddings[index]),
            "hq_crop": torch.from_numpy(np.array(face[rows, columns])).permute(2, 0, 1),
            "corner": torch.tensor([top, left]),
        }


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))
