"""Graphs that the host tests queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.host.server import Graph

DATA = Path(__file__).parent / "data"


def node(kind: str, /, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def shipped(name: str) -> Graph:
    """The API form of `workflows/<name>.json`."""
    graph: Graph = json.loads((DATA / f"{name}_api.json").read_text())
    return graph


def kept(graph: Graph, *ends: str) -> Graph:
    """The nodes that `ends` need, and `ends` themselves."""
    wanted: set[str] = set()
    waiting = list(ends)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += [value[0] for value in graph[name]["inputs"].values() if isinstance(value, list)]
    return {name: graph[name] for name in graph if name in wanted}


def found(graph: Graph, kind: str) -> str:
    """The id of the only node of a kind."""
    names = [name for name, one in graph.items() if one["class_type"] == kind]
    assert len(names) == 1, (kind, names)
    return names[0]


def sampled(seed: int = 3, **more: Any) -> Graph:
    """Words alone through stock nodes: load, encode, KSampler, decode, show (ids: model, k, image, show)."""
    return {
        "model": node("IdentiFaceLoadEmbeddedModel"),
        "words": node("CLIPTextEncode", clip=["model", 1], text="A man with short black hair and a beard."),
        "none": node("CLIPTextEncode", clip=["model", 1], text=""),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=2),
        "k": node(
            "KSampler",
            model=["model", 0],
            positive=["words", 0],
            negative=["none", 0],
            latent_image=["empty", 0],
            seed=seed,
            **{
                "steps": 6,
                "cfg": 2.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
                **more,
            },
        ),
        "image": node("VAEDecode", samples=["k", 0], vae=["model", 2]),
        "show": node("PreviewImage", images=["image", 0]),
    }
