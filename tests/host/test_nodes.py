"""What a user sees of each node on a real server, and how nodes say no."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.host.graphs import node, sampled
from tests.host.server import PACK, Graph, Server

pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]

IDS = (PACK / "tests" / "host" / "data" / "node_ids.txt").read_text().split()
"""Every id ever released: shared graphs name them, so none may go or change."""


def ours(server: Server) -> dict[str, dict[str, Any]]:
    listed: dict[str, dict[str, Any]] = server.get("/object_info")
    return {name: one for name, one in listed.items() if name.startswith("IdentiFace")}


def test_every_node_is_there_and_explains_itself(server: Server) -> None:
    nodes = ours(server)
    assert sorted(nodes) == sorted(IDS), "IMPORT FAILED" if not nodes else server.tail()
    for name, one in nodes.items():
        assert one["category"].split("/")[0] == "IdentiFace", name
        assert one["description"] and not one["display_name"].startswith("IdentiFace"), name
        assert (PACK / "web" / "docs" / f"{name}.md").is_file(), f"{name} has no help page"
        assert all(label.islower() for label in one["output_name"]), (
            f"{name}: outputs are called by their types"
        )
        for group in ("required", "optional"):
            for label, spec in one["input"].get(group, {}).items():
                assert len(spec) > 1 and spec[1].get("tooltip"), f"{name}.{label} has no tooltip"


def test_help_pages_and_examples_are_served(server: Server) -> None:
    page = server.fetch(f"/extensions/identiface/docs/{IDS[0]}.md").decode()
    assert page.startswith("# ")
    assert "embedded_case" in server.get("/workflow_templates").get("identiface", [])


def test_stock_sampler_draws_a_face(embedded: Server) -> None:
    run = embedded.run(sampled())
    assert run.status == "success", run.message
    shown = run.outputs["show"]["images"]
    assert len(shown) == 2 and run.previews > 0
    pictures = [np.asarray(Image.open(io.BytesIO(embedded.image(one)))) for one in shown]
    for picture in pictures:
        assert picture.shape == (128, 128, 3)
        assert picture.std() > 20
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddim", "uni_pc"])
def test_other_samplers_run(embedded: Server, sampler: str) -> None:
    run = embedded.run(sampled(sampler_name=sampler, steps=4))
    assert run.status == "success", run.message


def controlled(strength: float, **more: Any) -> Graph:
    """Latents sampled with and without control, each saved."""
    graph = sampled(steps=4)
    graph |= {
        "example": node("IdentiFaceExampleCase"),
        "sketch": node("IdentiFaceSketch", image=["example", 1], kind="drawing"),
        "control": node(
            "IdentiFaceApplyControl",
            model=["model", 0],
            control=["model", 3],
            evidence=["sketch", 0],
            strength=strength,
            **{"start": 0.0, "end": 1.0, **more},
        ),
    }
    graph["k2"] = {"class_type": "KSampler", "inputs": {**graph["k"]["inputs"], "model": ["control", 0]}}
    for name in ("k", "k2"):
        graph[f"save-{name}"] = node(
            "SaveLatent", samples=[name, 0], filename_prefix=f"latent-{name}-{strength}"
        )
    return graph


def latents(server: Server, run: Any, name: str) -> np.ndarray[Any, Any]:
    from safetensors.numpy import load_file

    saved = run.outputs[f"save-{name}"]["latents"][0]
    return load_file(server.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]


def test_strength_zero_is_bit_identical_to_no_control(embedded: Server) -> None:
    run = embedded.run(controlled(0.0))
    assert run.status == "success", run.message
    assert (latents(embedded, run, "k") == latents(embedded, run, "k2")).all()


def test_control_changes_the_face_and_leaves_the_model_alone(embedded: Server) -> None:
    def one_face(strength: float) -> Graph:
        """Another batch: the host forgets the other graph's samples, not its model."""
        return {
            **controlled(strength),
            "empty": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        }

    before = embedded.run(one_face(0.0))
    plain = latents(embedded, before, "k")
    run = embedded.run(controlled(1.0))
    assert run.status == "success", run.message
    assert np.abs(latents(embedded, run, "k") - latents(embedded, run, "k2")).max() > 0.05
    after = embedded.run(one_face(1.0))
    assert after.status == "success", after.message
    assert "k" in after.ran and "model" in after.cached
    assert (plain == latents(embedded, after, "k")).all()


def test_control_outside_of_its_window_does_nothing(embedded: Server) -> None:
    """Four steps of the normal schedule lie at 0, 1/3, 2/3 and 1."""
    run = embedded.run(controlled(1.0, start=0.4, end=0.6))
    assert run.status == "success", run.message
    assert (latents(embedded, run, "k") == latents(embedded, run, "k2")).all()


