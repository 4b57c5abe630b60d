"""Files that people may hand in, good and bad, each with what must become of it.

A case's picture is 64 x 64, the tiny model's native size, so that restoring it with blend 0 must give back its
pixels to the bit; flat pictures of other sizes must stay flat.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle
from typing import Any

import numpy as np
import pillow_heif
import tifffile
from PIL import Image, ImageCms
from PIL.Image import Transpose

SIDE = 64
FLAT = (200, 120, 40)


@dataclass(frozen=True)
class Case:
    """One input file.

    Attributes:
        name: file name.
        make: returns the file's bytes.
        pixels: what a restored picture must hold, (H, W, 3) or one flat colour (3,); None: it must be refused.
        alpha: its transparency, (H, W); None if it must have none.
        tolerance: largest mean difference from `pixels`, in levels; 0 means to the bit.
        refused: what the sentence must say; with `pixels` given as well, either end is right.
        profile: ICC profile the result must carry.
    """

    name: str
    make: Callable[[], bytes]
    pixels: np.ndarray | None = None
    alpha: np.ndarray | None = None
    tolerance: float = 0
    refused: str | None = None
    profile: bytes | None = None


def _picture() -> np.ndarray:
    """Smooth and in colour, no two corners alike, so that every turn and channel swap shows."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1)
    return np.stack([40 + 180 * x, 30 + 150 * y, 220 - 90 * (x * y)], 2).round().astype(np.uint8)


PICTURE = _picture()
GRAY = np.asarray(Image.fromarray(PICTURE).convert("L"))
BITS = np.where(GRAY > 110, 255, 0).astype(np.uint8)
OPACITY = np.repeat(np.arange(SIDE, dtype=np.uint8)[:, None] * 4, SIDE, axis=1)
DEEP = PICTURE.astype(np.uint16) * 257 - 77
DEEP_OPACITY = OPACITY.astype(np.uint16) * 257


