"""Images in and out: the only place that decodes, encodes, or changes type and channel order.

A `Photo` is what a file holds, made plain: upright RGB pixels at the file's own depth, transparency beside
them, and the metadata that must come out again. Everything behind this module sees RGB, (H, W, 3) arrays and
(B, 3, H, W) tensors only.
"""

from __future__ import annotations

import math
import os
import secrets
import stat
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from flipnet import deep_images, xmp
from flipnet.types import FlipnetError

WRITABLE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})
"""Suffixes, lower case, of what `write_photo` writes."""

SUPPORTED_SUFFIXES = WRITABLE_SUFFIXES | {".bmp", ".gif", ".avif", ".heic", ".heif"}
"""Suffixes, lower case, that `find_images` collects from a folder."""

MAX_PIXELS = 178_956_970
"""Largest photo read, in pixels; Pillow's own limit against decompression bombs."""

WRITABLE_FORMATS = ("png", "jpeg", "webp", "tiff")
"""Formats `write_photo` writes. Our choice: GIF (256 colours), BMP (no metadata), AVIF and HEIC (slow to
encode well) are read only."""

# Of all that Pillow knows. Our choice: what cameras, scanners and the web produce; among the rest is PostScript,
# which Pillow hands to Ghostscript.
_READ_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
# Major brands of HEIC files (ISO/IEC 23008-12, annex B), the bytes after "ftyp".
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# What decoders raise over damaged files, as fuzzing shows; want of memory is not among it.
_DECODE_ERRORS: tuple[type[Exception], ...] = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, ArithmeticError, AttributeError),
    *(RuntimeError, struct.error, zlib.error),
    *deep_images.DECODE_ERRORS,
)
# TIFF tags that describe how the file's pixels are stored (or hold layers); untrue of any other file.
_STORAGE_TAGS = frozenset(
    (*range(254, 269), 273, *range(277, 282), 284, *range(288, 294), 317, *range(320, 348), *range(512, 533))
) | {34377, 34675, 37724}
# XMP and IPTC blocks that a TIFF keeps among its tags.
_BLOCK_TAGS = frozenset({700, 33723})
_IN_MEMORY = Path("the image")
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003  # Exif PixelXDimension and PixelYDimension


class ImageError(FlipnetError):
    """A picture file cannot be read or written; the message names the file and the cause."""


@dataclass(frozen=True)
class Photo:
    """One picture, upright, at its file's own bit depth.

    Attributes:
        pixels: uint8 or uint16 (H, W, 3), RGB in the colour space `icc_profile` names (sRGB if None).
        alpha: (H, W), the pixels' dtype, 0 = transparent, not premultiplied; None if the file has none.
        grayscale: the three channels are equal at every pixel.
        exif: Exif block starting with b"Exif\\0\\0", orientation 1, no thumbnail; None if absent.
        icc_profile: ICC profile of `pixels`, "GRAY" or "RGB " space; None if absent.
        format: the file's format: "png", "jpeg", "webp", "tiff", "bmp", "gif", ...
        xmp: XMP packet without orientation and thumbnails (UTF-8); None if absent.
        text: (key, value) of a PNG's text chunks, XMP and packed profiles left out.
        dpi: horizontal and vertical resolution in pixels per inch; None if the file states none.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grayscale: bool = False
    exif: bytes | None = None
    icc_profile: bytes | None = None
    format: str = "png"
    xmp: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    dpi: tuple[float, float] | None = None


def find_images(path: Path) -> list[Path]:
    """List the picture files of a folder, recursively, sorted; a file is returned as it is.

    Only names in `SUPPORTED_SUFFIXES` (any case) that do not start with a dot are listed.

    Raises:
        ImageError: `path` does not exist.
    """
    # Unlike Path's methods, these two answer "no" to every path that cannot be followed.
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        raise ImageError(f"{path}: no such file or folder")
    found = (
        p for p in path.rglob("*") if p.suffix.lower() in SUPPORTED_SUFFIXES and not p.name.startswith(".")
    )
    return sorted(p for p in found if os.path.isfile(p))


# ---------------------------------------------------------------------------------------------- reading


def read_photo(path: Path) -> Photo:
    """Read a picture file: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, and HEIC where pillow-heif is installed.

    The content decides, not the suffix. The first frame of an animation or first page is taken. Exif
    orientation is applied. 16-bit gray and colour PNG and TIFF stay uint16, all else becomes uint8. CMYK and
    Lab are converted to sRGB through the file's profile (plain formula if it has none); RGB and gray keep their
    values and their profile.

    Raises:
        ImageError: missing, empty, damaged, truncated, not a picture, larger than `MAX_PIXELS`, of a sample
            type without a fixed white (floating point, 32-bit), or HEIC without pillow-heif.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            # A pipe would be waited for, and a device has no end.
            raise ImageError(f"{path}: neither a file nor a folder")
        if state.st_size == 0:
            raise ImageError(f"{path}: the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_known_formats(path)) as image:
                return _decode(image, path)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except (PermissionError, IsADirectoryError) as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not a picture, or of a format that is not supported") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: more than {MAX_PIXELS} pixels, too large to be read") from error
    except _DECODE_ERRORS as error:
        raise ImageError(f"{path}: the picture is damaged or truncated ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    """Return an error's message without line breaks, or its kind if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _known_formats(path: Path) -> list[str]:
    """The names of `_READ_FORMATS` that Pillow can open; HEIC is taught to it when a file needs it."""
    Image.init()
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:] in _HEIC_BRANDS and "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError as error:
            raise ImageError(f'{path}: HEIC pictures need more: pip install "flipnet[heic]"') from error
        pillow_heif.register_heif_opener(thumbnails=False)
    return [name for name in _READ_FORMATS if name in Image.OPEN]


