"""Text for the terminal."""

from __future__ import annotations


def shown(text: object) -> str:
    """Return text as one line that any terminal can show: what is not printable is escaped.

    File names may hold line breaks, escape sequences, marks that turn the writing direction, and bytes that are no
    text (PEP 383); none of these may break a message in two, colour the screen, or stop the run.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)
    )
