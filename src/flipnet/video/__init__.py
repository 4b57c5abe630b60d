"""Faces in clips: frames in and out of files, steady restoration from frame to frame."""

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".wmv", ".flv", ".3gp",
     ".ogv", ".vob", ".mts", ".dv"}
)  # fmt: skip
"""Suffixes, lower case, by which a file is taken for a clip."""

WRITABLE_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
"""Suffixes a restored clip may have; other inputs become ".mp4"."""