def three(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


def image(mode: str) -> Image.Image:
    """The picture in a Pillow mode."""
    if mode == "1":
        return Image.fromarray(BITS).convert("1")
    if mode == "P":
        return Image.fromarray(PICTURE).quantize(64)
    if mode == "CMYK":
        ink = np.concatenate([255 - PICTURE, np.zeros((SIDE, SIDE, 1), np.uint8)], axis=2)
        return Image.frombytes("CMYK", (SIDE, SIDE), ink.tobytes())
    plain = {
        "L": GRAY,
        "LA": np.dstack([GRAY, OPACITY]),
        "RGB": PICTURE,
        "RGBA": np.dstack([PICTURE, OPACITY]),
    }
    return Image.fromarray(plain[mode])


def palette_colours() -> np.ndarray:
    """What the palette picture shows: each index looked up."""
    indexed = image("P")
    return np.array(indexed.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(indexed)]


def shown(mode: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours and opacity that a mode must come out with."""
    colours = {"1": three(BITS), "L": three(GRAY), "LA": three(GRAY), "P": palette_colours()}
    return colours.get(mode, PICTURE), OPACITY if mode in ("LA", "RGBA") else None


def save(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    if format == "HEIF":
        # Not through Pillow, whose plug-in flipnet itself must register.
        pillow_heif.from_pillow(picture).save(file, **{"quality": 95, "chroma": 444} | options)
    else:
        picture.save(file, format, **options)
    return file.getvalue()


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG put together by hand (PNG 1.2, section 3)."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        out += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return out


def deep_png(samples: np.ndarray, colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    rows = samples.reshape(SIDE, -1).astype(">u2").view(np.uint8)
    unfiltered = np.concatenate([np.zeros((SIDE, 1), np.uint8), rows], axis=1)
    return png(SIDE, SIDE, 16, colour_type, *chunks, (b"IDAT", zlib.compress(unfiltered.tobytes())))


# --------------------------------------------------------------------------------------- formats and modes

LOSSY = {"JPEG": 3.0, "WEBP": 3.0, "AVIF": 4.0, "HEIF": 4.0}
SUFFIX = {
    "JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp", "GIF": "gif", "AVIF": "avif",
    "HEIF": "heic",
}  # fmt: skip
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("L", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("1", "L", "P"),
    "AVIF": ("L", "RGB", "RGBA"),
    "HEIF": ("L", "RGB", "RGBA"),
}
QUALITY: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


def modes() -> Iterator[Case]:
    for format, names in MODES.items():
        for mode in names:
            colours, opacity = shown(mode)
            make = partial(lambda m, f: save(image(m), f, **QUALITY.get(f, {})), mode, format)
            yield Case(f"{mode}.{SUFFIX[format]}", make, colours, opacity, LOSSY.get(format, 0))


def variants() -> Iterator[Case]:
    """What the formats can do beside modes."""
    rgb, rgba, indexed = (partial(image, mode) for mode in ("RGB", "RGBA", "P"))
    clear_first = np.where(np.asarray(image("P")) == 0, 0, 255).astype(np.uint8)
    for suffix in ("png", "gif"):
        make = partial(lambda s: save(indexed(), s, transparency=0), suffix)
        yield Case(f"P-transparent.{suffix}", make, palette_colours(), clear_first)
    yield Case(
        "P-alpha-table.png",
        lambda: save(indexed(), "PNG", transparency=bytes([0, 255, 128] + [255] * 61)),
        palette_colours(),
        np.array([0, 255, 128] + [255] * 61, np.uint8)[np.asarray(image("P"))],
    )
    key = int(GRAY[5, 5])
    yield Case(
        "L-transparent.png",
        lambda: save(image("L"), "PNG", transparency=key),
        three(GRAY),
        np.where(key == GRAY, 0, 255).astype(np.uint8),
    )
    yield Case("progressive.jpg", lambda: save(rgb(), "JPEG", quality=95, progressive=True), PICTURE, None, 4)
    yield Case("sparse-colour.jpg", lambda: save(rgb(), "JPEG", quality=90, subsampling=2), PICTURE, None, 5)
    yield Case("lossless.webp", lambda: save(rgb(), "WEBP", lossless=True), PICTURE)
    yield Case(
        "lossless-alpha.webp", lambda: save(rgba(), "WEBP", lossless=True, exact=True), PICTURE, OPACITY
    )
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        make = partial(lambda c: save(rgb(), "TIFF", compression=c), name)
        yield Case(f"{name}.tiff", make, PICTURE)
    yield Case("group4.tif", lambda: save(image("1"), "TIFF", compression="group4"), three(BITS))
    yield Case(
        "jpeg-inside.tif", lambda: save(rgb(), "TIFF", compression="jpeg", quality=95), PICTURE, None, 4
    )
    yield Case("big-endian.tif", lambda: tiff(PICTURE, byteorder=">", photometric="rgb"), PICTURE)
    yield Case("tiled.tif", lambda: tiff(PICTURE, tile=(16, 16), photometric="rgb"), PICTURE)
    yield Case("bigtiff.tif", lambda: tiff(PICTURE, bigtiff=True, photometric="rgb"), PICTURE)
    planes = np.moveaxis(PICTURE, 2, 0)
    yield Case("planes.tif", lambda: tiff(planes, planarconfig="separate", photometric="rgb"), PICTURE)
    yield Case("top-down.bmp", _top_down_bmp, PICTURE)


def _top_down_bmp() -> bytes:
    data = bytearray(save(image("RGB").transpose(Transpose.FLIP_TOP_BOTTOM), "BMP"))
    data[22:26] = struct.pack("<i", -SIDE)  # a negative height: the first row is the top one
    return bytes(data)


def deep() -> Iterator[Case]:
    """16 bit, which must stay 16 bit, and sample types without a white, which must be refused."""
    gray, both = DEEP[..., 1], np.dstack([DEEP, DEEP_OPACITY])
    yield Case("I16.png", lambda: deep_png(gray, 0), three(gray))
    yield Case("LA16.png", lambda: deep_png(np.dstack([gray, DEEP_OPACITY]), 4), three(gray), DEEP_OPACITY)
    yield Case("RGB16.png", lambda: deep_png(DEEP, 2), DEEP)
    yield Case("RGBA16.png", lambda: deep_png(both, 6), DEEP, DEEP_OPACITY)
    key = gray[3, 3]
    clear = np.where(gray == key, 0, 65535).astype(np.uint16)
    yield Case(
        "I16-transparent.png",
        lambda: deep_png(gray, 0, (b"tRNS", struct.pack(">H", key))),
        three(gray),
        clear,
    )
    colour = DEEP[3, 3]
    clear = np.where((colour == DEEP).all(2), 0, 65535).astype(np.uint16)
    yield Case(
        "RGB16-transparent.png",
        lambda: deep_png(DEEP, 2, (b"tRNS", struct.pack(">3H", *colour))),
        DEEP,
        clear,
    )
    yield Case("I16.tif", lambda: tiff(gray, photometric="minisblack"), three(gray))
    yield Case("RGB16.tif", lambda: tiff(DEEP, photometric="rgb"), DEEP)
    yield Case("RGB16-be.tif", lambda: tiff(DEEP, photometric="rgb", byteorder=">"), DEEP)
    yield Case(
        "RGB16-tiles.tif", lambda: tiff(DEEP, photometric="rgb", tile=(32, 32), compression="zlib"), DEEP
    )
    yield Case(
        "RGBA16.tif", lambda: tiff(both, photometric="rgb", extrasamples=["unassalpha"]), DEEP, DEEP_OPACITY
    )
    for kind in ("float16", "float32", "float64", "uint32", "int32", "int16", "complex64"):
        make = partial(lambda k: tiff(GRAY.astype(k), photometric="minisblack"), kind)
        yield Case(f"{kind}.tif", make, refused="no fixed white|not supported|not a picture|damaged")
    make = lambda: tiff(PICTURE.astype(np.float32) / 255, photometric="rgb")  # noqa: E731
    yield Case("float-colour.tif", make, refused="no fixed white|not supported|not a picture|damaged")


def frames() -> Iterator[Case]:
    """Several pictures in one file: the first one counts."""
    others = [Image.new("RGB", (SIDE, SIDE), c) for c in ("red", "blue")]
    for format in ("PNG", "GIF", "WEBP", "TIFF", "AVIF", "MPO"):
        first = image("P") if format == "GIF" else image("RGB")
        colours = palette_colours() if format == "GIF" else PICTURE
        options = {"lossless": True} if format == "WEBP" else QUALITY.get(format, {})
        make = partial(
            lambda p, f, o: save(p, f, save_all=True, append_images=others, **o), first, format, options
        )
        tolerance = {"AVIF": 4, "MPO": 6}.get(format, 0)
        yield Case(f"frames.{SUFFIX.get(format, 'jpg')}", make, colours, None, tolerance)


# ------------------------------------------------------------------------------------------------ metadata


def exif_block(orientation: object) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    return exif


STORED_AS = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_270,
}  # fmt: skip
"""How a picture lies in a file with an Exif orientation (Exif 2.3, tag 274); a 6 is turned clockwise to view."""


def orientations() -> Iterator[Case]:
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        for orientation in range(1, 9):
            yield Case(
                f"turned-{orientation}.{SUFFIX[format]}",
                partial(_turned, format, orientation),
                PICTURE,
                None,
                LOSSY.get(format, 0),
            )
    for value in (0, 9, 65535):
        make = partial(lambda v: save(image("RGB"), "PNG", exif=exif_block(v)), value)
        yield Case(f"turned-{value}.png", make, PICTURE)


def _turned(format: str, orientation: int) -> bytes:
    stored = image("RGB")
    if orientation in STORED_AS:
        stored = stored.transpose(STORED_AS[orientation])
    exif = exif_block(orientation)
    return save(stored, format, exif=exif.tobytes() if format == "HEIF" else exif, **QUALITY.get(format, {}))


@cache
def wide_gamut_profile() -> bytes:
    """Display P3: LittleCMS's sRGB profile with P3's D50-adapted primaries (SMPTE EG 432-1) put in."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for entry in range(132, 132 + 12 * struct.unpack_from(">I", data, 128)[0], 12):
        if (tag := bytes(data[entry : entry + 4])) in primaries:
            offset = struct.unpack_from(">I", data, entry + 4)[0]
            struct.pack_into(">3i", data, offset + 8, *(round(v * 65536) for v in primaries[tag]))
    return bytes(data)


def metadata() -> Iterator[Case]:
    profile = wide_gamut_profile()
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        make = partial(
            lambda f: save(image("RGB"), f, icc_profile=wide_gamut_profile(), **QUALITY.get(f, {})), format
        )
        yield Case(f"p3.{SUFFIX[format]}", make, PICTURE, None, LOSSY.get(format, 0), profile=profile)
    make = lambda: save(image("L"), "PNG", icc_profile=wide_gamut_profile())  # noqa: E731
    yield Case("p3-on-gray.png", make, three(GRAY), profile=profile)
    make = lambda: deep_png(DEEP, 2, (b"iCCP", b"p3\0\0" + zlib.compress(wide_gamut_profile())))  # noqa: E731
    yield Case("p3-16-bit.png", make, DEEP, profile=profile)
    junk = b"no profile " * 20
    yield Case("junk-profile.png", lambda: save(image("RGB"), "PNG", icc_profile=junk), PICTURE)
    yield Case(
        "junk-profile.jpg", lambda: save(image("RGB"), "JPEG", quality=95, icc_profile=junk), PICTURE, None, 4
    )
    make = lambda: save(image("CMYK"), "JPEG", icc_profile=junk)  # noqa: E731
    yield Case("junk-profile-ink.jpg", make, refused="damaged|profile")
    make = lambda: save(image("CMYK"), "TIFF", icc_profile=wide_gamut_profile())  # noqa: E731
    yield Case("wrong-space-ink.tif", make, refused="profile")
    rng = np.random.default_rng(3)
    for index in range(6):
        block = b"Exif\0\0" + (b"II*\0\x08\0\0\0" if index % 2 else b"") + rng.bytes(60)
        make = partial(lambda b: save(image("RGB"), "JPEG", quality=95, subsampling=0, exif=b), block)
        yield Case(f"junk-exif-{index}.jpg", make, PICTURE, None, 3)
    loop = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
    yield Case("exif-loop.png", lambda: save(image("RGB"), "PNG", exif=loop), PICTURE)
    make = lambda: save(image("RGB"), "PNG", exif=exif_block(1).tobytes() + bytes(100_000))  # noqa: E731
    yield Case("long-exif.png", make, PICTURE)


# --------------------------------------------------------------------------------------------------- sizes

SIZES = (
    (1, 1),
    (1, SIDE),
    (SIDE, 1),
    (2, 2),
    (3, 5),
    (63, 65),
    (7, 2000),
    (1000, 3),
    (20_000, 10),
    (10, 20_000),
)


def sizes() -> Iterator[Case]:
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"):
        for size in SIZES if format in ("JPEG", "PNG") else SIZES[::3]:
            if format == "WEBP" and max(size) > 16383:  # WebP ends there
                continue
            make = partial(lambda s, f: save(Image.new("RGB", s, FLAT), f), size, format)
            tolerance = {"JPEG": 4, "WEBP": 5}.get(format, 1)
            yield Case(f"{size[0]}x{size[1]}.{SUFFIX[format]}", make, np.array(FLAT), None, tolerance)


# ------------------------------------------------------------------------------------------------- damage


@cache
def whole_files() -> dict[str, tuple[bytes, np.ndarray, float]]:
    """One good file of each kind: bytes, pixels, tolerance."""
    rgb = image("RGB")
    return {
        "a.jpg": (save(rgb, "JPEG", quality=95, subsampling=0), PICTURE, 3),
        "progressive.jpg": (save(rgb, "JPEG", quality=95, subsampling=0, progressive=True), PICTURE, 3),
        "a.png": (save(rgb, "PNG"), PICTURE, 0),
        "deep.png": (deep_png(DEEP, 2), DEEP, 0),
        "a.webp": (save(rgb, "WEBP", quality=95), PICTURE, 3),
        "lossless.webp": (save(rgb, "WEBP", lossless=True), PICTURE, 0),
        "a.tif": (save(rgb, "TIFF"), PICTURE, 0),
        "lzw.tif": (save(rgb, "TIFF", compression="tiff_lzw"), PICTURE, 0),
        "deep.tif": (tiff(DEEP, photometric="rgb"), DEEP, 0),
        "deep-zip.tif": (tiff(DEEP, photometric="rgb", compression="zlib"), DEEP, 0),
        "a.bmp": (save(rgb, "BMP"), PICTURE, 0),
        "a.gif": (save(image("P"), "GIF"), palette_colours(), 0),
        "a.avif": (save(rgb, "AVIF", **QUALITY["AVIF"]), PICTURE, 4),
        "a.heic": (save(rgb, "HEIF"), PICTURE, 4),
    }


def truncated() -> Iterator[Case]:
    """Cut off at every tenth: refused, unless the picture itself is still whole."""
    for name, (data, pixels, tolerance) in whole_files().items():
        for tenth in range(1, 10):
            make = partial(lambda d, t: d[: len(d) * t // 10], data, tenth)
            yield Case(
                f"cut-{tenth}-{name}", make, pixels, None, tolerance, "damaged|truncated|not a picture|empty"
            )


def flipped() -> Iterator[Case]:
    """Random bytes overwritten: some picture or one sentence, nothing else can be asked."""
    rng = np.random.default_rng(11)
    for name, (data, _, _) in whole_files().items():
        for index in range(4):
            damaged = bytearray(data)
            for position in rng.integers(0, len(data) if index % 2 else min(len(data), 120), 3):
                damaged[position] = rng.integers(256)
            yield Case(f"flipped-{index}-{name}", partial(bytes, damaged), refused=".")


def empty_and_foreign() -> Iterator[Case]:
    for suffix in SUFFIX.values():
        yield Case(f"empty.{suffix}", bytes, refused="empty")
        yield Case(f"noise.{suffix}", lambda: np.random.default_rng(5).bytes(3000), refused="not a picture")
    foreign = {
        "page.jpg": b"<!doctype html><title>404</title>",
        "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "archive.jpg": b"PK\x03\x04" + bytes(200),
        "program.png": b"\x7fELF" + bytes(200),
        "pickle.tif": b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "paper.jpg": b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n",
        # Pillow would hand this to Ghostscript.
        "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n",
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n",
        "text.webp": b"hello",
    }
    for name, data in foreign.items():
        yield Case(name, partial(bytes, data), refused="not a picture")
    for format, suffix in SUFFIX.items():
        make = partial(lambda f: save(image("RGB"), f)[:12], format)
        yield Case(f"magic-only.{suffix}", make, refused="damaged|truncated|not a picture")


def wrong_suffix() -> Iterator[Case]:
    """The content counts, not the name."""
    suffixes = cycle(SUFFIX.values())
    for name, (data, pixels, tolerance) in whole_files().items():
        yield Case(f"really-{name}.{next(suffixes)}", partial(bytes, data), pixels, None, tolerance)


# -------------------------------------------------------------------------------------------------- bombs


def _jpeg_size(width: int, height: int) -> bytes:
    data = bytearray(save(image("RGB"), "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _gif_size(width: int, height: int) -> bytes:
    data = bytearray(save(image("P"), "GIF"))
    start = data.index(b"\x2c", 13 + 3 * 64)
    for position in (6, start + 5):
        data[position : position + 4] = struct.pack("<HH", width, height)
    return bytes(data)


def _bmp_size(width: int, height: int) -> bytes:
    data = bytearray(save(image("RGB"), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def _tiff_tags(data: bytes, **values: int) -> bytes:
    """Change numbers of a little-endian TIFF's first directory; the keys are "t256" and so on."""
    out = bytearray(data)
    start = struct.unpack_from("<I", data, 4)[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        tag = struct.unpack_from("<H", data, entry)[0]
        if f"t{tag}" in values:
            struct.pack_into("<HII", out, entry + 2, 4, 1, values[f"t{tag}"])
    return bytes(out)


def bombs() -> Iterator[Case]:
    large, no_picture = "too large", "damaged|not a picture|truncated|too large"
    yield Case(
        "bomb.png", lambda: png(60_000, 60_000, 8, 2, (b"IDAT", zlib.compress(bytes(10_000)))), refused=large
    )
    yield Case("bomb16.png", lambda: png(60_000, 60_000, 16, 6, (b"IDAT", b"")), refused=large)
    yield Case("just-over.png", lambda: png(20_000, 9_000, 1, 0, (b"IDAT", b"")), refused=large)
    yield Case("max.png", lambda: png(2**31 - 1, 2**31 - 1, 1, 0, (b"IDAT", b"")), refused=large)
    yield Case("bomb.jpg", lambda: _jpeg_size(65_500, 65_500), refused=large)
    yield Case("bomb.gif", lambda: _gif_size(65_535, 65_535), refused=large)
    yield Case("bomb.bmp", lambda: _bmp_size(100_000, 100_000), refused=large)
    small = save(image("RGB"), "TIFF")
    deep = tiff(DEEP, photometric="rgb")
    yield Case("bomb.tif", lambda: _tiff_tags(small, t256=200_000, t257=200_000), refused=large)
    yield Case("bomb16.tif", lambda: _tiff_tags(deep, t256=200_000, t257=200_000), refused=large)
    tiles = tiff(DEEP, photometric="rgb", tile=(32, 32))
    yield Case("huge-tiles.tif", lambda: _tiff_tags(tiles, t322=2**20, t323=2**20), refused=no_picture)
    yield Case("many-samples.tif", lambda: _tiff_tags(deep, t277=60_000), refused=no_picture)
    yield Case("huge-strip.tif", lambda: _tiff_tags(deep, t279=2**31 - 1), DEEP, refused=no_picture)
    text = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 1)
    rows = (b"IDAT", zlib.compress(b"\0\x50" * 1))
    yield Case("text-bomb.png", lambda: png(1, 1, 8, 0, (b"zTXt", text), rows), refused=no_picture)
    yield Case(
        "profile-bomb.png", lambda: png(1, 1, 8, 0, (b"iCCP", b"x\0\0" + text[9:]), rows), refused=no_picture
    )
    for size in ((0, 0), (0, 5), (5, 0)):
        name = f"zero-{size[0]}x{size[1]}"
        yield Case(
            f"{name}.png", partial(png, *size, 8, 2, (b"IDAT", zlib.compress(b"\0"))), refused=no_picture
        )
        yield Case(f"{name}.jpg", partial(_jpeg_size, *size), refused=no_picture)
        yield Case(f"{name}.gif", partial(_gif_size, *size), refused=no_picture)
        yield Case(f"{name}.bmp", partial(_bmp_size, *size), refused=no_picture)
    yield Case("negative.bmp", lambda: _bmp_size(-5, 5), refused=no_picture)


# -------------------------------------------------------------------------------------------------- names

NAMES: tuple[bytes, ...] = tuple(
    name if isinstance(name, bytes) else name.encode()
    for name in (
        "with space.png", " leading.png", "trailing .png", "new\nline.png", "tab\there.png", "bell\a.png",
        "\x1b[31mred\x1b[0m.png", "\x7f.png", "👵🏽 birthday 🎂.png", "日本語.png", "e\u0301.png", "é.png",
        "\u202egnp.exe.png", "zero\u200bwidth.png", b"\xff\xfe.png", b"latin-\xe9.png", b"n" * 251 + b".png",
        "👵" * 62 + "end.png", "-dash.png", "--output.png", "$(touch pwned).png", "`id`.png", "a;b|c&d.png",
        "quote'\".png", "%s%n%d.png", "{0}.png", "a..png", "*.png", "?.png", "[x].png", "back\\slash.png",
        "UPPER.PNG", "MiXed.Png", "double.tar.png", "con.png", "~.png", "#.png", "<b>[bold].png", "a.png",
        "a .png", "a.png.png", "a.jpg.png",
    )
)  # fmt: skip


def names() -> Iterator[Case]:
    for name in NAMES:
        yield Case(name.decode("utf-8", "surrogateescape"), lambda: save(image("RGB"), "PNG"), PICTURE)


GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "modes": modes,
    "variants": variants,
    "deep": deep,
    "frames": frames,
    "orientations": orientations,
    "metadata": metadata,
    "sizes": sizes,
    "truncated": truncated,
    "flipped": flipped,
    "empty-and-foreign": empty_and_foreign,
    "wrong-suffix": wrong_suffix,
    "bombs": bombs,
    "names": names,
}


def cases(group: str) -> list[Case]:
    found = list(GROUPS[group]())
    assert len({case.name for case in found}) == len(found)
    return found
