"""Matchers on a real server: loaded by content, asked about two faces and one photo; every refusal is a sentence."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from tests.core.matcher_files import faces, tiny_residual
from tests.host.graphs import node
from tests.host.server import Graph, Server

pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]


@pytest.fixture
def file(server: Server) -> str:
    """AdaFace's network with few channels in the host's folder, under a name that tells nothing."""
    folder = server.base / "models" / "identiface_matchers"
    folder.mkdir(exist_ok=True)
    state = {"model." + name: value.clone() for name, value in tiny_residual().state_dict().items()}
    save_file(state, folder / "buffalo.safetensors")
    return "buffalo.safetensors"


@pytest.fixture
def pictures(put_picture: Any) -> tuple[str, str]:
    names = []
    for number, face in enumerate(faces(2, 200)):
        pixels = (face.movedim(0, -1) * 255).byte().numpy()
        names.append(put_picture(f"face{number}.png", Image.fromarray(pixels)))
    return names[0], names[1]


def compared(file: str, pictures: tuple[str, str], **more: Any) -> Graph:
    return {
        "matcher": node("IdentiFaceLoadMatcher", file=file, colour="automatic"),
        "a": node("LoadImage", image=pictures[0]),
        "b": node("LoadImage", image=pictures[1]),
        "compare": node(
            "IdentiFaceCompareFaces",
            **{
                "matcher": ["matcher", 0],
                "map": "features",
                "image_1": ["a", 0],
                "image_2": ["b", 0],
                **more,
            },
        ),
    }


def test_two_faces_are_compared(server: Server, file: str, pictures: tuple[str, str]) -> None:
    run = server.run(compared(file, pictures))
    assert run.status == "success", run.message
    text = run.outputs["compare"]["text"][0]
    assert text.startswith("similarity ") and "adaface-ir1-2-1-1" in text and "lead" in text
    shown = np.asarray(Image.open(io.BytesIO(server.image(run.outputs["compare"]["images"][0]))))
    assert shown.shape[1] > 900 and shown.std() > 20
    same = server.run(compared(file, (pictures[0], pictures[0]), map="occlusion"))
    assert "similarity 1.000" in same.outputs["compare"]["text"][0], same.message


def test_embeddings_of_several_pictures_are_fused(
    server: Server, file: str, pictures: tuple[str, str]
) -> None:
    graph = compared(file, pictures)
    graph["e"] = node(
        "IdentiFaceEmbedFace", matcher=["matcher", 0], image=["a", 0], image_2=["b", 0], origin="photo"
    )
    graph["compare"]["inputs"] |= {"query_1": ["e", 0]}
    del graph["compare"]["inputs"]["image_1"]
    run = server.run(graph)
    assert run.status == "success", run.message
    assert run.outputs["e"]["text"][0].splitlines()[1].startswith("picture 1: quality ")
    similarity = float(run.outputs["compare"]["text"][0].split()[1])
    assert 0 < similarity < 1


@pytest.mark.parametrize("side", [7, 48])
def test_a_photo_is_judged_before_it_is_searched(server: Server, put_picture: Any, side: int) -> None:
    pixels = np.random.RandomState(0).randint(0, 255, (side, side, 3)).astype(np.uint8)
    photo = Image.fromarray(pixels).resize((8, 8)).resize((side, side))
    graph = {
        "image": node("LoadImage", image=put_picture(f"lq{side}.png", photo)),
        "r": node("IdentiFaceRecognisability", image=["image", 0], face="automatic"),
    }
    run = server.run(graph)
    assert run.status == "success", run.message
    assert ("Do not search" in run.outputs["r"]["text"][0]) == (side == 7)
    assert run.outputs["r"]["images"]


def test_refusals_say_what_to_do(
    server: Server, file: str, pictures: tuple[str, str], put_picture: Any
) -> None:
    folder = server.base / "models" / "identiface_matchers"
    save_file({"a": tiny_residual().input_layer[0].weight.clone()}, folder / "adaface.safetensors")
    pack = server.base / "models" / "insightface" / "models" / "empty"
    pack.mkdir(parents=True, exist_ok=True)
    tall = put_picture("tall.png", Image.new("RGB", (100, 160), "grey"))
    cases: dict[str, tuple[Graph, str]] = {
        "nothing there": (compared("none.onnx", pictures), "identiface weights"),
        "known, not here": (compared("sface", pictures), "identiface weights get sface"),
        "something else": (compared("adaface.safetensors", pictures), "this is a file of tensors"),
        "empty pack": (compared("insightface: empty", pictures), "no .onnx file"),
        "no portrait": (compared(file, (tall, pictures[1])), "a portrait is square"),
        "bogus map": (compared(file, pictures, map="song"), "song"),
    }
    alone = compared(file, pictures)
    del alone["compare"]["inputs"]["image_2"]
    cases["one side"] = (alone, "image_2 or query_2")
    for name, (graph, said) in cases.items():
        try:
            run = server.run(graph)
            text = run.message
            assert run.error["exception_type"].startswith("identiface_core.errors."), (name, run.error)
        except Exception as refused:
            if type(refused).__name__ != "Rejected":
                raise
            text = str(refused)
        assert said in text, (name, text)


def test_the_embedded_matcher_has_its_tables(embedded: Server, pictures: tuple[str, str]) -> None:
    graph = compared("", pictures)
    graph["model"] = node("IdentiFaceLoadEmbeddedModel")
    del graph["matcher"]
    graph["compare"]["inputs"] |= {"matcher": ["model", 4], "toolkit": ["model", 8]}
    run = embedded.run(graph)
    assert run.status == "success", run.message
    assert "pairs of strangers" in run.outputs["compare"]["text"][0]
