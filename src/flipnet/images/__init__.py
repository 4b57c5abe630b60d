"""Images in and out: the only place that decodes, encodes, or changes type and channel order.

A `Photo` is what a file holds, made plain: upright RGB pixels at the file's own depth, transparency beside
them, and the metadata that must come out again. Everything behind this package sees RGB, (H, W, 3) arrays and
(B, 3, H, W) tensors only.
"""

from flipnet.images.arrays import faces_to_tensor, resize, tensor_to_uint8, to_8_bit
from flipnet.images.errors import ImageError
from flipnet.images.formats import (
    SUPPORTED_SUFFIXES,
    WRITABLE_FORMATS,
    WRITABLE_SUFFIXES,
    find_images,
    output_format,
)
from flipnet.images.photo import Photo
from flipnet.images.reading import MAX_PIXELS, photo_from, read_photo
from flipnet.images.writing import write_photo

__all__ = [
    "MAX_PIXELS",
    "SUPPORTED_SUFFIXES",
    "WRITABLE_FORMATS",
    "WRITABLE_SUFFIXES",
    "ImageError",
    "Photo",
    "faces_to_tensor",
    "find_images",
    "output_format",
    "photo_from",
    "read_photo",
    "resize",
    "tensor_to_uint8",
    "to_8_bit",
    "write_photo",
]
