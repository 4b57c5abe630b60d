"""Files in and out: depth, alpha, colour, metadata, orientation, damage, atomic writes."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, ImageOps

from flipnet.images import (
    ImageError,
    Photo,
    faces_to_tensor,
    find_images,
    output_format,
    read_photo,
    resize,
    tensor_to_uint8,
    to_8_bit,
    write_photo,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bytes(width, height, depth, colour_type, rows):
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows))
    ) + png_chunk(b"IEND", b"")


def make_exif(orientation=1):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({0x829A: 0.005, 0xA002: 4, 0xA003: 3})
    exif.get_ifd(0x8825).update({1: "N"})
    return exif


# ----------------------------------------------------------------------------------------------- 16 bit


def test_16_bit_png_bytes_written_by_hand_are_read_exactly(tmp_path):
    # Row 1 unfiltered, row 2 filter "Up" (PNG 1.2, section 6): big-endian 16-bit RGB, two pixels wide.
    first = struct.pack(">6H", 0, 1, 256, 65535, 257, 4660)
    up = bytes([0, 1] * 6)
    (tmp_path / "a.png").write_bytes(png_bytes(2, 2, 16, 2, b"\0" + first + b"\2" + up))
    photo = read_photo(tmp_path / "a.png")
    assert photo.pixels.dtype == np.uint16
    # Up adds byte by byte without carry: low byte 0xFF + 1 = 0x00 beside high byte 0xFF.
    assert photo.pixels.tolist() == [[[0, 1, 256], [65535, 257, 4660]], [[1, 2, 257], [65280, 258, 4661]]]
    assert photo.alpha is None
    assert not photo.grayscale


def test_16_bit_gray_and_alpha_png(tmp_path):
    row = struct.pack(">4H", 500, 65535, 40000, 1)
    (tmp_path / "la.png").write_bytes(png_bytes(2, 1, 16, 4, b"\0" + row))
    photo = read_photo(tmp_path / "la.png")
    assert photo.grayscale
    assert photo.pixels[0, :, 1].tolist() == [500, 40000]
    assert photo.alpha.tolist() == [[65535, 1]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw", "predictor": True},
        {"compression": "zlib", "byteorder": ">"},
        {"planarconfig": "separate"},
    ],
    ids=["plain", "lzw", "big-endian", "planar"],
)
def test_16_bit_tiff_of_another_writer_is_read_exactly(tmp_path, rng, options):
    pixels = rng.integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    stored = np.moveaxis(pixels, 2, 0) if "planarconfig" in options else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    photo = read_photo(tmp_path / "a.tif")
    assert photo.pixels.dtype == np.uint16
    assert np.array_equal(photo.pixels, pixels)


def test_16_bit_tiff_with_white_zero_is_inverted(tmp_path):
    samples = np.array([[0, 1000]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite")
    assert read_photo(tmp_path / "a.tif").pixels[..., 0].tolist() == [[65535, 64535]]


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_round_trip_keeps_every_bit_and_metadata(tmp_path, rng, suffix, gray, alpha):
    pixels = rng.integers(0, 65536, (6, 5, 1 if gray else 3), dtype=np.uint16)
    pixels = np.repeat(pixels, 3, axis=2) if gray else pixels
    opacity = rng.integers(0, 65536, (6, 5), dtype=np.uint16) if alpha else None
    profile = None if gray else SRGB
    path = tmp_path / f"é 写真{suffix}"
    write_photo(path, Photo(pixels, opacity, gray, make_exif().tobytes(), profile, "png"))
    back = read_photo(path)
    assert np.array_equal(back.pixels, pixels)
    assert back.grayscale == gray
    assert (back.alpha is None) == (not alpha)
    assert not alpha or np.array_equal(back.alpha, opacity)
    with Image.open(path) as image:  # an independent reader sees the metadata, too
        exif = image.getexif()
        assert exif[0x010F] == "Maker"
        assert exif.get_ifd(0x8769)[0x829A] == pytest.approx(0.005)
        assert exif.get_ifd(0x8769)[0xA002] == 5
        assert exif.get_ifd(0x8825)[1] == "N"
        assert image.info.get("icc_profile") == profile
        assert image.size == (5, 6)


def test_16_bit_files_are_understood_by_other_readers(tmp_path, rng):
    pixels = rng.integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    for suffix in (".png", ".tif"):
        write_photo(tmp_path / f"a{suffix}", Photo(pixels))
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), pixels)
    # Pillow reads the upper byte of 16-bit colour.
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), (pixels >> 8).astype(np.uint8))


def test_to_8_bit_rounds_every_value_to_nearest():
    values = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(to_8_bit(values), np.rint(values.astype(np.float64) * 255 / 65535).astype(np.uint8))


# ------------------------------------------------------------------------------------ modes, alpha, colour


def test_palette_with_transparency_keeps_alpha(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.save(tmp_path / "p.png", transparency=0)
    photo = read_photo(tmp_path / "p.png")
    assert photo.pixels.tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert photo.alpha.tolist() == [[0, 255]]


@pytest.mark.parametrize(("mode", "suffix"), [("L", ".jpg"), ("1", ".png"), ("L", ".gif"), ("LA", ".png")])
def test_gray_modes_come_back_gray(tmp_path, mode, suffix):
    Image.linear_gradient("L").convert(mode).save(tmp_path / f"g{suffix}")
    photo = read_photo(tmp_path / f"g{suffix}")
    assert photo.grayscale
    write_photo(tmp_path / "out.png", photo)
    with Image.open(tmp_path / "out.png") as image:
        assert image.mode == ("LA" if mode == "LA" else "L")


def test_gray_pixels_under_an_rgb_profile_stay_three_channels(tmp_path):
    gray = np.full((4, 4, 3), 90, np.uint8)
    write_photo(tmp_path / "a.png", Photo(gray, grayscale=True, icc_profile=SRGB))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGB"
        assert image.info["icc_profile"] == SRGB


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    # Pure paper and pure black ink are unambiguous under any formula.
    image = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 16, 8))
    image.save(tmp_path / "c.jpg", quality=100)
    photo = read_photo(tmp_path / "c.jpg")
    assert photo.icc_profile is None
    assert photo.pixels[:7].max() <= 2
    assert photo.pixels[9:].min() >= 253


def test_lab_tiff_becomes_srgb_and_says_so(tmp_path):
    # CIE L* 50, a* b* 0 (stored 128 each) is sRGB 119 (IEC 61966-2-1: 18.4 % luminance, encoded).
    Image.new("LAB", (4, 4), (128, 128, 128)).save(tmp_path / "lab.tif")
    photo = read_photo(tmp_path / "lab.tif")
    assert np.abs(photo.pixels.astype(int) - 119).max() <= 2
    with Image.open(tmp_path / "lab.tif") as image:
        assert image.mode == "LAB"
    assert photo.icc_profile[16:20] == b"RGB "


def test_alpha_is_kept_and_jpeg_refuses_transparency(tmp_path, rng):
    pixels = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    alpha = rng.integers(0, 256, (5, 6), dtype=np.uint8)
    write_photo(tmp_path / "a.png", Photo(pixels, alpha))
    back = read_photo(tmp_path / "a.png")
    assert np.array_equal(back.pixels, pixels)
    assert np.array_equal(back.alpha, alpha)
    with pytest.raises(ImageError, match=r"a\.jpg: JPEG cannot hold"):
        write_photo(tmp_path / "a.jpg", back)
    assert not (tmp_path / "a.jpg").exists()
    write_photo(tmp_path / "a.jpg", Photo(pixels, np.full_like(alpha, 255)))
    assert read_photo(tmp_path / "a.jpg").alpha is None


# ------------------------------------------------------------------------------- metadata and orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_orientation_is_applied_and_reset(tmp_path, rng, orientation, deep):
    path = tmp_path / "a.png"
    pixels = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    exif = make_exif(orientation)
    Image.fromarray(pixels).save(path, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    if deep:
        write_photo(path, Photo(pixels.astype(np.uint16) * 257, exif=exif.tobytes()))
    photo = read_photo(path)
    assert np.array_equal(to_8_bit(photo.pixels), upright)
    stored = Image.Exif()
    stored.load(photo.exif)
    assert stored[0x0112] == 1
    assert stored[0x010F] == "Maker"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_and_profile_survive(tmp_path, suffix):
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[..., 0] = 200
    write_photo(tmp_path / f"a{suffix}", Photo(pixels, exif=make_exif().tobytes(), icc_profile=SRGB))
    photo = read_photo(tmp_path / f"a{suffix}")
    assert photo.icc_profile == SRGB
    stored = Image.Exif()
    stored.load(photo.exif)
    assert stored[0x010F] == "Maker"
    assert stored.get_ifd(0x8825)[1] == "N"
    assert (stored.get_ifd(0x8769)[0xA002], stored.get_ifd(0x8769)[0xA003]) == (40, 30)
    assert 273 not in stored  # strip offsets of a TIFF are no business of the next file
    assert photo.format == {".jpg": "jpeg", ".tif": "tiff"}.get(suffix, suffix[1:])


# ------------------------------------------------------------------------------------------ damaged files


def test_files_that_are_no_pictures_say_so(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    for name, cause in [
        ("none.jpg", "no such file"),
        ("empty.jpg", "is empty"),
        ("text.jpg", "not a picture"),
        ("folder.png", "cannot be read"),
    ]:
        with pytest.raises(ImageError, match=rf"{name}: .*{cause}"):
            read_photo(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "deep.png", "deep.tif"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_name_the_file(tmp_path, rng, name, share):
    dtype, white = (np.uint16, 65536) if "deep" in name else (np.uint8, 256)
    path = tmp_path / name
    write_photo(path, Photo(rng.integers(0, white, (64, 64, 3), dtype=dtype)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=name):
        read_photo(path)


def test_heic_without_its_extra_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(ImageError, match=r'a\.heic: HEIC pictures need more: pip install "flipnet\[heic\]"'):
        read_photo(tmp_path / "a.heic")


def test_a_fresh_process_knows_formats_from_content_alone_and_loads_no_others(tmp_path):
    # Other tests have loaded plug-ins already, and Pillow looks at suffixes to load more.
    for number, name in enumerate(("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")):
        Image.new("RGB", (8, 8)).save(tmp_path / str(number), name)
    code = (
        "import sys; from pathlib import Path; from flipnet.images import read_photo; "
        f"print([read_photo(Path({str(tmp_path)!r}, str(n))).format for n in range(7)], "
        "'PIL.EpsImagePlugin' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['jpeg', 'png', 'webp', 'tiff', 'bmp', 'gif', 'avif'] False"


def test_avif_is_read_and_becomes_png(tmp_path):
    Image.new("RGB", (20, 10), (200, 100, 50)).save(tmp_path / "a.avif", quality=100)
    photo = read_photo(tmp_path / "a.avif")
    assert photo.pixels.shape == (10, 20, 3)
    assert np.abs(photo.pixels.astype(int) - (200, 100, 50)).max() <= 3
    assert output_format(photo) == "png"
    assert [path.name for path in find_images(tmp_path)] == ["a.avif"]


def test_formats_beyond_the_list_are_not_even_tried(tmp_path):
    (tmp_path / "a.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png", format="PPM")
    for name in ("a.jpg", "b.png"):
        with pytest.raises(ImageError, match=f"{name}: not a picture, or of a format that is not supported"):
            read_photo(tmp_path / name)


def test_damaged_exif_costs_the_photo_nothing_else(tmp_path, rng):
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\0\0" + bytes(range(60)))
    with pytest.warns(UserWarning, match=r"a\.png: damaged Exif data are left out"):
        photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.pixels, pixels)
    assert photo.exif is None


def test_decompression_bomb_is_refused(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_bytes(60000, 60000, 16, 2, b"\0"))
    with pytest.raises(ImageError, match=r"bomb\.png: .*too large"):
        read_photo(tmp_path / "bomb.png")


# ------------------------------------------------------------------------------------------------ writing


def test_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(b"old")
    with pytest.raises(ImageError, match=r"a\.webp: cannot be written"):
        write_photo(path, Photo(np.zeros((1, 16384, 3), np.uint8)))  # WebP ends at 16383 pixels
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder_and_bad_options(tmp_path):
    photo = Photo(np.zeros((2, 2, 3), np.uint8), format="gif")
    with pytest.raises(ImageError, match="cannot be written"):
        write_photo(tmp_path / "no" / "a.png", photo)
    with pytest.raises(ImageError, match="'gif' cannot be written"):
        write_photo(tmp_path / "a.gif", photo)
    with pytest.raises(ImageError, match="quality 0"):
        write_photo(tmp_path / "a.jpg", photo, quality=0)
    assert output_format(photo) == "png"
    assert output_format(photo, Path("x.TIF")) == "tiff"
    assert output_format(photo, Path("x.png"), "jpg") == "jpeg"


def test_find_images_is_recursive_sorted_and_ignores_case(tmp_path):
    for name in ("b.JPG", "a.webp", "sub/c.TiFf", "notes.txt", ".hidden.png", "sub/.x.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in find_images(tmp_path)] == ["a.webp", "b.JPG", "c.TiFf"]
    assert find_images(tmp_path / "b.JPG") == [tmp_path / "b.JPG"]
    with pytest.raises(ImageError, match="no such file or folder"):
        find_images(tmp_path / "none")


# -------------------------------------------------------------------------------- conversions and resizing


def test_convention_tensor_range_and_channel_order():
    face = np.zeros((2, 2, 3), np.uint8)
    face[0, 1] = (255, 0, 51)
    tensor = faces_to_tensor(face)
    assert tensor.shape == (1, 3, 2, 2)
    assert tensor.dtype == torch.float32
    assert tensor[0, :, 0, 1].tolist() == pytest.approx([1.0, -1.0, -0.6])


def test_tensor_round_trip_is_exact_and_bad_values_raise():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    assert np.array_equal(tensor_to_uint8(faces_to_tensor(values)), values)
    assert tensor_to_uint8(torch.full((1, 3, 1, 1), 7.0)).max() == 255
    with pytest.raises(ValueError, match="finite"):
        tensor_to_uint8(torch.full((1, 3, 1, 1), float("nan")))
    with pytest.raises(ValueError, match="uint8"):
        faces_to_tensor(values.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_convention_resize_keeps_edges_in_place(dtype):
    # A linear ramp, enlarged, is the ramp at (x + 0.5) / 2 - 0.5.
    ramp = np.arange(20, dtype=dtype) * 10
    image = np.repeat(np.tile(ramp, (4, 1))[..., None], 3, axis=2)
    big = resize(image, (40, 8))
    assert big.shape == (8, 40, 3)
    assert big.dtype == dtype
    expected = ((np.arange(40) + 0.5) / 2 - 0.5) * 10
    assert np.abs(big[4, 8:-8, 1].astype(float) - expected[8:-8]).max() <= 1
    assert resize(image[..., 0], (10, 2)).shape == (2, 10)


def test_resize_of_16_bit_uses_the_whole_depth():
    image = np.full((8, 8, 3), 31999, np.uint16)
    assert np.array_equal(resize(image, (5, 3)), np.full((3, 5, 3), 31999, np.uint16))
