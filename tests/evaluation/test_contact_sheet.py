import numpy as np
import pytest
from PIL import Image

from flipnet.evaluation.contact_sheet import contact_sheet
from flipnet.types import FlipnetError


def flat(*colour):
    return np.full((32, 32, 3), colour, np.uint8)


RED, GREEN, BLUE = flat(255, 0, 0), flat(0, 255, 0), flat(0, 0, 255)


def test_faces_lie_in_rows_and_columns(tmp_path):
    path = tmp_path / "sheet.png"
    contact_sheet([[RED, GREEN, BLUE], [BLUE, RED, GREEN]], path, cell_px=16)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (32, 48, 3)
    np.testing.assert_array_equal(sheet[8, 8::16], [[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    np.testing.assert_array_equal(sheet[24, 8::16], [[0, 0, 255], [255, 0, 0], [0, 255, 0]])
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_captions_stand_above_their_columns(tmp_path):
    path = tmp_path / "sheet.png"
    contact_sheet([[RED, GREEN]], path, columns=("input", "truth"), cell_px=64)
    sheet = np.asarray(Image.open(path))
    band, faces = sheet[:-64], sheet[-64:]
    assert band.shape[0] > 10
    assert (band[:, :64] < 128).any()
    assert (band[:, 64:] < 128).any()
    np.testing.assert_array_equal(faces[32, 32], [255, 0, 0])


@pytest.mark.parametrize(("rows", "columns"), [([], ()), ([[RED, RED], [RED]], ()), ([[RED, RED]], ("one",))])
def test_uneven_sheets_are_refused(tmp_path, rows, columns):
    with pytest.raises(FlipnetError, match="contact sheet"):
        contact_sheet(rows, tmp_path / "sheet.png", columns=columns)


def test_unwritable_path_is_named(tmp_path):
    with pytest.raises(FlipnetError, match=r"nowhere/sheet\.png"):
        contact_sheet([[RED]], tmp_path / "nowhere" / "sheet.png")
