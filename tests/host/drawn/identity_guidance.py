"""Guidance by identity with the embedded model: the same seeds without and with it, and what a judge says."""

from __future__ import annotations

from tests.host.drawn import numbered
from tests.host.drawn.photographs import COLOURS, titled
from tests.host.graphs import node

SAMPLED = {
    "positive": ["words", 0], "negative": ["none", 0], "latent_image": ["empty", 0], "seed": 42, "steps": 20, "cfg": 2.0,
    "sampler_name": "dpmpp_2m", "scheduler": "normal", "denoise": 1.0,
}  # fmt: skip

NAMED = {
    "example": node("IdentiFaceExampleCase"),
    "model": node("IdentiFaceLoadEmbeddedModel"),
    "gallery": node("IdentiFaceOpenGallery", gallery="embedded demo"),
    "photo": node("IdentiFaceLQPhoto", image=["example", 0], face="automatic", number=0, box="", finder=["model", 7]),
    "sketch": node("IdentiFaceSketch", image=["example", 1], kind="drawing"),
    "evidence": node("IdentiFaceEvidence", lq_photo=["photo", 0], sketch=["sketch", 0], description=["example", 2]),
    "query": titled(
        node("IdentiFaceEmbedEvidence", toolkit=["model", 8], evidence=["evidence", 0]), "Embed Evidence: where it points"
    ),
    "search": titled(
        node(
            "IdentiFaceSearchGallery", gallery=["gallery", 0], query=["query", 0], count=1, exclude="", toolkit=["model", 8]
        ),
        "Search Gallery: who is nearest?",
    ),
    "candidate": titled(node("PreviewImage", images=["search", 1]), "The best candidate"),
    "detail": titled(
        node("IdentiFaceRecognisability", image=["photo", 1], face="automatic"), "Recognisability of the photo alone"
    ),
    "verdict": titled(node("PreviewAny", source=["detail", 2]), "May the photo be searched with?"),
    "words": node("IdentiFaceEncodeDescription", clip=["model", 1], description=["example", 2], part="everything"),
    "none": titled(node("CLIPTextEncode", clip=["model", 1], text=""), "No words"),
    "empty": node("EmptyLatentImage", width=128, height=128, batch_size=4),
    "control": titled(
        node(
            "IdentiFaceApplyControl", model=["model", 0], control=["model", 3], evidence=["evidence", 0], strength=1.0,
            start=0.0, end=1.0,
        ),
        "Apply Control: photo, sketch",
    ),
    "guidance": node(
        "IdentiFaceIdentityGuidance", model=["control", 0], target=["query", 0], method="latent", scale=0.1, start=0.0,
        end=1.0, every_n=4, stop_at=1.0, toolkit=["model", 8],
    ),
    "plain": titled(node("KSampler", model=["control", 0], **SAMPLED), "KSampler: without guidance"),
    "guided": titled(node("KSampler", model=["guidance", 0], **SAMPLED), "KSampler: the same seed, guided"),
    "plain faces": node("VAEDecode", samples=["plain", 0], vae=["model", 2]),
    "guided faces": node("VAEDecode", samples=["guided", 0], vae=["model", 2]),
    "plain large": titled(node("ImageScaleBy", image=["plain faces", 0], upscale_method="bicubic", scale_by=2.0), "Enlarge"),
    "guided large": titled(node("ImageScaleBy", image=["guided faces", 0], upscale_method="bicubic", scale_by=2.0), "Enlarge"),
    "plain shown": titled(node("PreviewImage", images=["plain large", 0]), "Without guidance"),
    "guided shown": titled(node("PreviewImage", images=["guided large", 0]), "With guidance: the same four seeds"),
    "judged": titled(
        node(
            "IdentiFaceGalleryTarget", gallery=["gallery", 0], query=["query", 0], take="consensus", number=20, exclude=""
        ),
        "Gallery Target: whom the judge looks for",
    ),
    "check": node(
        "IdentiFaceGuidanceCheck", guided=["guided faces", 0], unguided=["plain faces", 0], matcher=["model", 4],
        target=["query", 0], judge=["model", 5], judge_target=["judged", 1],
    ),
    "told": titled(node("PreviewAny", source=["check", 0]), "What the check says"),
    "first": titled(
        node("ImageFromBatch", image=["guided faces", 0], batch_index=0, length=1), "The first guided face"
    ),
    "compare": titled(
        node(
            "IdentiFaceCompareFaces", matcher=["model", 5], map="occlusion", image_1=["first", 0], image_2=["search", 1],
            toolkit=["model", 8],
        ),
        "Compare Faces: the guided face and the candidate, by the judge",
    ),
}  # fmt: skip