def photo_from(image: Image.Image | np.ndarray) -> Photo:
    """Make a photo of a picture in memory.

    Args:
        image: a PIL image of any mode (Exif orientation is applied, metadata kept), or a uint8 or uint16
            array: (H, W) gray, (H, W, 3) RGB, or with alpha (H, W, 2) or (H, W, 4).

    Raises:
        ImageError: another type or shape, or what `read_photo` refuses.
    """
    if isinstance(image, Image.Image):
        try:
            return _decode(image, None)
        except _DECODE_ERRORS as error:
            raise ImageError(f"{_IN_MEMORY}: the picture is damaged or truncated ({error})") from error
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or not 1 <= channels <= 4:
        raise ImageError(
            f"{_IN_MEMORY}: expected uint8 or uint16 (H, W) or (H, W, 1 to 4), got {image.dtype} {image.shape}"
        )
    pixels, alpha = _split_alpha(image if image.ndim == 3 else image[..., None])
    return Photo(pixels, alpha, _is_gray(pixels))


def _decode(image: Image.Image, file: Path | None) -> Photo:
    """Read an open picture; `file` is where deeper samples than Pillow gives can be had."""
    path = file or _IN_MEMORY
    file_format = {"MPO": "jpeg"}.get(image.format or "", (image.format or "").lower())
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    exif, orientation = _read_exif(image, path)
    packet = _read_xmp(image, path)
    icc: bytes | None = image.info.get("icc_profile") or None
    plain: Image.Image | None = None
    if file is not None and deep_images.is_deep(image, file):
        samples = deep_images.decode(file)
    else:
        plain, icc = _to_plain_mode(image, icc, path)
        samples = np.asarray(plain)
    samples = _upright(samples[..., None] if samples.ndim == 2 else samples, orientation)
    pixels, alpha = _split_alpha(samples)
    # Text is complete only now: a PNG may hold some after its pixels.
    text, dpi = _read_text(image), _read_dpi(image)
    return Photo(pixels, alpha, _is_gray(pixels), exif, icc, file_format, packet, text, dpi)


