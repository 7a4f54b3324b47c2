"""Cases drawn with the host's own models: tiny checkpoints and ControlNets of Stable Diffusion, stock nodes between."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from identiface_core.imaging import to_pil
from identiface_core.synthesis.identity import canonical_nuisance, sample_identities
from identiface_core.synthesis.portrait import render
from identiface_core.weights.released import import_control
from tests.core.onnx_fakes import matcher
from tests.host.drawn import photographs
from tests.host.graphs import node
from tests.host.server import PACK, Graph, Server, why_not

pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]


CASE = {
    "seed": 7,
    "seeds": 2,
    "steps": 4,
    "guidance_scale": 2.0,
    "strength": 1.0,
    "candidates": 10,
    "exclude": "",
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with tiny networks of Stable Diffusion."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    packs = Path(__file__).parent / "packs"
    with Server({"stock": packs / "stock", "tiny": packs / "tiny"}) as running:
        models = running.base / "models"
        for folder in ("identiface_matchers", "controlnet"):
            (models / folder).mkdir(parents=True, exist_ok=True)
        matcher(models / "identiface_matchers" / photographs.MATCHER, seed=1)
        matcher(models / "identiface_matchers" / "judge.onnx", seed=2)
        weights = PACK / "tests" / "core" / "data" / "reference" / "identiface-tiny-weights.safetensors"
        import_control(weights, models / "controlnet" / "identiface.safetensors", heads=4, half=False)
        people = running.base / "input" / "people"
        people.mkdir(parents=True)
        for place, picture in enumerate(render(sample_identities(6, 5), canonical_nuisance(6)).image):
            to_pil(picture).resize((512, 512)).save(people / f"person {place}.png")
        running.get("/object_info")
        yield running


def graph(family: str = "sd15", *, words: str = "{words}, portrait", **start: Any) -> Graph:
    """A case of the example's evidence: sketch and photo through ControlNets, words through the prompt."""
    return {
        "embedded": node("IdentiFaceLoadEmbeddedModel"),
        "checkpoint": node("TinyCheckpoint", family=family, seed=1),
        "scribble": node("TinyControlNet", family=family, seed=2),
        "tile": node("TinyControlNet", family=family, seed=3),
        "example": node("IdentiFaceExampleCase"),
        "photo": node("IdentiFaceLQPhoto", image=["example", 0], face="automatic", number=0, box="", finder=["embedded", 7]),
        "sketch": node("IdentiFaceSketch", image=["example", 1], kind="drawing"),
        "evidence": node("IdentiFaceEvidence", lq_photo=["photo", 0], sketch=["sketch", 0], description=["example", 2]),
        "positive": node("CLIPTextEncode", clip=["checkpoint", 1], text="face"),
        "negative": node("CLIPTextEncode", clip=["checkpoint", 1], text="blurred"),
        "lines": node(
            "ControlNetApplyAdvanced", positive=["positive", 0], negative=["negative", 0], control_net=["scribble", 0],
            image=["example", 1], strength=0.8, start_percent=0.0, end_percent=1.0,
        ),
        "colours": node(
            "ControlNetApplyAdvanced", positive=["lines", 0], negative=["lines", 1], control_net=["tile", 0],
            image=["example", 0], strength=0.8, start_percent=0.0, end_percent=1.0,
        ),
        "empty": node("EmptyLatentImage", width=192, height=256, batch_size=1),
        "toolkit": node(
            "IdentiFaceModelToolkit", toolkit=["embedded", 8], model=["checkpoint", 0], clip=["checkpoint", 1],
            vae=["checkpoint", 2], positive=["colours", 0], negative=["colours", 1], latent=["empty", 0], steps=3, cfg=4.0,
            sampler_name="euler", scheduler="karras", prompt=words,
        ),
        "gallery": node("IdentiFaceOpenGallery", gallery="embedded demo"),
        "start": node(
            "IdentiFaceStartCase", toolkit=["toolkit", 0], evidence=["evidence", 0], gallery=["gallery", 0], **{**CASE, **start}
        ),
        "whole": node("IdentiFacePartRound", case=["start", 0], part="next", pick=-1),
        "hair": node("IdentiFacePartRound", case=["whole", 0], part="hair", pick=0),
        "save": node("IdentiFaceSaveCase", case=["hair", 0], name=f"case {family}"),
        "before": node("SaveLatent", samples=["whole", 2], filename_prefix="whole"),
        "after": node("SaveLatent", samples=["hair", 2], filename_prefix="hair"),
    }  # fmt: skip


