"""Reading: any picture file or picture in memory becomes an upright RGB photo at its own depth."""

from __future__ import annotations

import stat
import warnings
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from flipnet.images import deep, metadata
from flipnet.images.errors import CODEC_ERRORS, ImageError, one_line
from flipnet.images.photo import Photo

MAX_PIXELS = 178_956_970
"""Largest photo read, in pixels; Pillow's own limit against decompression bombs."""

# Format and plug-in, of all that Pillow knows. Our choice: what cameras, scanners and the web produce; among the
# rest is PostScript, which Pillow hands to Ghostscript. `Image.init` would load that, too.
_PLUGINS = {
    "JPEG": "JpegImagePlugin",  # MPO, too
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "TIFF": "TiffImagePlugin",
    "BMP": "BmpImagePlugin",
    "GIF": "GifImagePlugin",
    "AVIF": "AvifImagePlugin",
}
# Major brands of HEIC files (ISO/IEC 23008-12, annex B), the bytes after "ftyp".
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_IN_MEMORY = Path("the image")


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
    except CODEC_ERRORS as error:
        raise ImageError(f"{path}: the picture is damaged or truncated ({one_line(error)})") from error


def _known_formats(path: Path) -> list[str]:
    """The formats of `_PLUGINS` that Pillow can open, and HEIF, taught to it when a file needs it."""
    for plugin in _PLUGINS.values():
        import_module(f"PIL.{plugin}")
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:] in _HEIC_BRANDS and "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError as error:
            raise ImageError(f'{path}: HEIC pictures need more: pip install "flipnet[heic]"') from error
        pillow_heif.register_heif_opener(thumbnails=False)
    return [name for name in (*_PLUGINS, "HEIF") if name in Image.OPEN]


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
        except CODEC_ERRORS as error:
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
    exif, orientation = metadata.read_exif(image, path)
    packet = metadata.read_xmp(image, path)
    icc: bytes | None = image.info.get("icc_profile") or None
    plain: Image.Image | None = None
    if file is not None and deep.is_deep(image, file):
        samples = deep.decode(file)
    else:
        plain, icc = _to_plain_mode(image, icc, path)
        samples = np.asarray(plain)
    samples = _upright(samples[..., None] if samples.ndim == 2 else samples, orientation)
    pixels, alpha = _split_alpha(samples)
    # Text is complete only now: a PNG may hold some after its pixels.
    text, dpi = metadata.read_text(image), metadata.read_dpi(image)
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