def _to_plain_mode(image: Image.Image, icc: bytes | None, path: Path) -> tuple[Image.Image, bytes | None]:
    """Bring any Pillow mode to L, LA, RGB, RGBA (8 bit) or I;16, and the profile to the result's space."""
    mode = image.mode
    if mode in ("CMYK", "LAB"):
        return _to_srgb(image, icc, path)
    if mode in ("F", "I"):
        raise ImageError(
            f"{path}: {mode}-type samples (floating point or 32 bit) have no fixed white; use 8 or 16 bit"
        )
    if mode.startswith("I;16"):
        return image.convert("I;16") if mode != "I;16" else image, icc
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        return image.convert("LA" if mode[0] in "L1" else "RGBA"), icc
    return image.convert("L" if mode in ("1", "L") else "RGB"), icc


def _to_srgb(image: Image.Image, icc: bytes | None, path: Path) -> tuple[Image.Image, bytes | None]:
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    elif icc is not None:
        source = ImageCms.ImageCmsProfile(BytesIO(icc))
    else:
        return image.convert("RGB"), None
    try:
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except ImageCms.PyCMSError as error:
        raise ImageError(
            f"{path}: colours cannot be converted with the file's own profile ({error})"
        ) from error
    return cast(Image.Image, converted), target.tobytes()


def _read_exif(image: Image.Image, path: Path) -> tuple[bytes | None, int]:
    """Return (Exif block or None, orientation); a damaged block costs the photo no more than the block."""
    orientation = 1
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        for tag in (_STORAGE_TAGS | _BLOCK_TAGS).intersection(exif):
            del exif[tag]
        exif.pop(ExifTags.Base.InterColorProfile, None)
        if not exif:
            return None, 1
        if ExifTags.Base.Orientation in exif:
            exif[ExifTags.Base.Orientation] = 1
        exif.bigtiff = False  # whatever the TIFF around it was, Exif is not
        block = exif.tobytes()
        # Whoever gets the block may rely on it.
        again = Image.Exif()
        again.load(block)
        again.tobytes()
        return block, orientation
    except _DECODE_ERRORS as error:
        warnings.warn(f"{path}: damaged Exif data are left out ({error})", stacklevel=2)
        return None, orientation


def _read_xmp(image: Image.Image, path: Path) -> bytes | None:
    packet = image.info.get("xmp")
    if not packet:
        return None
    try:
        return xmp.clean(packet if isinstance(packet, bytes) else str(packet).encode())
    except xmp.XmpError as error:
        warnings.warn(f"{path}: damaged XMP data are left out ({error})", stacklevel=2)
        return None


def _read_text(image: Image.Image) -> tuple[tuple[str, str], ...]:
    if image.format != "PNG":
        return ()
    return tuple(
        (key, str(value))  # str() also of Pillow's iTXt type, which carries a language
        for key, value in image.info.items()
        if isinstance(key, str) and isinstance(value, str)
        if key != "XML:com.adobe.xmp" and not key.startswith("Raw profile type ")
    )


def _read_dpi(image: Image.Image) -> tuple[float, float] | None:
    found = image.info.get("dpi")
    if not isinstance(found, tuple) or len(found) != 2:
        return None
    x, y = float(found[0]), float(found[1])
    # 1 is what files hold that do not know; 65535 is the most that JPEG can say.
    return (x, y) if all(math.isfinite(v) and 1 < v <= 65535 for v in (x, y)) else None


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    # Exif 2.3, tag 274: where the stored row 0 and column 0 lie in the upright picture.
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples


