import sys

import numpy as np
import pytest
from PIL import Image

from flipnet.evaluation import embedding_plot
from flipnet.evaluation.embedding_plot import choose_points, plot_embedding
from flipnet.types import FlipnetError


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return {name: rng.normal(10 * place, 1, (40, 5)) for place, name in enumerate(("real", "a", "b"))}


def test_the_map_keeps_groups_apart_and_is_the_same_again(sets, tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn (extra 'evaluation') is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib (extra 'evaluation') is not installed")
    path = tmp_path / "map.png"
    positions = plot_embedding(sets, path, title="three groups")
    assert list(positions) == ["real", "a", "b"]
    centres = {name: points.mean(0) for name, points in positions.items()}
    for name, points in positions.items():
        distances = {other: np.linalg.norm(points - centre, axis=1) for other, centre in centres.items()}
        assert (np.array(list(distances.values())).argmin(0) == list(centres).index(name)).all()
    first = path.read_bytes()
    plot_embedding(sets, path, title="three groups")
    assert path.read_bytes() == first
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (1080, 1080, 3)
    assert (pixels == (31, 119, 180)).all(-1).any() or len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.png"]


def test_every_set_shows_equally_many_points(sets, monkeypatch):
    sets["a"] = sets["a"][:25]
    assert [len(points) for points in choose_points(sets).values()] == [25, 25, 25]
    monkeypatch.setattr(embedding_plot, "MAX_POINTS", 10)
    assert [len(points) for points in choose_points(sets).values()] == [10, 10, 10]


def test_a_missing_package_names_the_extra(sets, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(FlipnetError, match=r"scikit-learn.*flipnet\[evaluation\]"):
        plot_embedding(sets, tmp_path / "map.png")
