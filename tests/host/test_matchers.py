"""Matchers on a real server: loaded by content, asked about two faces and one photo; every refusal is a sentence."""

from __future__ import annotations

import io
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from identiface_core.faces.alignment import warp
from identiface_core.imaging import to_pil
from identiface_core.synthesis.identity import canonical_nuisance, sample_identities
from identiface_core.synthesis.portrait import render
from tests.core.matcher_files import faces, quantised, tiny_residual
from tests.core.onnx_fakes import matcher as onnx_matcher
from tests.host.graphs import kept, node
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


def scene(people: Any, scale: float, x: float, y: float, size: tuple[int, int]) -> Image.Image:
    """A drawn person, (1, 3, 128, 128), in a picture of `size` (height, width)."""
    there = torch.tensor([[[scale, 0, x], [0, scale, y]]])
    inside = warp(torch.ones(1, 1, 128, 128), there, size, padding="zeros")
    return to_pil((warp(people, there, size) * inside + 0.6 * (1 - inside))[0])


@pytest.fixture
def persons(put_picture: Any) -> tuple[str, str, str]:
    """One drawn person in two wide scenes, and another in a third."""
    drawn = render(sample_identities(2, 79), canonical_nuisance(2)).image
    places = ((0, 1.8, 30, 20, (290, 520)), (0, 1.3, 200, 25, (240, 400)), (1, 1.6, 90, 30, (280, 460)))
    scenes = [scene(drawn[who : who + 1], *place) for who, *place in places]
    names = [put_picture(f"scene{number}.png", one) for number, one in enumerate(scenes)]
    return names[0], names[1], names[2]


def road(picture: str, at: str, matcher: list[Any], finder: list[Any]) -> Graph:
    """Picture, faces, portrait, embedding of the portrait and of the picture itself, by ids that begin with `at`."""
    how = {"choice": "the only one", "number": 0, "box": "", "threshold": 0.0, "on_no_face": "error"}
    return {
        f"{at}image": node("LoadImage", image=picture),
        f"{at}faces": node("IdentiFaceDetectFace", image=[f"{at}image", 0], finder=finder, **how),
        f"{at}portrait": node(
            "IdentiFaceAlignFace", image=[f"{at}image", 0], faces=[f"{at}faces", 0], size=512
        ),
        f"{at}query": node(
            "IdentiFaceEmbedFace", matcher=matcher, image=[f"{at}portrait", 0], origin="photo"
        ),
        f"{at}straight": node(
            "IdentiFaceEmbedFace",
            matcher=matcher,
            image=[f"{at}image", 0],
            faces=[f"{at}faces", 0],
            origin="photo",
        ),
    }


def test_people_are_found_aligned_embedded_and_compared(
    embedded: Server, persons: tuple[str, str, str]
) -> None:
    """The whole road in one graph, with a matcher from an ONNX file that nobody trained."""
    folder = embedded.base / "models" / "identiface_matchers"
    folder.mkdir(exist_ok=True)
    onnx_matcher(folder / "standin.onnx")
    graph: Graph = {
        "finder": node("IdentiFaceLoadFaceDetector", file="embedded"),
        "matcher": node("IdentiFaceLoadMatcher", file="standin.onnx", colour="automatic"),
    }
    for name, at in zip(persons, "abc", strict=True):
        graph |= road(name, at, ["matcher", 0], ["finder", 0])
    pairs = {
        "same": ("aquery", "bquery"),
        "other": ("aquery", "cquery"),
        "straight": ("aquery", "astraight"),
    }
    for name, (first, second) in pairs.items():
        graph[name] = node(
            "IdentiFaceCompareFaces",
            matcher=["matcher", 0],
            map="features",
            query_1=[first, 0],
            query_2=[second, 0],
        )
    run = embedded.run(graph)
    assert run.status == "success", run.message
    cosines = {name: float(run.outputs[name]["text"][0].split()[1]) for name in pairs}
    assert min(cosines["same"], cosines["straight"]) > 0.95 and cosines["other"] < 0.85, cosines


def test_a_picture_that_is_no_portrait_is_refused(embedded: Server, persons: tuple[str, str, str]) -> None:
    graph = {"model": node("IdentiFaceLoadEmbeddedModel"), **road(persons[0], "", ["model", 4], ["model", 7])}
    graph["squashed"] = node("IdentiFaceEmbedFace", matcher=["model", 4], image=["image", 0], origin="photo")
    graph["beside"] = node(
        "IdentiFaceEmbedFace",
        matcher=["model", 4],
        image=["image", 0],
        faces=["faces", 0],
        image_2=["image", 0],
        origin="photo",
    )
    for name in ("squashed", "beside"):
        run = embedded.run(kept({**graph, "show": node("PreviewAny", source=[name, 2])}, "show"))
        assert run.status == "error" and "a portrait is square, this picture is 520 x 290 px" in run.message
    # What Detect Face passes through is padded, as Align Face does it.
    graph["faces"]["inputs"] |= {"choice": "by number", "number": 7, "on_no_face": "pass through"}
    graph["compare"] = node(
        "IdentiFaceCompareFaces",
        matcher=["model", 4],
        map="features",
        query_1=["query", 0],
        query_2=["straight", 0],
    )
    run = embedded.run(kept(graph, "compare"))
    assert run.status == "success", run.message
    assert float(run.outputs["compare"]["text"][0].split()[1]) > 0.97


