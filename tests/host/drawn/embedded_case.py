"""The embedded model: nothing to download."""

from __future__ import annotations

from tests.host.graphs import shipped

GRAPH = shipped("embedded_case")
RUNS = True
VIEW = (-70, -70, 3320, 1640)

PLACES: dict[str, tuple[int, int, int, int]] = {
    "1": (-40, 60, 300, 220), "2": (-40, 420, 300, 120), "3": (310, 60, 300, 330), "4": (310, 460, 300, 320),
    "5": (660, 60, 240, 90), "6": (660, 210, 240, 100), "7": (990, 60, 300, 190), "8": (990, 310, 300, 110),
    "9": (990, 480, 300, 110), "10": (990, 650, 300, 110), "11": (1330, 60, 300, 350), "12": (1330, 480, 300, 60),
    "13": (1330, 600, 300, 250), "14": (990, 1000, 300, 60), "15": (990, 1120, 300, 380),
    "16": (1330, 1000, 300, 500), "17": (1760, 60, 320, 330), "18": (2130, 60, 280, 300),
    "19": (2130, 430, 280, 420), "20": (2460, 60, 820, 720), "21": (2460, 840, 820, 330),
}  # fmt: skip
"""Node id -> x, y, width, height."""

GROUPS = [
    ("1  What there is: model and evidence", -70, -30, 1000, 840, "#3f789e"),
    ("2  Stock nodes draw whole faces from it", 970, -30, 690, 900, "#88aa88"),
    ("3  Search with the evidence alone", 970, 910, 690, 620, "#b58b2a"),
    ("4  The case: part by part, until the list is stable", 1730, -30, 1580, 1230, "#a1309b"),
]

NOTES = [
    (
        "Read me", -40, 860, 940, 230,
        "# IdentiFace, embedded model\n\nA blurred photo, a rough sketch and a few words become faces and a list of "
        "candidates. Nothing to download; about a minute on a CPU.\n\n**Your own case**: put *Load Image* in place of "
        "the photo and the drawing of *Example Case*, and *Description* in place of its words. Any of the three may be "
        "missing. **Your own gallery**: *Enrol Faces* in place of *Open Gallery*.",
    ),
    (
        "What the result means", -40, 1150, 940, 170,
        "Everybody here is synthetic: the people of the gallery do not exist. A candidate is **an investigative lead, "
        "not an identification**. FPIR is the share of searches, for people who are not in a gallery of this size, that "
        "reach this score by chance. Generated faces are plausible faces, not photographs.",
    ),
    (
        "Rounds", 1760, 440, 320, 250,
        "*Iterate* unfolds into one **Part Round** per part that the words speak of. Each draws several faces, the "
        "evidence chooses one, the better of old and new stays.\n\nTo choose yourself, use *Part Round* with `pick` in "
        "its place.",
    ),
]  # fmt: skip
