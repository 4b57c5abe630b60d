"""Whole photos: selection, batches, failures, depth, gray, enlargement, and what must not change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import skimage.data
import torch
from scipy import ndimage
from torch import Tensor

from flipnet.faces.align import crop_box, estimate_similarity
from flipnet.faces.detect import CenterFaceDetector
from flipnet.faces.photo import NoFacesError, restore_aligned, restore_photo
from flipnet.images import Photo, resize
from flipnet.types import FlipnetError

# The astronaut's crop spans 170 photo pixels, so at this size it is about native.
NATIVE_PX = 160


@dataclass
class Restoring:
    """A restorer made of a function of (faces, seeds); remembers the batches it saw."""

    function: Callable[[Tensor, Sequence[int]], Tensor]
    native_size_px: int = NATIVE_PX
    batches: list[list[int]] = field(default_factory=list)

    def __call__(self, faces: Tensor, seeds: Sequence[int]) -> Tensor:
        assert faces.dtype == torch.float32
        assert faces.shape[1:] == (3, self.native_size_px, self.native_size_px)
        assert faces.abs().max() <= 1
        self.batches.append(list(seeds))
        return self.function(faces, seeds)


def identity(faces, seeds):
    return faces


def brighten(faces, seeds):
    return faces + 0.3


def blur(faces, seeds):
    return torch.from_numpy(ndimage.gaussian_filter(faces.numpy(), (0, 0, 4, 4)))


@pytest.fixture(scope="module")
def detector():
    return CenterFaceDetector()


@pytest.fixture(scope="module")
def astronaut():
    return Photo(skimage.data.astronaut())


@pytest.fixture(scope="module")
def trio():
    """Three astronauts: large, small, smaller, left to right, on gray."""
    head = skimage.data.astronaut()[:256, 100:356]
    pixels = np.full((300, 720, 3), 120, np.uint8)
    x = 0
    for side in (280, 220, 180):
        pixels[10 : 10 + side, x : x + side] = resize(head, (side, side))
        x += side + 15
    return Photo(pixels)


def face_region(photo, face, size_px=NATIVE_PX):
    x0, y0, x1, y1 = crop_box(estimate_similarity(face.landmarks_px, size_px), size_px, photo.pixels.shape)
    return slice(y0, y1), slice(x0, x1)


def test_identity_changes_no_pixel(detector, astronaut):
    result = restore_photo(astronaut, Restoring(identity), detector)
    assert np.array_equal(result.photo.pixels, astronaut.pixels)
    (face,) = result.faces
    assert (face.status, face.reason, face.index) == ("restored", None, 0)
    assert np.array_equal(face.crop, face.restored)
    assert face.crop.shape == (NATIVE_PX, NATIVE_PX, 3)
    assert 0.9 < face.scale < 1.2


def test_only_the_face_changes_and_the_input_stays(detector, astronaut):
    before = astronaut.pixels.copy()
    result = restore_photo(astronaut, Restoring(brighten), detector)
    assert np.array_equal(astronaut.pixels, before)
    changed = (result.photo.pixels != before).any(-1)
    region = face_region(astronaut, result.faces[0].face)
    outside = np.ones_like(changed)
    outside[region] = False
    assert not changed[outside].any()
    nose = result.faces[0].face.landmarks_px[2].round().astype(int)[::-1]
    assert changed[nose[0], nose[1]]


def test_blend_scales_the_change(detector, astronaut):
    changes = []
    for blend in (0.0, 0.5, 1.0):
        out = restore_photo(astronaut, Restoring(blur), detector, blend=blend).photo.pixels
        changes.append(np.abs(out.astype(int) - astronaut.pixels).sum())
    assert changes[0] == 0
    assert changes[1] / changes[2] == pytest.approx(0.5, abs=0.05)


def test_a_face_larger_than_native_keeps_its_fine_detail_and_says_so(detector):
    # A face of 680 photo pixels through a 64-pixel restorer that returns mush.
    photo = Photo(resize(skimage.data.astronaut()[:256, 100:356], (1024, 1024)))
    noise = np.random.default_rng(0).integers(-12, 13, photo.pixels.shape)
    photo = Photo((photo.pixels.astype(int) + noise).clip(0, 255).astype(np.uint8))
    result = restore_photo(photo, Restoring(blur, 64), detector)
    (face,) = result.faces
    assert face.scale > 8
    assert any("larger than the model's 64 pixels" in w for w in face.warnings)
    region = face_region(photo, face.face, 64)

    def detail(pixels):
        plane = pixels[region].astype(float)
        return (plane - ndimage.gaussian_filter(plane, (1.5, 1.5, 0))).std()

    assert not np.array_equal(result.photo.pixels, photo.pixels)
    assert detail(result.photo.pixels) > 0.99 * detail(photo.pixels)


def test_batches_seeds_and_order(detector, trio):
    restorer = Restoring(identity)
    told = []
    result = restore_photo(trio, restorer, detector, batch_size=2, seed=40, on_face=told.append)
    assert restorer.batches == [[40, 41], [42]]
    assert [f.index for f in result.faces] == [0, 1, 2]
    assert [f.seed for f in result.faces] == [40, 41, 42]
    assert told == list(result.faces)
    centres = [f.face.landmarks_px[2, 0] for f in result.faces]
    assert centres == sorted(centres)  # largest first is left to right here


@pytest.mark.parametrize(("select", "chosen"), [("largest", 0), ("center", 1)])
def test_selection_leaves_the_other_faces_alone(detector, trio, select, chosen):
    result = restore_photo(trio, Restoring(brighten), detector, select=select)
    assert [f.status == "restored" for f in result.faces] == [i == chosen for i in range(3)]
    for face in result.faces:
        nose = tuple(face.face.landmarks_px[2].round().astype(int)[::-1])
        same = np.array_equal(result.photo.pixels[nose], trio.pixels[nose])
        assert same == (face.index != chosen)
        if face.index != chosen:
            assert face.reason == f"not the {select} face"
            assert face.restored is None


def test_one_bad_face_fails_alone(detector, trio):
    def nan_for_seed_1(faces, seeds):
        faces = faces + 0.3
        faces[list(seeds).index(1), 0, 5, 5] = float("nan")
        return faces

    result = restore_photo(trio, Restoring(nan_for_seed_1), detector)
    assert [f.status for f in result.faces] == ["restored", "failed", "restored"]
    assert "not finite" in result.faces[1].reason
    assert result.faces[1].restored is None
    rows, columns = face_region(trio, result.faces[1].face)
    middle = (slice(rows.start + 30, rows.stop - 30), slice(columns.start + 30, columns.stop - 30))
    assert np.array_equal(result.photo.pixels[middle], trio.pixels[middle])
    assert not np.array_equal(result.photo.pixels, trio.pixels)


def test_a_raising_batch_is_reported_and_the_next_goes_on(detector, trio):
    def no_memory_for_two(faces, seeds):
        if len(seeds) == 2:
            raise torch.OutOfMemoryError("17 GiB wanted")
        return faces + 0.3

    result = restore_photo(trio, Restoring(no_memory_for_two), detector, batch_size=2)
    assert [f.status for f in result.faces] == ["failed", "failed", "restored"]
    assert result.faces[0].reason == "the restorer stopped with OutOfMemoryError: 17 GiB wanted"
    changed = (result.photo.pixels != trio.pixels).any(-1)
    rows, columns = face_region(trio, result.faces[2].face)
    changed[rows, columns] = False
    assert not changed.any()


def test_a_wrong_shape_is_a_failure(detector, astronaut):
    result = restore_photo(astronaut, Restoring(lambda faces, seeds: faces[..., :-1]), detector)
    assert result.faces[0].status == "failed"
    assert "returned shape (1, 3, 160, 159) instead of (1, 3, 160, 160)" in result.faces[0].reason
    assert np.array_equal(result.photo.pixels, astronaut.pixels)


def test_a_bug_in_the_restorer_is_not_hidden(detector, astronaut):
    def bug(faces, seeds):
        raise KeyError("typo")

    with pytest.raises(KeyError):
        restore_photo(astronaut, Restoring(bug), detector)


def test_faces_too_small_are_skipped_with_a_reason(astronaut):
    pixels = np.full((64, 64, 3), 128, np.uint8)
    pixels[10:50, 10:50] = resize(astronaut.pixels[:256, 100:356], (40, 40))
    result = restore_photo(Photo(pixels), Restoring(brighten), CenterFaceDetector(min_score=0.3))
    assert [f.status for f in result.faces] == ["skipped"]
    assert "too small" in result.faces[0].reason
    assert np.array_equal(result.photo.pixels, pixels)


def test_no_face_raises(detector):
    with pytest.raises(NoFacesError, match="no face"):
        restore_photo(Photo(skimage.data.coffee()), Restoring(identity), detector)


def test_16_bit_photo_keeps_its_depth(detector, astronaut):
    noise = np.random.default_rng(0).integers(0, 257, astronaut.pixels.shape)
    deep = Photo((astronaut.pixels.astype(np.uint32) * 256 + noise).clip(0, 65535).astype(np.uint16))
    same = restore_photo(deep, Restoring(identity), detector)
    assert np.array_equal(same.photo.pixels, deep.pixels)
    result = restore_photo(deep, Restoring(brighten), detector)
    assert result.photo.pixels.dtype == np.uint16
    region = face_region(deep, result.faces[0].face)
    outside = np.ones(deep.pixels.shape[:2], bool)
    outside[region] = False
    assert np.array_equal(result.photo.pixels[outside], deep.pixels[outside])
    nose = tuple(result.faces[0].face.landmarks_px[2].round().astype(int)[::-1])
    added = result.photo.pixels[nose].astype(int) - deep.pixels[nose]
    assert added.min() > 0.05 * 65535
    assert added.max() < 0.16 * 65535


def test_gray_photo_stays_gray(detector, astronaut):
    gray = Photo(np.repeat(astronaut.pixels[..., 1:2], 3, 2), grayscale=True)

    def tint(faces, seeds):
        return faces + torch.tensor([0.5, -0.1, -0.3]).view(1, 3, 1, 1)

    result = restore_photo(gray, Restoring(tint), detector)
    pixels = result.photo.pixels
    assert result.photo.grayscale
    assert not np.array_equal(pixels, gray.pixels)
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    restored = result.faces[0].restored
    assert np.array_equal(restored[..., 0], restored[..., 2])


def test_gray_photo_stored_in_colour_gets_no_tint(detector, astronaut):
    chroma = np.random.default_rng(0).integers(-1, 2, astronaut.pixels.shape)
    noisy = (np.repeat(astronaut.pixels[..., 1:2], 3, 2).astype(int) + chroma).clip(0, 255).astype(np.uint8)

    def tint(faces, seeds):
        return faces + torch.tensor([0.5, -0.1, -0.3]).view(1, 3, 1, 1)

    pixels = restore_photo(Photo(noisy), Restoring(tint), detector).photo.pixels.astype(int)
    assert np.abs(pixels - noisy).max() > 10
    assert (pixels.max(2) - pixels.min(2)).max() <= 5
    untouched = restore_photo(Photo(noisy), Restoring(identity), detector).photo.pixels
    assert np.array_equal(untouched, noisy)


def test_upscale_enlarges_background_alpha_and_faces(detector, astronaut):
    alpha = np.full(astronaut.pixels.shape[:2], 255, np.uint8)
    alpha[:40] = 7
    photo = Photo(astronaut.pixels, alpha, exif=b"Exif\0\0", icc_profile=b"profile")
    plain = restore_photo(photo, Restoring(identity), detector, upscale=2).photo
    assert np.array_equal(plain.pixels, resize(photo.pixels, (1024, 1024)))
    assert plain.alpha.shape == (1024, 1024)
    assert plain.alpha[10, 10] == 7
    assert (plain.exif, plain.icc_profile) == (photo.exif, photo.icc_profile)

    def dot(faces, seeds):  # a bright dot where the template has the nose
        faces = faces.clone()
        faces[:, :, 96:101, 78:83] = 1
        return faces

    result = restore_photo(photo, Restoring(dot), detector, upscale=2)
    change = (result.photo.pixels.astype(int) - plain.pixels).sum(-1)
    y, x = ndimage.center_of_mass(change.clip(0))
    nose = result.faces[0].face.landmarks_px[2] * 2 + 0.5
    assert abs(x - nose[0]) < 5
    assert abs(y - nose[1]) < 5


@pytest.mark.parametrize(
    "options",
    [{"blend": 1.5}, {"upscale": 0}, {"batch_size": 0}, {"select": "best"}],
    ids=lambda o: next(iter(o)),
)
def test_bad_options_are_named(detector, astronaut, options):
    with pytest.raises(FlipnetError, match=next(iter(options))):
        restore_photo(astronaut, Restoring(identity), detector, **options)


# ----------------------------------------------------------------------------------------- aligned crops


def aligned_crop(astronaut, side=NATIVE_PX):
    return Photo(resize(astronaut.pixels[60:190, 160:290], (side, side)))


def test_aligned_identity_and_change(astronaut):
    crop = aligned_crop(astronaut)
    same = restore_aligned(crop, Restoring(identity))
    assert np.array_equal(same.photo.pixels, crop.pixels)
    assert same.faces[0].warnings == ()
    half = restore_aligned(crop, Restoring(brighten), blend=0.5, seed=3)
    assert half.faces[0].seed == 3
    expected = (crop.pixels.astype(float) + (crop.pixels + 0.15 * 255).clip(0, 255)) / 2
    assert np.abs(half.photo.pixels - expected).max() <= 1


def test_aligned_crop_of_another_size_is_resized_with_a_warning(astronaut):
    big = restore_aligned(aligned_crop(astronaut, 200), Restoring(identity))
    assert big.photo.pixels.shape == (NATIVE_PX, NATIVE_PX, 3)
    assert big.faces[0].warnings == ("aligned crop of 200x200 pixels resized to 160x160",)
    oblong = restore_aligned(Photo(astronaut.pixels[:100, :150]), Restoring(identity))
    assert "150x100" in oblong.faces[0].warnings[0]
    assert "not square" in oblong.faces[0].warnings[0]


def test_aligned_keeps_alpha_gray_and_depth(astronaut):
    gray = np.repeat(aligned_crop(astronaut, 200).pixels[..., :1], 3, 2).astype(np.uint16) * 257
    alpha = np.full((200, 200), 30000, np.uint16)

    def tint(faces, seeds):
        return faces + torch.tensor([0.4, 0.0, 0.0]).view(1, 3, 1, 1)

    result = restore_aligned(Photo(gray, alpha, grayscale=True), Restoring(tint)).photo
    assert result.pixels.dtype == np.uint16
    assert np.array_equal(result.pixels[..., 0], result.pixels[..., 2])
    assert np.array_equal(result.alpha, np.full((NATIVE_PX, NATIVE_PX), 30000, np.uint16))


def test_aligned_failure_leaves_the_pixels(astronaut):
    crop = aligned_crop(astronaut)
    result = restore_aligned(crop, Restoring(lambda faces, seeds: faces * float("nan")))
    assert result.faces[0].status == "failed"
    assert np.array_equal(result.photo.pixels, crop.pixels)