def test_part_mask_with_stock_inpainting_changes_the_part_alone(embedded: Server) -> None:
    graph = sampled(steps=4)
    again = {**graph["k"]["inputs"], "seed": 9, "latent_image": ["masked", 0]}
    graph |= {
        "mask": node(
            "IdentiFacePartMask", parts=["model", 6], image=["image", 0], part="hair", unseen="template"
        ),
        "masked": node("SetLatentNoiseMask", samples=["k", 0], mask=["mask", 0]),
        "k2": node("KSampler", **again),
        "save-k": node("SaveLatent", samples=["k", 0], filename_prefix="whole"),
        "save-k2": node("SaveLatent", samples=["k2", 0], filename_prefix="part"),
    }
    run = embedded.run(graph)
    assert run.status == "success", run.message
    moved = np.abs(latents(embedded, run, "k") - latents(embedded, run, "k2")).max(1)
    assert moved[:, 9:13, 7:9].max() < 1e-5, "mouth and chin lie outside of the hair"
    assert moved.max() > 0.05


Put = Callable[[str, Image.Image], str]


def spoiled(put_picture: Put) -> dict[str, tuple[Graph, str]]:
    """Graphs that cannot work, and what the error must speak of."""
    blank = node("LoadImage", image=put_picture("blank.png", Image.new("RGB", (200, 200), "white")))
    speck = node("LoadImage", image=put_picture("speck.png", Image.new("RGB", (1, 1), "grey")))
    words = {"parts": "", "overview": ""}

    def description(**changed: str) -> Graph:
        said = node("IdentiFaceDescription", **{**words, **changed})
        return {"d": said, "show": node("PreviewAny", source=["d", 1])}

    photo = node("IdentiFaceLQPhoto", image=["image", 0], face="automatic", number=0, box="")
    boxed = {**photo, "inputs": {**photo["inputs"], "face": "by box", "box": "1 2 three"}}
    return {
        "unknown part": (description(overview="A man.", parts="knee: knobbly"), "knee"),
        "no colon": (description(parts="long black hair"), "long black hair"),
        "empty description": (description(), "description is empty"),
        "empty sketch": (
            {"image": blank, "s": node("IdentiFaceSketch", image=["image", 0], kind="drawing")},
            "empty",
        ),
        "bogus combo": (
            {"image": blank, "s": node("IdentiFaceSketch", image=["image", 0], kind="song")},
            "song",
        ),
        "one pixel": ({"image": speck, "p": photo}, "1 x 1"),
        "no finder": ({"image": blank, "p": photo}, "finder"),
        "bad box": ({"image": blank, "p": boxed}, "x0, y0, x1, y1"),
        "no evidence": (
            {"e": node("IdentiFaceEvidence"), "show": node("PreviewAny", source=["e", 0])},
            "no evidence",
        ),
        "no gallery": (
            {
                "g": node("IdentiFaceOpenGallery", gallery="nobody.safetensors"),
                "show": node("PreviewAny", source=["g", 1]),
            },
            "nobody.safetensors",
        ),
    }


def test_bad_input_gets_a_readable_error(server: Server, put_picture: Put) -> None:
    from tests.host.server import Rejected

    for name, (graph, expected) in spoiled(put_picture).items():
        try:
            run = server.run(graph)
            said = run.message
            assert run.status == "error", name
            assert run.error["exception_type"].startswith("identiface_core.errors."), (name, run.error)
        except Rejected as refused:  # hosts that check combos say no earlier
            said = json.dumps(refused.errors)
        assert expected in said, (name, said)
        assert "Traceback" not in said and len(said) < 2000
    assert server.queue_empties()


def test_missing_weights_name_the_file(server: Server) -> None:
    if (PACK / "identiface_core" / "embedded" / "hashes.json").is_file():
        pytest.skip("the embedded model is there")
    run = server.run(sampled())
    assert run.status == "error" and "hashes.json" in run.message, run.message


def test_enrolling_a_folder_reports_who_was_left_out(embedded: Server, put_picture: Put) -> None:
    folder = embedded.base / "input" / "people"
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (160, 160), "white").save(folder / "nobody.png")
    graph = {
        "model": node("IdentiFaceLoadEmbeddedModel"),
        "enrol": node("IdentiFaceEnrolFaces", toolkit=["model", 8], folder="people", save=False, name="x"),
    }
    run = embedded.run(graph)
    assert run.status == "error"
    assert "nobody.png" in run.message and "no face" in run.message
