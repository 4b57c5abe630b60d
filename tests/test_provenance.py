"""What results say about themselves: read back with Pillow, tifffile and a plain XML parser, format by format."""

import struct
import zlib
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from flipnet.images import Photo, read_photo, write_photo, xmp
from flipnet.provenance import PARTLY_AI, SOFTWARE, WHOLLY_AI, mark_as_restored, without_metadata
from flipnet.types import FlipnetError

WHEN = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
GPS_IFD, EXIF_IFD = 0x8825, 0x8769
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
# Written by hand after the XMP specification: a rating, a creator tool, one history entry, a turned picture
# with a thumbnail, and properties of a schema that nobody knows.
LIGHTROOM = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="uuid:1" xmlns:xap="http://ns.adobe.com/xap/1.0/" xap:CreatorTool="Darkroom 3"
 xap:Rating="4" xap:ModifyDate="2001-01-01T00:00:00Z" xmlns:t="http://ns.adobe.com/tiff/1.0/" t:Orientation="6"
 xmlns:my="http://example.org/my/" my:note="keep me &amp; mine">
 <xap:Thumbnails><rdf:Alt><rdf:li>AAAA</rdf:li></rdf:Alt></xap:Thumbnails>
 <mm:History xmlns:mm="http://ns.adobe.com/xap/1.0/mm/"><rdf:Seq>
  <rdf:li xmlns:e="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#" rdf:parseType="Resource">
   <e:action>created</e:action></rdf:li></rdf:Seq></mm:History>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


@pytest.fixture
def photo():
    pixels = np.random.default_rng(3).integers(0, 255, (12, 16, 3), np.uint8)
    return Photo(pixels, dpi=(300.0, 300.0))


def raw_packet(path: Path) -> bytes:
    """The XMP packet as it lies in the file, found without any image library."""
    data = path.read_bytes()
    start = data.index(b"<?xpacket begin")
    return data[start : data.index(b"<?xpacket end", start)]


def properties(packet: bytes) -> dict[str, str]:
    """Every attribute and every leaf text of a packet by its {namespace}name."""
    root = ElementTree.fromstring(packet[packet.index(b"<x:xmpmeta") :].split(b"<?xpacket end")[0])
    found = {}
    for element in root.iter():
        found.update(element.attrib)
        if element.text and element.text.strip():
            found[element.tag] = element.text
    return found


