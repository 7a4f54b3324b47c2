"""A case with PixArt-alpha and the authors' released control branch."""

from __future__ import annotations

from tests.host.drawn import numbered, photographs
from tests.host.drawn.photographs import case, evidence, faces, titled, toolkit
from tests.host.graphs import node

NETWORK, TEXT, VAE = (
    "pixart_alpha_xl_2_1024_ms.safetensors",
    "t5xxl_fp8_e4m3fn.safetensors",
    "vae-ft-mse-840000-ema-pruned.safetensors",
)
NAMED = {
    "network": node("UNETLoader", unet_name=NETWORK, weight_dtype="default"),
    "clip": node("CLIPLoader", clip_name=TEXT, type="pixart", device="default"),
    "vae": node("VAELoader", vae_name=VAE),
    "control": node("IdentiFaceLoadControl", file="identiface.safetensors", vae=["vae", 0]),
    **faces(),
    **evidence(),
    "positive": titled(node("CLIPTextEncode", clip=["clip", 0], text="portrait"), "Positive (replaced by the words)"),
    "negative": titled(node("IdentiFaceNullText", model=["network", 0], positive=["positive", 0]), "No words, as published"),
    "empty": node("EmptyLatentImage", width=1024, height=1024, batch_size=1),
    "toolkit": toolkit(
        model=["network", 0], clip=["clip", 0], vae=["vae", 0], positive=["positive", 0], negative=["negative", 0],
        control=["control", 0], steps=20, cfg=4.5, sampler_name="dpmpp_2m", scheduler="normal", prompt="{words}",
    ),
    **case("pixart case"),
}  # fmt: skip
GRAPH, COLUMNS = numbered(
    NAMED,
    [
        ["network", "clip", "vae", "control", "embedded"],
        ["matcher", "judge", "finder", "parts"],
        ["example", "photo", "sketch", "evidence"],
        ["positive", "negative", "empty"],
        ["toolkit", "gallery"],
        ["start", "iterate", "save"],
        ["face", "sheet"],
    ],
)
RUNS = False
VIEW = (-60, -60, 3330, 1080)
GROUPS = [
    ["1  Files", 0, 1, photographs.COLOURS[0]],
    ["2  Evidence", 2, 2, photographs.COLOURS[1]],
    ["3  Words", 3, 3, photographs.COLOURS[2]],
    ["4  Toolkit", 4, 4, photographs.COLOURS[3]],
    ["5  The case, part by part", 5, 6, photographs.COLOURS[4]],
]
NOTES = [
    (
        "Read me", 2320, 0, 720, 440,
        "# A case with PixArt-alpha and IdentiFace's released control\n\nFor a card of 12 GB with the fp8 text encoder, of 24 GB "
        "with `t5xxl-fp16`.\n\n" + photographs.STEPS + "\n\n" + photographs.files(
            ("pixart-1024", NETWORK, "diffusion_models"), ("t5xxl-fp8", TEXT, "text_encoders"), ("vae-ft-mse", VAE, "vae"),
            *photographs.FACE_FILES,
        ),
    ),
    (
        "The control branch", 2320, 500, 720, 190,
        "Made once from the authors' checkpoint:\n\n    identiface weights get identiface-control\n    identiface weights import "
        "identiface-official latest.pth --out models/controlnet/identiface.safetensors\n\nIt reads photo and sketch itself: no "
        "ControlNet is needed. It was trained at 1024 x 1024.",
    ),
    ("What the result means", 2320, 750, 720, 160, photographs.MEANING),
]  # fmt: skip