def shipped_for_photographs(name: str) -> Graph:
    """The graph of a shipped workflow, with tiny networks in place of the files it names, and small pictures."""
    graph: Graph = copy.deepcopy(importlib.import_module(f"tests.host.drawn.{name}").NAMED)
    family = "sdxl" if name == "sdxl_case" else "sd15"
    tiny = {
        "checkpoint": node("TinyCheckpoint", family=family, seed=1),
        "scribble": node("TinyControlNet", family=family, seed=2),
        "tile": node("TinyControlNet", family=family, seed=3),
        "network": node("TinyPixArt", width=48, dtype="float32"),
        "clip": node("TinyWords", width=32),
        "vae": node("IdentiFaceLoadEmbeddedModel"),
    }
    graph |= {key: one for key, one in tiny.items() if key in graph}
    for one in graph.values():
        for label, value in one["inputs"].items():
            if value == ["vae", 0]:
                one["inputs"][label] = ["vae", 2]
    graph["judge"]["inputs"]["file"] = "judge.onnx"
    graph["finder"]["inputs"]["file"] = graph["parts"]["inputs"]["file"] = "embedded"
    side = 512 if "network" in graph else 256  # the host's PixArt takes no less
    graph["empty"]["inputs"] |= {"width": side, "height": side}
    graph["toolkit"]["inputs"]["steps"] = 2
    graph["start"]["inputs"]["seeds"] = 2
    graph["iterate"]["inputs"]["rounds"] = 3
    return graph


@pytest.mark.parametrize("name", ["sd15_case", "sdxl_case", "pixart_case"])
def test_the_shipped_workflows_run(stock: Server, name: str) -> None:
    """Matchers from files, gallery from a folder, rounds, sheet and saved case: the graphs that users open."""
    run = stock.run(shipped_for_photographs(name))
    assert run.status == "success", f"{run.message}\n{stock.tail()}"
    folder = stock.base / "output" / "identiface" / name.replace("_", " ")
    case = json.loads((folder / "case.json").read_text())
    assert [one["part"] for one in case["rounds"]][0] == "overview" and len(case["rounds"]) == 3
    assert {one["person"] for one in case["candidates"]} == {f"person {place}" for place in range(6)}
    assert case["candidate_lists"]["evidence query"], "the photo is a query of a matcher of one's own"
    assert (folder / "report.html").is_file()


def latents(server: Server, run: Any, name: str) -> np.ndarray[Any, Any]:
    saved = run.outputs[name]["latents"][0]
    return load_file(server.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_case_with_a_checkpoint_and_stock_controlnets(stock: Server, family: str) -> None:
    run = stock.run(graph(family))
    assert run.status == "success", f"{run.message}\n{stock.tail()}"
    whole, hair = latents(stock, run, "before"), latents(stock, run, "after")
    assert whole.shape == (1, 4, 32, 24)
    changed = np.abs(hair - whole).max(axis=(0, 1)) > 1e-6
    assert changed.any() and not changed.all(), "a part round redraws a part"


def test_words_controlnets_and_seed_all_reach_the_drawing(stock: Server) -> None:
    """Each is changed alone, in one run; the same again gives the same bits."""

    def renamed(made: Graph, mark: str) -> Graph:
        shared = (
            "embedded",
            "checkpoint",
            "scribble",
            "tile",
            "example",
            "photo",
            "sketch",
            "evidence",
            "gallery",
        )
        name = lambda old: old if old in shared else f"{old} {mark}"  # noqa: E731
        return {
            name(key): {
                **one,
                "inputs": {
                    label: [name(value[0]), value[1]] if isinstance(value, list) else value
                    for label, value in one["inputs"].items()
                },
            }
            for key, one in made.items()
        }

    def whole_face(mark: str, **more: Any) -> Graph:
        made = graph(**more)
        for late in ("hair", "save", "after"):
            del made[late]
        return renamed(made, mark)

    without = whole_face("without")
    without["toolkit without"]["inputs"]["positive"] = ["positive without", 0]
    wanted = {
        **whole_face("first"), **whole_face("again"), **whole_face("mute", words="a portrait"),
        **whole_face("seed", seed=8), **without,
    }  # fmt: skip
    run = stock.run(wanted)
    assert run.status == "success", f"{run.message}\n{stock.tail()}"
    first, again, *others = (
        latents(stock, run, f"before {mark}") for mark in ("first", "again", "mute", "seed", "without")
    )
    assert (first == again).all()
    assert all(np.abs(first - other).max() > 1e-3 for other in others)


def test_the_case_says_what_it_was_drawn_with(stock: Server) -> None:
    run = stock.run(graph())
    assert run.status == "success", f"{run.message}\n{stock.tail()}"
    case = json.loads((stock.base / "output" / "identiface" / "case sd15" / "case.json").read_text())
    assert (case["settings"]["steps"], case["settings"]["guidance_scale"]) == (3, 4.0)
    assert len(case["models"]["model"]) == 16
    assert case["candidates"][0]["fpir"] is None, "tables of the embedded model do not read these faces"


def test_an_unknown_sampler_is_refused_before_anything_is_drawn(stock: Server) -> None:
    wanted = graph()
    wanted["toolkit"]["inputs"]["scheduler"] = "karas"
    run = stock.run(wanted)
    assert run.status == "error" and "karas" in run.message and "karras" in run.message


def test_fifty_cases_do_not_grow_memory(stock: Server) -> None:
    """Resident memory after ten cases of one round, and after forty more."""

    def run(seed: int) -> None:
        wanted = graph(seed=seed)
        for late in ("hair", "save", "after"):
            del wanted[late]
        assert stock.run(wanted).status == "success", stock.tail()

    for seed in range(10):
        run(seed)
    before = stock.resident()
    for seed in range(10, 50):
        run(seed)
    assert stock.resident() - before < 60, "MiB after forty further cases"
