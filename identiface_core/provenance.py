"""Where a picture comes from, written into its file so that it stays known.

The claim is the IPTC property `DigitalSourceType` in an XMP packet (what photo tools and platforms read),
with a small JSON text chunk beside it (what our own tools read). Both survive copying; neither is a
signature.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from identiface_core.errors import InputError

XMP_KEYWORD = "XML:com.adobe.xmp"
JSON_KEYWORD = "identiface"
SOURCE_TYPE_URI = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_MAX_METADATA = 1 << 20


class Origin(str, Enum):
    """Origin of a picture: made by a model, changed by a model, or taken by a camera or pen."""

    GENERATED = "generated"
    EDITED = "edited"
    CAPTURED = "captured"

    @property
    def source_type(self) -> str:
        """Full address of the IPTC NewsCode, e.g. `.../digitalsourcetype/trainedAlgorithmicMedia`."""
        return SOURCE_TYPE_URI + _NEWSCODES[self]


_NEWSCODES: dict[Origin, str] = {
    Origin.GENERATED: "trainedAlgorithmicMedia",
    Origin.EDITED: "compositeWithTrainedAlgorithmicMedia",
    Origin.CAPTURED: "digitalCapture",
}


def xmp_packet(origin: Origin) -> str:
    """XMP packet that states the IPTC DigitalSourceType of `origin`; the same text every time."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f"<Iptc4xmpExt:DigitalSourceType>{origin.source_type}</Iptc4xmpExt:DigitalSourceType>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="r"?>'
    )


def json_text(origin: Origin, data: Mapping[str, Any] | None = None) -> str:
    """The JSON beside the XMP packet: `{"origin": ..., **data}`, keys sorted, ASCII."""
    return json.dumps({**(data or {}), "origin": origin.value}, sort_keys=True, separators=(",", ":"))


def read_origin(path: str | Path) -> Origin | None:
    """Origin that the file at `path` claims (PNG, JPEG, WebP, TIFF); None where it claims nothing we know.

    Reads the metadata only, no pixels. Raises InputError for a file that is missing or no picture.
    """
    found = re.search(re.escape(SOURCE_TYPE_URI) + r"(\w+)", _metadata(path)[0])
    if found is None:
        return None
    return next((origin for origin, code in _NEWSCODES.items() if code == found[1]), None)


def read_data(path: str | Path) -> dict[str, Any]:
    """The JSON that `imaging.write_png` put beside the pixels; empty where there is none or it is damaged."""
    try:
        data = json.loads(_metadata(path)[1] or "{}")
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _metadata(path: str | Path) -> tuple[str, str]:
    """(XMP packet, our JSON) of the file, each "" where absent; over-long ones are cut, not trusted."""
    from identiface_core.imaging import open_bounded

    with open_bounded(path) as picture:
        info = picture.info
        texts = [info.get(XMP_KEYWORD) or info.get("xmp") or "", info.get(JSON_KEYWORD) or ""]
    for i, text in enumerate(texts):
        if isinstance(text, bytes):
            texts[i] = text.decode("utf-8", errors="replace")
        elif not isinstance(text, str):
            raise InputError(f"{path}: its metadata is of a kind that cannot be read; save the picture again")
    return str(texts[0])[:_MAX_METADATA], str(texts[1])[:_MAX_METADATA]