def test_what_a_similarity_rests_on_is_said(embedded: Server, persons: tuple[str, str, str]) -> None:
    folder = embedded.base / "input" / "few"
    folder.mkdir(exist_ok=True)
    for name in persons[1:]:
        shutil.copy(embedded.base / "input" / name, folder)
    graph: Graph = {"model": node("IdentiFaceLoadEmbeddedModel")}
    for name, at in zip(persons, "ab", strict=False):
        graph |= road(name, at, ["model", 4], ["model", 7])
    graph["aquery"]["inputs"]["origin"] = "generated"
    graph["few"] = node("IdentiFaceEnrolFaces", toolkit=["model", 8], folder="few", save=False, name="few")
    graph["compare"] = node(
        "IdentiFaceCompareFaces",
        matcher=["model", 4],
        map="features",
        query_1=["aquery", 0],
        query_2=["bquery", 0],
        gallery=["few", 0],
        toolkit=["model", 8],
    )
    run = embedded.run(kept(graph, "compare"))
    assert run.status == "success", run.message
    text = run.outputs["compare"]["text"][0]
    assert "359,700 compared" in text, "the table of generated faces reads it"
    assert "gives no table: a calibration wants at least 15" in text, text
    assert "query_1 was made from generated faces." in text and "query_2 was" not in text, text
    graph["bquery"]["inputs"]["origin"] = "generated"
    text = embedded.run(kept(graph, "compare")).outputs["compare"]["text"][0]
    assert "No table was measured for query_1 and query_2." in text and "compared" not in text, text


def test_one_of_several_faces_is_judged(embedded: Server, persons: tuple[str, str, str]) -> None:
    graph: Graph = {"model": node("IdentiFaceLoadEmbeddedModel")}
    for name, at in zip(persons, "ab", strict=False):
        graph[f"{at}image"] = node("LoadImage", image=name)
    graph["both"] = node(
        "ImageStitch",
        image1=["aimage", 0],
        image2=["bimage", 0],
        direction="right",
        match_image_size=False,
        spacing_width=0,
        spacing_color="white",
    )
    how = {"choice": "largest", "number": 0, "box": "", "threshold": 0.0, "on_no_face": "error"}
    graph["faces"] = node("IdentiFaceDetectFace", image=["both", 0], finder=["model", 7], **how)
    graph["judge"] = node(
        "IdentiFaceRecognisability", image=["both", 0], face="automatic", finder=["model", 7]
    )
    run = embedded.run(kept(graph, "judge"))
    assert run.status == "error" and "2 faces were found" in run.message, run.message
    graph["judge"]["inputs"]["faces"] = ["faces", 0]
    run = embedded.run(kept(graph, "judge"))
    assert run.status == "success" and "May be searched" in run.outputs["judge"]["text"][0], run.message


def test_the_embedded_matcher_has_its_tables(embedded: Server, pictures: tuple[str, str]) -> None:
    graph = compared("", pictures)
    graph["model"] = node("IdentiFaceLoadEmbeddedModel")
    del graph["matcher"]
    graph["compare"]["inputs"] |= {"matcher": ["model", 4], "toolkit": ["model", 8]}
    run = embedded.run(graph)
    assert run.status == "success", run.message
    assert "pairs of strangers" in run.outputs["compare"]["text"][0]


def test_a_quantised_graph_is_told_and_guides_by_search_alone(
    embedded: Server, pictures: tuple[str, str]
) -> None:
    """onnxruntime runs it without gradients: decoded guidance says so by name, search is content."""
    pytest.importorskip("onnx")
    folder = embedded.base / "models" / "identiface_matchers"
    folder.mkdir(exist_ok=True)
    (folder / "int8.onnx").write_bytes(quantised())
    graph: Graph = {
        "matcher": node("IdentiFaceLoadMatcher", file="int8.onnx", colour="automatic", scale="signed"),
        "a": node("LoadImage", image=pictures[0]),
        "model": node("IdentiFaceLoadEmbeddedModel"),
        "query": node("IdentiFaceEmbedFace", matcher=["matcher", 0], image=["a", 0], origin="photo"),
        "words": node("CLIPTextEncode", clip=["model", 1], text="A man."),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "guide": node(
            "IdentiFaceIdentityGuidance", model=["model", 0], target=["query", 0], vae=["model", 2], matcher=["matcher", 0],
            method="search", scale=0.1, start=0.0, end=1.0, every_n=2, stop_at=1.0,
        ),
        "k": node(
            "KSampler", model=["guide", 0], positive=["words", 0], negative=["words", 0], latent_image=["empty", 0], seed=1,
            steps=2, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "image": node("VAEDecode", samples=["k", 0], vae=["model", 2]),
        "show": node("PreviewImage", images=["image", 0]),
    }  # fmt: skip
    run = embedded.run(graph)
    if "needs the package onnx" in run.message:
        pytest.skip(run.message)
    assert run.status == "success", f"{run.message}\n{embedded.tail()}"
    text = run.outputs["matcher"]["text"][0]
    assert "112 px, rgb, signed\n" in text and "without gradients" in text and "\nlicence: " in text
    graph["guide"]["inputs"]["method"] = "decoded"
    run = embedded.run(graph)
    assert "no gradient goes through matcher 'onnx-64-" in run.message and "use search" in run.message
    graph["matcher"]["inputs"]["scale"] = "percent"
    assert "Load Matcher: scale: 'percent' is unknown" in embedded.run(graph).message