def of(prefix: str, local: str) -> str:
    return f"{{{xmp.NAMESPACES[prefix]}}}{local}"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_format_says_software_model_date_and_ai(tmp_path, photo, suffix, dtype):
    photo = Photo(photo.pixels.astype(dtype) * np.iinfo(dtype).max // 255, dpi=photo.dpi)
    path = tmp_path / f"a.{suffix}"
    write_photo(path, mark_as_restored(photo, model="tiny-7", when=WHEN))

    found = properties(raw_packet(path))
    assert found[of("Iptc4xmpExt", "DigitalSourceType")] == (
        "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    )
    assert found[of("xmp", "CreatorTool")] == SOFTWARE
    assert datetime.fromisoformat(found[of("xmp", "ModifyDate")]) == WHEN
    assert found[of("stEvt", "softwareAgent")] == SOFTWARE
    assert "AI-restored" in found[of("stEvt", "parameters")]
    assert "tiny-7" in found[of("stEvt", "parameters")]
    with Image.open(path) as image:
        exif = image.getexif()
        assert exif[0x0131] == SOFTWARE
        assert datetime.strptime(exif[0x0132], "%Y:%m:%d %H:%M:%S") == WHEN.astimezone().replace(tzinfo=None)
        assert exif[0x010E].startswith("AI-restored")
        assert GPS_IFD not in exif
        if suffix == "png":
            assert image.info["Software"] == SOFTWARE
            assert "tiny-7" in image.info["Disclaimer"]
        if suffix != "webp":
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_tiff_is_understood_by_a_second_reader(tmp_path, photo):
    path = tmp_path / "a.tiff"
    write_photo(path, mark_as_restored(photo, model="m", when=WHEN))
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        assert tags["Software"].value == SOFTWARE
        assert tags["XResolution"].value == (300, 1)
        assert tags["ResolutionUnit"].value == 2
        assert PARTLY_AI.encode() in bytes(tags["XMP"].value)
        np.testing.assert_array_equal(tiff.pages[0].asarray(), photo.pixels)


def test_png_chunks_lie_before_the_pixels_and_have_right_sums(tmp_path, photo):
    deep = Photo(photo.pixels.astype(np.uint16) * 257, text=(("Titel", "Großmutter 日本"),), dpi=(72.0, 36.0))
    path = tmp_path / "a.png"
    write_photo(path, mark_as_restored(deep, model="m"))
    data, names, at = path.read_bytes(), [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(body),)
        names.append(body[:4])
        at += 12 + length
    assert names.index(b"iTXt") < names.index(b"IDAT")
    assert names.count(b"iTXt") == 4  # title, software, disclaimer, XMP
    back = read_photo(path)
    assert dict(back.text)["Titel"] == "Großmutter 日本"
    assert back.dpi == pytest.approx((72, 36), abs=0.02)
    np.testing.assert_array_equal(back.pixels, deep.pixels)


def save_original(path: Path) -> None:
    """A JPEG or PNG with everything: camera, place, caption, XMP, resolution."""
    exif = Image.Exif()
    exif[0x010F], exif[0x010E], exif[0x0131], exif[0x8298] = "Maker", "Grandma", "Firmware 1", "(c) me"
    exif.get_ifd(EXIF_IFD)[0x9003] = "1999:12:31 23:59:59"
    exif.get_ifd(GPS_IFD).update({1: "N", 2: (52.0, 30.0, 0.0)})
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "me")
    text.add_itxt("XML:com.adobe.xmp", LIGHTROOM.decode())
    options = {"pnginfo": text} if path.suffix == ".png" else {"xmp": LIGHTROOM}
    Image.new("RGB", (16, 12), "teal").save(path, exif=exif.tobytes(), dpi=(240, 240), **options)


@pytest.mark.parametrize("source", ["a.jpg", "a.png"])
@pytest.mark.parametrize("target", ["b.jpg", "b.png", "b.webp", "b.tif"])
def test_what_the_original_said_is_kept(tmp_path, source, target):
    save_original(tmp_path / source)
    photo = mark_as_restored(read_photo(tmp_path / source), model="m", when=WHEN)
    write_photo(tmp_path / target, photo)
    with Image.open(tmp_path / target) as image:
        exif = image.getexif()
        assert (exif[0x010F], exif[0x010E], exif[0x8298]) == ("Maker", "Grandma", "(c) me")
        assert exif[0x0131] == SOFTWARE
        assert exif.get_ifd(EXIF_IFD)[0x9003] == "1999:12:31 23:59:59"
        assert exif.get_ifd(GPS_IFD)[1] == "N"
        if target != "b.webp":
            assert image.info["dpi"] == pytest.approx((240, 240), abs=0.1)
    packet = raw_packet(tmp_path / target)
    found = properties(packet)
    assert found[of("xmp", "Rating")] == "4"
    assert found["{http://example.org/my/}note"] == "keep me & mine"
    assert found[of("xmp", "CreatorTool")] == "Darkroom 3"
    assert found[of("xmp", "ModifyDate")].startswith("2031-05-0")
    assert packet.count(b"ModifyDate=") == 1
    assert of("tiff", "Orientation") not in found
    assert b"Thumbnails" not in packet
    root = ElementTree.fromstring(packet[packet.index(b"<x:xmpmeta") :])
    (history,) = root.iter(of("xmpMM", "History"))
    actions = [e.text for e in history.iter(of("stEvt", "action"))]
    assert actions == ["created", "edited"]
    assert {e.get(f"{RDF}about") for e in root.iter(f"{RDF}Description")} == {"uuid:1"}
    if source == target.replace("b", "a") == "a.png":
        assert dict(read_photo(tmp_path / target).text)["Author"] == "me"


@pytest.mark.parametrize("target", ["b.jpg", "b.png", "b.webp", "b.tif"])
def test_stripping_leaves_pixels_and_colour_profile_only(tmp_path, target):
    save_original(tmp_path / "a.jpg")
    write_photo(tmp_path / target, without_metadata(read_photo(tmp_path / "a.jpg")))
    data = (tmp_path / target).read_bytes()
    assert not any(word in data for word in (b"xpacket", b"Maker", b"Grandma", b"flipnet", b"1999"))
    with Image.open(tmp_path / target) as image:
        assert GPS_IFD not in image.getexif()
        assert 0x0131 not in image.getexif()


def test_a_restored_photo_restored_again_has_two_history_entries_and_one_of_each_property(photo):
    twice = mark_as_restored(mark_as_restored(photo, model="a", when=WHEN), model="b", when=WHEN)
    assert twice.xmp.count(b"<stEvt:action") == 2
    assert twice.xmp.count(b"DigitalSourceType=") == 1
    assert [key for key, _ in twice.text] == ["Software", "Disclaimer"]


def test_a_picture_that_is_wholly_ai_made_stays_so(photo):
    packet = LIGHTROOM.replace(
        b'xap:Rating="4"',
        f'xmlns:i="{xmp.NAMESPACES["Iptc4xmpExt"]}" i:DigitalSourceType="{WHOLLY_AI}"'.encode(),
    )
    marked = mark_as_restored(Photo(photo.pixels, xmp=packet), model="m")
    assert xmp.value_of(marked.xmp, "Iptc4xmpExt:DigitalSourceType") == WHOLLY_AI


@pytest.mark.parametrize(
    ("packet", "cause"),
    [
        (b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>", "no element found"),
        (b"not xml", "syntax error"),
        (b"<a/>", "no rdf:RDF"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "document type"),
        (b"<r:RDF xmlns:r='" + xmp.NAMESPACES["rdf"].encode() + b"'>" + b"<a>" * 900 + b"</a>" * 900 + b"</r:RDF>",
         "nested"),
    ],
)  # fmt: skip
def test_damaged_xmp_is_left_out_with_a_warning(tmp_path, packet, cause):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", xmp=packet)
    with pytest.warns(UserWarning, match=f"damaged XMP data are left out .*{cause}"):
        photo = read_photo(tmp_path / "a.jpg")
    assert photo.xmp is None
    assert PARTLY_AI.encode() in mark_as_restored(photo, model="m").xmp


def test_the_date_can_be_fixed_from_outside(photo, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    marked = mark_as_restored(photo, model="m")
    expected = mark_as_restored(photo, model="m", when=datetime(1970, 1, 2, tzinfo=UTC))
    assert (marked.exif, marked.xmp) == (expected.exif, expected.xmp)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(FlipnetError, match="SOURCE_DATE_EPOCH 'yesterday' is no number"):
        mark_as_restored(photo, model="m")
