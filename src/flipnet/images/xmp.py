"""XMP packets: what a picture file says about itself in RDF (ISO 16684-1), read, cleaned and extended.

Only what must change is touched; everything else of a packet comes out as it went in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.dom import minidom
from xml.parsers.expat import ExpatError

NAMESPACES: Mapping[str, str] = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
}
"""Prefixes of the schemas used here (XMP specification parts 1 and 2; IPTC Photo Metadata Standard)."""

_XMLNS = "http://www.w3.org/2000/xmlns/"
_EMPTY = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{NAMESPACES["rdf"]}"/></x:xmpmeta>'
_MAX_BYTES = 1 << 22
_MAX_DEPTH = 100
# Untrue of an upright picture with new pixels: the turn, the small picture, and a pointer to more metadata
# that only JPEG's extra segments hold.
_STALE = ("tiff:Orientation", "xmp:Thumbnails", "xmpNote:HasExtendedXMP")


class XmpError(ValueError):
    """A packet that is no XMP; the message says why."""


@dataclass(frozen=True)
class Edit:
    """What was done to a picture, as `xmpMM:History` records it.

    Attributes:
        when: ISO 8601 date and time.
        software: name and version.
        parameters: what was done, in words.
    """

    when: str
    software: str
    parameters: str


def clean(packet: bytes) -> bytes:
    """Return a packet without what is untrue of a picture stored anew: orientation, thumbnails.

    Raises:
        XmpError: not XMP, too large (4 MiB), nested too deeply, or with a document type of its own.
    """
    document = _parse(packet)
    for name in _STALE:
        _remove(document, name)
    return _serialise(document)


def extend(
    packet: bytes | None, *, edit: Edit, replaced: Mapping[str, str], defaults: Mapping[str, str]
) -> bytes:
    """Add an edit to a packet's history and set properties.

    Args:
        packet: the packet to extend; None starts a new one.
        edit: appended to `xmpMM:History`.
        replaced: simple properties ("xmp:ModifyDate") set whatever they were.
        defaults: those set only where the packet has none; "dc:description" becomes its default language.

    Raises:
        XmpError: see `clean`.
    """
    document = _parse(packet or _EMPTY.encode())
    for name in replaced:
        _remove(document, name)
    missing = {name: value for name, value in defaults.items() if not _owners(document, name)}
    description = _new_description(document)
    for name, value in {**replaced, **missing}.items():
        if name == "dc:description":
            _add_description(document, description, value)
        else:
            _declare(description, name)
            description.setAttributeNS(NAMESPACES[name.partition(":")[0]], name, value)
    _add_history(document, description, edit)
    return _serialise(document)


def value_of(packet: bytes, name: str) -> str | None:
    """Return a simple property ("xmp:CreatorTool"), or the first entry of a list; None if absent.

    Raises:
        XmpError: see `clean`.
    """
    prefix, _, local = name.partition(":")
    for owner in _owners(_parse(packet), name):
        if owner.hasAttributeNS(NAMESPACES[prefix], local):
            return owner.getAttributeNS(NAMESPACES[prefix], local)
        for element in _children(owner, name):
            entries = element.getElementsByTagNameNS(NAMESPACES["rdf"], "li")
            node = entries[0] if entries else element
            return "".join(child.data for child in node.childNodes if child.nodeType == child.TEXT_NODE)
    return None


def _parse(packet: bytes) -> minidom.Document:
    if len(packet) > _MAX_BYTES:
        raise XmpError(f"{len(packet)} bytes are too many")
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        raise XmpError("it has a document type of its own")
    try:
        document = minidom.parseString(packet.strip(b"\0 \r\n\t"))
    except (ExpatError, ValueError, LookupError) as error:
        raise XmpError(str(error)) from error
    if document.doctype is not None:
        raise XmpError("it has a document type of its own")
    if not document.getElementsByTagNameNS(NAMESPACES["rdf"], "RDF"):
        raise XmpError("it holds no rdf:RDF")
    level: list[minidom.Node] = [document]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level for child in node.childNodes]
        if not level:
            return document
    raise XmpError(f"it is nested more than {_MAX_DEPTH} deep")


def _serialise(document: minidom.Document) -> bytes:
    root = document.documentElement.toxml() if document.documentElement is not None else ""
    # The wrapper and its id are fixed by ISO 16684-1, 7.3.2.
    opening = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    return f'{opening}\n{root}\n<?xpacket end="w"?>'.encode()


def _descriptions(document: minidom.Document) -> list[minidom.Element]:
    rdf = document.getElementsByTagNameNS(NAMESPACES["rdf"], "RDF")[0]
    return [node for node in rdf.childNodes if node.nodeType == node.ELEMENT_NODE]


def _children(parent: minidom.Element, name: str) -> list[minidom.Element]:
    prefix, _, local = name.partition(":")
    return [
        node
        for node in parent.childNodes
        if node.nodeType == node.ELEMENT_NODE
        and (node.namespaceURI, node.localName) == (NAMESPACES[prefix], local)
    ]


def _owners(document: minidom.Document, name: str) -> list[minidom.Element]:
    """The top-level descriptions that hold a property, as attribute or as element."""
    prefix, _, local = name.partition(":")
    return [
        d
        for d in _descriptions(document)
        if d.hasAttributeNS(NAMESPACES[prefix], local) or _children(d, name)
    ]


def _remove(document: minidom.Document, name: str) -> None:
    prefix, _, local = name.partition(":")
    for owner in _owners(document, name):
        if owner.hasAttributeNS(NAMESPACES[prefix], local):
            owner.removeAttributeNS(NAMESPACES[prefix], local)
        for child in _children(owner, name):
            owner.removeChild(child)


def _declare(element: minidom.Element, name: str) -> None:
    """Bind a name's prefix on the element itself: the packet around it may have bound it otherwise."""
    prefix = name.partition(":")[0]
    element.setAttributeNS(_XMLNS, f"xmlns:{prefix}", NAMESPACES[prefix])


