"""Stable Diffusion with stock ControlNets: lines for the sketch, tile for the photo."""

from __future__ import annotations

from tests.host.drawn.photographs import case, evidence, faces, titled, toolkit
from tests.host.graphs import node
from tests.host.server import Graph

COLUMNS = [
    ["checkpoint", "scribble", "tile", "embedded"],
    ["matcher", "judge", "finder", "parts"],
    ["example", "photo", "sketch", "evidence"],
    ["positive", "negative", "white", "lines", "colours", "empty"],
    ["toolkit", "gallery"],
    ["start", "iterate", "save"],
    ["face", "sheet"],
]


def graph(checkpoint: str, scribble: str, tile: str, *, side: int, cfg: float, name: str) -> Graph:
    """A case drawn with that checkpoint and those two ControlNets, at `side` pixels."""
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "scribble": titled(node("ControlNetLoader", control_net_name=scribble), "ControlNet: sketch"),
        "tile": titled(node("ControlNetLoader", control_net_name=tile), "ControlNet: photo"),
        **faces(),
        **evidence(),
        "positive": titled(node("CLIPTextEncode", clip=["checkpoint", 1], text="portrait"), "Positive (replaced by the words)"),
        "negative": titled(
            node("CLIPTextEncode", clip=["checkpoint", 1], text="blurred, drawing, cartoon, several people, hat"), "Negative"
        ),
        "white": titled(node("ImageInvert", image=["sketch", 1]), "White lines on black"),
        "lines": titled(
            node(
                "ControlNetApplyAdvanced", positive=["positive", 0], negative=["negative", 0], control_net=["scribble", 0],
                image=["white", 0], strength=0.8, start_percent=0.0, end_percent=0.8,
            ),
            "Sketch steers",
        ),
        "colours": titled(
            node(
                "ControlNetApplyAdvanced", positive=["lines", 0], negative=["lines", 1], control_net=["tile", 0],
                image=["photo", 1], strength=0.6, start_percent=0.0, end_percent=0.8,
            ),
            "Photo steers",
        ),
        "empty": node("EmptyLatentImage", width=side, height=side, batch_size=1),
        "toolkit": toolkit(
            model=["checkpoint", 0], clip=["checkpoint", 1], vae=["checkpoint", 2], positive=["colours", 0],
            negative=["colours", 1], steps=20, cfg=cfg, sampler_name="dpmpp_2m", scheduler="karras",
            prompt="portrait photo of a person, {words}, looking at the camera, plain background",
        ),
        **case(name),
    }  # fmt: skip