AT = {
    "example": (-40, 60, 280, 90), "model": (-40, 230, 280, 210), "gallery": (-40, 520, 280, 90),
    "photo": (280, 60, 300, 360), "sketch": (280, 490, 300, 320), "evidence": (620, 60, 310, 80),
    "query": (620, 210, 310, 60), "search": (620, 340, 310, 190), "candidate": (620, 600, 310, 210),
    "detail": (-40, 880, 540, 610), "verdict": (540, 880, 390, 180),
    "words": (1030, 60, 290, 110), "none": (1030, 230, 290, 100), "empty": (1030, 390, 290, 110),
    "control": (1030, 560, 290, 210), "guidance": (1030, 830, 290, 430),
    "plain": (1360, 60, 280, 460), "guided": (1360, 700, 280, 460),
    "plain faces": (1680, 60, 200, 60), "guided faces": (1680, 700, 200, 60),
    "plain large": (1680, 190, 200, 90), "guided large": (1680, 830, 200, 90),
    "plain shown": (1920, 60, 570, 570), "guided shown": (1920, 700, 570, 570),
    "judged": (2590, 60, 270, 230), "check": (2890, 60, 190, 160), "told": (3100, 60, 430, 160),
    "first": (2590, 590, 280, 100), "compare": (2590, 770, 940, 720),
}  # fmt: skip
"""Node -> x, y, width, height."""

GRAPH, (IDS,) = numbered(NAMED, [list(NAMED)])
PLACES = {number: AT[name] for number, name in zip(IDS, NAMED, strict=True)}
RUNS = True
VIEW = (-90, -60, 3640, 1745)

GROUPS = [
    ("1  The evidence, and where it points", -70, -30, 1030, 1540, COLOURS[0]),
    ("2  The same four seeds, without and with guidance", 1000, -30, 1520, 1540, COLOURS[1]),
    ("3  Did it find the person, or please the matcher?", 2560, -30, 1000, 500, COLOURS[2]),
    ("4  Who is it like, and where?", 2560, 500, 1000, 1010, COLOURS[3]),
]

NOTES = [
    (
        "Read me", -40, 670, 280, 140,
        "Press **Run**: under a minute on a CPU, nothing to download. Then compare the faces in group 2.\n\nEverybody here is "
        "synthetic.",
    ),
    (
        "Where it points", 540, 1110, 390, 170,
        "**Embed Evidence** turns photo, sketch and words into one vector: where they point. No face is drawn for that. The "
        "nearest person of the gallery is the best candidate.\n\n**Recognisability** asks first whether the photo alone is worth "
        "a search: how much of a face is in its pixels.",
    ),
    (
        "Your own case", 540, 1350, 390, 140,
        "Put *Load Image* in place of the photo and the drawing of *Example Case*, and *Description* in place of its words. Any "
        "of the three may be missing. **Your own gallery**: *Enrol Faces* in place of *Open Gallery*.",
    ),
    (
        "The only difference", 1030, 1350, 850, 140,
        "Both samplers get the same seed, words, photo and sketch. **Identity Guidance** leads the lower one: every few steps a "
        "matcher looks at the predicted faces, and they are moved to where the evidence points.",
    ),
    (
        "Try it", 1920, 1350, 570, 140,
        "`scale` 0 gives the upper faces to the last bit; with 0.5 they are spoiled, and the check warns. **Better still**: link "
        "`sampler` into *SamplerCustom*, with the MODEL of *Apply Control* and scale 0.04.",
    ),
    (
        "How to read it", 2590, 350, 480, 100,
        "**A** is the matcher that guides: it rises by construction, which proves nothing. **B**, the judge, never guides.\n\nIf "
        "B rises too, the faces came nearer to the person. If not, they only please A, and the check warns.",
    ),
    (
        "Who is the person?", 3100, 290, 430, 160,
        "Nobody knows. B looks for the twenty people of the gallery whom the evidence is most like, as B sees them. If you have "
        "another photo of the person, use **Embed Face** with the judge instead.",
    ),
    (
        "What the map means", 2910, 590, 620, 100,
        "Each place of the face is hidden in turn: **blue** speaks for the same person, **orange** against. The rate is of pairs "
        "of portraits; a face that was drawn to fit the evidence is no photo. **A lead, not an identification.**",
    ),
]  # fmt: skip
