"""A map of degradations: points of several sets brought from the feature space to the plane by t-SNE.

Needs the `evaluation` extra (scikit-learn and matplotlib), imported when drawing only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flipnet.images import Photo, write_photo
from flipnet.types import FlipnetError

MAX_POINTS = 300
"""Most points shown per set."""

_PERPLEXITY = 30.0
_SIDE_INCHES, _DPI = 9.0, 120


def check_plotting() -> None:
    """Raise FlipnetError naming the extra when scikit-learn or matplotlib are missing."""
    for module, package in (("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")):
        if importlib.util.find_spec(module) is None:
            raise FlipnetError(f"the embedding plot needs {package}: pip install 'flipnet[evaluation]'")


def choose_points(sets: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """Draw the same number of points (N_i, d) from every set, at most `MAX_POINTS`, so none fills the map."""
    count = min(MAX_POINTS, *(len(points) for points in sets.values()))
    rng = np.random.default_rng(seed)
    return {name: points[np.sort(rng.permutation(len(points))[:count])] for name, points in sets.items()}


def embed(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """Map float (N, d) to float (N, 2): t-SNE of scikit-learn, perplexity 30 (less for few points), from PCA.

    Deterministic per seed on one version of scikit-learn. Neighbourhoods are meant, distances and areas are not.
    Source: van der Maaten and Hinton 2008.
    """
    check_plotting()
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    tsne = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed)
    return np.asarray(tsne.fit_transform(points.astype(np.float32)), np.float64)


def plot_embedding(
    sets: Mapping[str, np.ndarray], path: Path, *, title: str = "", seed: int = 0
) -> dict[str, np.ndarray]:
    """Draw one map of all sets, coloured by set, and write it whole or not at all.

    Args:
        sets: points (N_i, d) by name; the first set is the real one, drawn in black over the others.
        path: picture to write, its format told by its suffix; its folder must exist.
        title: text over the map.
        seed: of the drawing of points and of t-SNE.

    Returns:
        The positions (N, 2) drawn, by set.

    Raises FlipnetError when the extra is missing or the file cannot be written.
    """
    chosen = choose_points(sets, seed)
    flat = embed(np.concatenate(list(chosen.values())), seed)
    ends = np.cumsum([len(points) for points in chosen.values()])[:-1]
    positions = dict(zip(chosen, np.split(flat, ends), strict=True))
    write_photo(path, Photo(_draw(positions, title)))
    return positions


def _draw(positions: Mapping[str, np.ndarray], title: str) -> np.ndarray:
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIDE_INCHES, _SIDE_INCHES), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    real, *others = positions
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    for index, name in enumerate(others):
        x, y = positions[name].T
        axes.scatter(x, y, s=16, color=colours[index % 10], alpha=0.7, linewidths=0, label=name)
    x, y = positions[real].T
    axes.scatter(x, y, s=22, marker="x", color="black", linewidths=0.9, label=real)
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="best", framealpha=0.8)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
