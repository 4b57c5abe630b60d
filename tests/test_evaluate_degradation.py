import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from flipnet.commands.evaluate_degradation import EvaluationSettings, evaluate_degradation
from flipnet.types import FlipnetError

pytest.importorskip("sklearn", reason="scikit-learn (extra 'evaluation') is not installed")
pytest.importorskip("matplotlib", reason="matplotlib (extra 'evaluation') is not installed")


def picture(seed, sigma):
    """Texture blurred by `sigma`."""
    texture = np.random.default_rng(seed).normal(size=(512, 512))
    texture = ndimage.gaussian_filter(texture, sigma, mode="wrap")
    levels = 128 + 40 * texture / texture.std()
    return np.repeat(levels.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def save(folder, count, first_seed, low, high, name="{}"):
    folder.mkdir()
    for index in range(count):
        sigma = low + (high - low) * index / (count - 1)
        pixels = picture(first_seed + index, sigma)
        Image.fromarray(pixels).save(folder / f"{name.format(index)}.png", compress_level=1)
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    save(root / "real", 40, 0, 1, 6)
    save(root / "sharp", 20, 100, 1, 3)
    save(root / "soft", 20, 200, 3.5, 6, "face{:02}_00")
    Image.fromarray(picture(300, 1.0)).save(root / "soft" / "face00_01.png", compress_level=1)
    return root


def settings(sets, output, **changes):
    plain = {
        "real": sets / "real",
        "methods": (f"sharp={sets / 'sharp'}", f"soft={sets / 'soft'}"),
        "unions": ("both=sharp+soft",),
        "repetitions": 4,
    }
    return EvaluationSettings(output=output, **(plain | changes))


def test_table_json_and_map(sets, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    output = tmp_path / "new" / "report"
    evaluate_degradation(settings(sets, output, cache=tmp_path / "cache"))
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in ("real (other half)", "sharp", "soft", "both", "coverage", "1 x 2")
    )
    assert sorted(path.name for path in output.iterdir()) == ["degradation.json", "embedding.png"]
    report = json.loads((output / "degradation.json").read_text())
    assert (report["protocol"], report["features"]) == (
        "degradation-evaluation-1",
        "face-degradation-statistics-1",
    )
    assert report["packages"]["numpy"] == np.__version__
    assert report["settings"]["seed"] == 0
    assert (report["reference_images"], report["drawn_images"]) == (20, 20)
    assert report["sets"]["real"]["faces"] == 40
    assert report["sets"]["soft"]["milliseconds_per_image"] > 0
    rows = {row["name"]: row for row in report["likeness"]}
    assert list(rows) == ["real", "sharp", "soft", "both"]
    assert rows["both"]["images"] == 41
    assert rows["both"]["coverage"]["mean"] > rows["sharp"]["coverage"]["mean"]
    assert rows["both"]["frechet"]["mean"] < rows["soft"]["frechet"]["mean"]
    assert report["methods"]["soft"]["diversity"]["faces"] == 1
    assert report["methods"]["sharp"] == {"diversity": None, "content": None}
    with Image.open(output / "embedding.png") as image:
        assert image.size == (1080, 1080)
    # Again from the cache: the same numbers, and nothing measured.
    evaluate_degradation(settings(sets, tmp_path / "again", cache=tmp_path / "cache"))
    again = json.loads((tmp_path / "again" / "degradation.json").read_text())
    assert again["likeness"] == report["likeness"]
    assert again["sets"]["soft"]["milliseconds_per_image"] is None


def test_mistakes_are_told_before_anything_is_measured(sets, tmp_path):
    for changes, cause in (
        ({"methods": ("sharp",)}, "--method sharp: expected NAME=FOLDER"),
        ({"methods": ("a=x", "a=y")}, "'a' is given twice"),
        ({"methods": (f"a={tmp_path / 'nowhere'}",), "unions": ()}, "nowhere: no such file or folder"),
        ({"unions": ("u=sharp+other",)}, "'other' is none"),
        ({"hq": tmp_path / "no-hq"}, "no-hq: no such file or folder"),
    ):
        with pytest.raises(FlipnetError, match=cause):
            evaluate_degradation(settings(sets, tmp_path / "report", **changes))
    assert not (tmp_path / "report").exists()


def test_too_few_images_name_the_folder(sets, tmp_path):
    with pytest.raises(FlipnetError, match=r"real: has 30 usable faces, but at least 40 are needed"):
        evaluate_degradation(settings(sets, tmp_path / "report", limit=30))