def _split_alpha(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    channels = samples.shape[2]
    if channels not in (1, 2, 3, 4):
        raise ValueError(f"{channels} channels")
    pixels = samples[..., :3] if channels > 2 else np.repeat(samples[..., :1], 3, axis=2)
    alpha = np.ascontiguousarray(samples[..., -1]) if channels in (2, 4) else None
    return np.ascontiguousarray(pixels), alpha


def _is_gray(pixels: np.ndarray) -> bool:
    # A coarse look first: most colour photos show themselves in a few pixels.
    for view in (pixels[::16, ::16], pixels):
        if not (np.array_equal(view[..., 0], view[..., 1]) and np.array_equal(view[..., 0], view[..., 2])):
            return False
    return True


# ---------------------------------------------------------------------------------------------- writing


def output_format(photo: Photo, path: Path | None = None, format: str | None = None) -> str:
    """Choose the format to write: `format`, else the path's suffix, else the photo's own, else "png".

    Raises:
        ImageError: `format`, or a picture suffix of `path`, is not in `WRITABLE_FORMATS` ("jpg" and "tif" are
            understood).
    """
    if format is None and path is not None and path.suffix.lower() in SUPPORTED_SUFFIXES:
        format = path.suffix[1:]
    if format is None:
        return photo.format if photo.format in WRITABLE_FORMATS else "png"
    name = {"jpg": "jpeg", "tif": "tiff"}.get(format.lower(), format.lower())
    if name not in WRITABLE_FORMATS:
        raise ImageError(f"format {format!r} cannot be written; choose one of {', '.join(WRITABLE_FORMATS)}")
    return name


def write_photo(path: Path, photo: Photo, *, format: str | None = None, quality: int = 95) -> None:
    """Write a photo so that `path` holds either the whole new file or what it held before.

    The format is `output_format(photo, path, format)`. Gray photos are written with one channel unless their
    profile is an RGB one. Alpha, Exif and ICC profile are kept; Exif's pixel size is brought up to date.
    PNG and TIFF keep 16 bit; JPEG and WebP round to 8 bit. PNG and TIFF lose nothing, JPEG is written 4:4:4.
    Our choice: transparency is never composited over a made-up background, so JPEG refuses it.

    Args:
        path: file to write; its folder must exist.
        photo: what to write.
        format: "png", "jpeg", "webp" or "tiff".
        quality: JPEG and WebP quality, 1 to 100.

    Raises:
        ImageError: bad format or quality, a photo with transparent pixels as JPEG, or a failed write.
    """
    name = output_format(photo, path, format)
    if not 1 <= quality <= 100:
        raise ImageError(f"quality {quality} is outside 1 to 100")
    if name == "jpeg" and photo.alpha is not None and photo.alpha.min() < np.iinfo(photo.alpha.dtype).max:
        raise ImageError(f"{path}: JPEG cannot hold the photo's transparency; choose png, webp or tiff")
    deep = photo.pixels.dtype == np.uint16 and name in ("png", "tiff")
    samples = _samples_to_write(photo, name, deep=deep)
    header = deep_images.Header(
        _exif_for(photo), photo.icc_profile or b"", photo.xmp or b"", photo.text, photo.dpi
    )

    def encode(file: IO[bytes]) -> None:
        if name == "tiff":
            deep_images.encode_tiff(file, samples, header)
        elif deep:
            deep_images.encode_png(file, samples, header)
        else:
            _encode_8_bit(file, samples, name, quality, header)

    try:
        _replace_atomically(path, encode)
    except _DECODE_ERRORS as error:  # encoders raise no less variously
        cause = error.strerror if isinstance(error, OSError) and error.strerror else _one_line(error)
        raise ImageError(f"{path}: cannot be written ({cause})") from error


def _encode_8_bit(
    file: IO[bytes], samples: np.ndarray, name: str, quality: int, header: deep_images.Header
) -> None:
    options: dict[str, Any] = {}
    if name == "jpeg":
        options = {"quality": quality, "subsampling": 0, "xmp": header.xmp}
    elif name == "webp":
        options = {"quality": quality, "exact": True, "xmp": header.xmp}
    else:
        options = {"pnginfo": _png_text(header)}
    if header.exif:
        options["exif"] = header.exif
    if header.icc_profile:
        options["icc_profile"] = header.icc_profile
    if header.dpi is not None and name != "webp":  # WebP keeps it in Exif only
        options["dpi"] = header.dpi
    Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples).save(file, format=name, **options)


def _png_text(header: deep_images.Header) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for key, value in header.text:
        chunks.add_text(key, value)
    if header.xmp:
        chunks.add_itxt("XML:com.adobe.xmp", header.xmp.decode())
    return chunks


