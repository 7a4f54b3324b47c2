"""A case with SDXL: stock checkpoint, stock ControlNets."""

from __future__ import annotations

from tests.host.drawn import numbered, photographs, stable

CHECKPOINT, SCRIBBLE, TILE = (
    "sd_xl_base_1.0.safetensors",
    "controlnet_scribble_sdxl_xinsir.safetensors",
    "controlnet_tile_sdxl_xinsir.safetensors",
)
NAMED = stable.graph(CHECKPOINT, SCRIBBLE, TILE, side=1024, cfg=5.0, name="sdxl case")
GRAPH, COLUMNS = numbered(NAMED, stable.COLUMNS)
RUNS = False
VIEW = (-60, -60, 3330, 1080)
GROUPS = [
    ["1  Files", 0, 1, photographs.COLOURS[0]],
    ["2  Evidence", 2, 2, photographs.COLOURS[1]],
    ["3  What steers", 3, 3, photographs.COLOURS[2]],
    ["4  Toolkit", 4, 4, photographs.COLOURS[3]],
    ["5  The case, part by part", 5, 6, photographs.COLOURS[4]],
]
NOTES = [
    (
        "Read me", 2320, 0, 720, 440,
        "# A case with SDXL\n\nFor a card of 12 GB or more.\n\n" + photographs.STEPS + "\n\n" + photographs.files(
            ("sdxl-base", CHECKPOINT, "checkpoints"), ("sdxl-scribble", SCRIBBLE, "controlnet"),
            ("sdxl-tile", TILE, "controlnet"), *photographs.FACE_FILES,
        ),
    ),
    ("What the result means", 2320, 500, 720, 160, photographs.MEANING),
    (
        "Your own", 2320, 720, 720, 160,
        "Any checkpoint, LoRA, ControlNet or sampler of this family works: put it where the stock one stands. A ControlNet that "
        "wants dark lines on white needs no *White lines on black*.",
    ),
]  # fmt: skip
