"""The parts of a face: the words for them, and the order in which rounds visit them (IdentiFace, released code)."""

from __future__ import annotations

PARTS: tuple[str, ...] = (
    "overview",
    "eyes",
    "brows",
    "mouth",
    "nose",
    "ears",
    "hair",
    "glasses",
    "beard",
    "skin",
)
"""Our part names. `overview` is the whole face; a round's part is one of these."""

TAGS: dict[str, str] = {
    "overview": "overview",
    "face": "overview",
    "l_eye": "eyes",
    "r_eye": "eyes",
    "eye": "eyes",
    "eyes": "eyes",
    "l_brow": "brows",
    "r_brow": "brows",
    "brow": "brows",
    "brows": "brows",
    "eyebrows": "brows",
    "u_lip": "mouth",
    "l_lip": "mouth",
    "mouth": "mouth",
    "lips": "mouth",
    "nose": "nose",
    "l_ear": "ears",
    "r_ear": "ears",
    "ear": "ears",
    "ears": "ears",
    "ear_r": "ears",
    "hair": "hair",
    "hat": "hair",
    "eye_g": "glasses",
    "glasses": "glasses",
    "beard": "beard",
    "moustache": "beard",
    "skin": "skin",
    "neck": "skin",
    "neck_l": "skin",
    "cloth": "skin",
    "marks": "skin",
}
"""CelebAMask-HQ tags (as the published texts use them) and plain words, each with the part it belongs to."""

MASK_CHANNELS: tuple[str, ...] = (
    "skin",
    "eyes",
    "brows",
    "nose",
    "mouth",
    "ears",
    "hair",
    "glasses",
    "background",
)
"""Channels of every part-mask tensor, in this order: the renderer draws them, the segmenter predicts them."""