def _append(document: minidom.Document, parent: minidom.Element, name: str) -> minidom.Element:
    element = document.createElementNS(NAMESPACES[name.partition(":")[0]], name)
    _declare(element, name)
    parent.appendChild(element)
    return element


def _new_description(document: minidom.Document) -> minidom.Element:
    rdf = document.getElementsByTagNameNS(NAMESPACES["rdf"], "RDF")[0]
    # All descriptions of a packet are about the same thing.
    about = next((d.getAttributeNS(NAMESPACES["rdf"], "about") for d in _descriptions(document)), "")
    description = _append(document, rdf, "rdf:Description")
    description.setAttributeNS(NAMESPACES["rdf"], "rdf:about", about)
    return description


def _add_description(document: minidom.Document, description: minidom.Element, text: str) -> None:
    entry = description
    for name in ("dc:description", "rdf:Alt", "rdf:li"):
        entry = _append(document, entry, name)
    entry.setAttribute("xml:lang", "x-default")
    entry.appendChild(document.createTextNode(text))


def _add_history(document: minidom.Document, description: minidom.Element, edit: Edit) -> None:
    owners = _owners(document, "xmpMM:History")
    histories = [child for owner in owners for child in _children(owner, "xmpMM:History")]
    history = histories[0] if histories else _append(document, description, "xmpMM:History")
    sequences = _children(history, "rdf:Seq")
    sequence = sequences[0] if sequences else _append(document, history, "rdf:Seq")
    entry = _append(document, sequence, "rdf:li")
    entry.setAttributeNS(NAMESPACES["rdf"], "rdf:parseType", "Resource")
    facts = {"action": "edited", "when": edit.when, "softwareAgent": edit.software}
    for local, text in {**facts, "parameters": edit.parameters}.items():
        _append(document, entry, f"stEvt:{local}").appendChild(document.createTextNode(text))