def _replace_atomically(path: Path, encode: Callable[[IO[bytes]], None]) -> None:
    # Short, as the photo's own name may be as long as names can be; hidden, so that what a killed process
    # leaves behind is no picture to anyone.
    temporary = path.with_name(f".flipnet-{secrets.token_hex(8)}.part")
    with temporary.open("xb") as file:
        try:
            encode(file)
            file.close()  # a full disk may show only now
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _samples_to_write(photo: Photo, name: str, *, deep: bool) -> np.ndarray:
    profile_is_rgb = photo.icc_profile is not None and photo.icc_profile[16:20] == b"RGB "
    # Pillow, our reader, does not know TIFF with 16-bit gray and alpha.
    three = not photo.grayscale or profile_is_rgb or (deep and name == "tiff" and photo.alpha is not None)
    channels = photo.pixels if three else photo.pixels[..., :1]
    if photo.alpha is not None and name != "jpeg":
        channels = np.concatenate([channels, photo.alpha[..., None]], axis=2)
    return np.ascontiguousarray(channels if deep else to_8_bit(channels))


def _exif_for(photo: Photo) -> bytes:
    if photo.exif is None:
        return b""
    exif = Image.Exif()
    exif.load(photo.exif)
    sizes = exif.get_ifd(ExifTags.IFD.Exif)
    height, width = photo.pixels.shape[:2]
    for tag, size in ((_PIXEL_X, width), (_PIXEL_Y, height)):
        if tag in sizes:
            sizes[tag] = size
    return exif.tobytes()


# ------------------------------------------------------------------------------- conversions and resizing


def to_8_bit(samples: np.ndarray) -> np.ndarray:
    """Round uint16 samples to uint8 (0..65535 to 0..255, nearest); uint8 is returned as it is."""
    if samples.dtype == np.uint8:
        return samples
    # round(v / 257) without leaving 16 bits, so a large photo needs no wider copy.
    return ((np.minimum(samples, 65535 - 128) + np.uint16(128)) // np.uint16(257)).astype(np.uint8)


def faces_to_tensor(faces: np.ndarray) -> Tensor:
    """Turn uint8 (B, S, S, 3) or (S, S, 3) RGB into float32 (B, 3, S, S) in [-1, 1], on the CPU.

    Raises:
        ValueError: another dtype or shape.
    """
    if faces.dtype != np.uint8 or faces.ndim not in (3, 4) or faces.shape[-1] != 3:
        raise ValueError(f"expected uint8 (B, S, S, 3), got {faces.dtype} {faces.shape}")
    batch = torch.from_numpy(np.ascontiguousarray(faces.reshape(-1, *faces.shape[-3:])))
    return batch.permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1.0)


def tensor_to_uint8(images: Tensor) -> np.ndarray:
    """Turn float (B, 3, H, W) in [-1, 1] into uint8 (B, H, W, 3) RGB; rounds, clamps what lies outside.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected (B, 3, H, W), got {tuple(images.shape)}")
    if not torch.isfinite(images).all():
        raise ValueError("image values are not finite")
    scaled = images.detach().float().cpu().add(1.0).mul(127.5).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def resize(samples: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Resize uint8 or uint16 (H, W) or (H, W, C) to (width, height) with Pillow's antialiased Lanczos filter.

    Edges stay edges: with scale s = new/old, x maps to (x + 0.5) * s - 0.5.

    Raises:
        ValueError: another dtype.
    """
    if samples.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected uint8 or uint16, got {samples.dtype}")
    if samples.shape[1::-1] == size_px:
        return samples.copy()
    if samples.dtype == np.uint8 and (samples.ndim == 2 or samples.shape[2] == 3):
        return np.array(Image.fromarray(samples).resize(size_px, Image.Resampling.LANCZOS))
    if samples.ndim == 3:
        return np.stack(
            [resize(np.ascontiguousarray(c), size_px) for c in np.moveaxis(samples, 2, 0)], axis=2
        )
    # Through float: exact for 16 bit, one channel at a time.
    channel = Image.fromarray(samples.astype(np.float32)).resize(size_px, Image.Resampling.LANCZOS)
    return np.rint(np.asarray(channel)).clip(0, 65535).astype(np.uint16)
