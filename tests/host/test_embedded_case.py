"""The shipped workflow on a real server: evidence in, faces and a candidate list out."""

from __future__ import annotations

import copy
import importlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.host.graphs import found, kept, node, shipped
from tests.host.server import PACK, Graph, Run, Server

pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return shipped("embedded_case")


def finished(server: Server, graph: Graph) -> Run:
    run = server.run(graph)
    assert run.status == "success", f"{run.message}\n{server.tail()}"
    return run


def test_workflows_and_their_api_forms_hold_the_same_nodes() -> None:
    workflows = sorted((PACK / "workflows").glob("*.json"))
    assert workflows
    for path in workflows:
        drawn = [one["type"] for one in json.loads(path.read_text())["nodes"] if "Note" not in one["type"]]
        posted = [
            one["class_type"]
            for one in importlib.import_module(f"tests.host.drawn.{path.stem}").GRAPH.values()
        ]
        assert sorted(drawn) == sorted(posted), path.name
        assert any(path.with_suffix(end).is_file() for end in (".jpg", ".png")), f"{path.name} has no picture"


def test_evidence_becomes_faces_and_candidates(embedded: Server, graph: Graph) -> None:
    run = finished(embedded, graph)
    assert run.previews > 0

    (photo,) = run.outputs[found(graph, "IdentiFaceLQPhoto")]["text"]
    assert "taken whole as a portrait" in photo, "its size alone decided that"
    faces = run.outputs[graph_id(graph, "Four faces, whole")]["images"]
    assert len(faces) == 4
    rounds = run.outputs[graph_id(graph, "The face, round by round")]["images"]
    assert len(rounds) >= 2, "the whole face and at least one part"
    for one in [*faces, *rounds]:
        picture = np.asarray(Image.open(io.BytesIO(embedded.image(one))))
        assert picture.shape == (128, 128, 3) and picture.std() > 15

    for kind in ("IdentiFaceSearchGallery", "IdentiFaceCandidateSheet", "IdentiFaceSaveCase"):
        listed = run.outputs[found(graph, kind)]["candidates"]
        assert [one["rank"] for one in listed] == list(range(1, 11))
        scores = [one["score"] for one in listed]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= one["fpir"] <= 1 for one in listed), "every score comes with its error rate"

    folder = embedded.base / "output" / "identiface" / "embedded case"
    saved = json.loads((folder / "case.json").read_text())
    assert saved["schema_version"] == 1 and "not an identification" in saved["notice"]
    assert len(saved["candidates"]) == 10
    from identiface_core.provenance import Origin, read_origin

    for one in saved["rounds"]:
        if one["image"]:
            assert read_origin(folder / one["image"]) is Origin.GENERATED
    assert (folder / "report.html").is_file() and (folder / "candidates.png").is_file()


def test_second_run_is_cached_and_more_rounds_draw_only_the_new_ones(embedded: Server, graph: Graph) -> None:
    short = copy.deepcopy(kept(graph, found(graph, "IdentiFaceCandidateSheet")))
    loop = found(short, "IdentiFaceIterate")
    short[loop]["inputs"]["rounds"] = 2
    short[found(short, "IdentiFaceStartCase")]["inputs"]["seed"] = 77
    finished(embedded, short)
    again = finished(embedded, short)
    assert again.ran == [] and set(short) <= set(again.cached)

    short[loop]["inputs"]["rounds"] = 3
    grown = finished(embedded, short)
    rounds = [name for name, _ in grown.outputs.items() if name.startswith(f"{loop}.")]
    assert len(rounds) == 1, "the first two rounds must come from the cache"


def test_same_seed_gives_the_same_case(embedded: Server, graph: Graph) -> None:
    short = copy.deepcopy(kept(graph, found(graph, "IdentiFaceSaveCase")))
    short[found(short, "IdentiFaceIterate")]["inputs"]["rounds"] = 2
    texts = []
    for name in ("first", "second"):
        short[found(short, "IdentiFaceSaveCase")]["inputs"]["name"] = name
        embedded.post("/free", {"free_memory": True, "unload_models": True})
        finished(embedded, short)
        content = json.loads((embedded.base / "output" / "identiface" / name / "case.json").read_text())
        texts.append({key: value for key, value in content.items() if key != "times"})
    assert texts[0] == texts[1]


def test_a_guided_case_is_nearer_to_its_evidence(embedded: Server, graph: Graph) -> None:
    """By the guiding matcher; scale 0 is the unguided case, and each value of it gives a case of its own."""
    short = copy.deepcopy(kept(graph, found(graph, "IdentiFaceSaveCase")))
    short[found(short, "IdentiFaceIterate")]["inputs"]["rounds"] = 1
    whole = {}
    for name, scale in (("unasked", None), ("none", 0.0), ("guided", 0.03)):
        start, save = (found(short, kind) for kind in ("IdentiFaceStartCase", "IdentiFaceSaveCase"))
        short[save]["inputs"]["name"] = name
        short[start]["inputs"] |= {} if scale is None else {"identity_guidance": scale}
        finished(embedded, short)
        content = json.loads((embedded.base / "output" / "identiface" / name / "case.json").read_text())
        whole[name] = content["rounds"][0]
        assert content["settings"]["identity_guidance"] == (scale or 0.0)
    assert whole["none"] == whole["unasked"]
    assert whole["guided"]["evidence_terms"]["query"] > whole["unasked"]["evidence_terms"]["query"] + 0.02, (
        whole
    )


def test_saved_case_goes_on_and_the_witness_chooses(embedded: Server, graph: Graph) -> None:
    short = copy.deepcopy(kept(graph, found(graph, "IdentiFaceSaveCase")))
    start, save = found(short, "IdentiFaceStartCase"), found(short, "IdentiFaceSaveCase")
    short[found(short, "IdentiFaceIterate")]["inputs"]["rounds"] = 1
    short[save]["inputs"]["name"] = "half"
    finished(embedded, short)
    more = {name: one for name, one in short.items() if name != save} | {
        "load": node("IdentiFaceLoadCase", case=[start, 0], name="half"),
        "hair": node("IdentiFacePartRound", case=["load", 0], part="hair", pick=1),
        "choose": node("IdentiFaceChooseCandidate", case=["hair", 0], rank=2),
        "keep": node("IdentiFaceSaveCase", case=["choose", 0], name="whole"),
    }
    finished(embedded, more)
    saved = json.loads((embedded.base / "output" / "identiface" / "whole" / "case.json").read_text())
    assert [one["part"] for one in saved["rounds"]] == ["overview", "hair"]
    assert saved["rounds"][1]["chosen_by"] == "witness"
    assert saved["stop_reason"].startswith("the witness chose")

    more[start]["inputs"]["seed"] = 7
    run = embedded.run(more)
    assert run.status == "error" and "settings" in run.message


def test_interruption_ends_the_run_and_the_next_one_works(embedded: Server, graph: Graph) -> None:
    long = copy.deepcopy(kept(graph, found(graph, "IdentiFaceCandidateSheet")))
    long[found(long, "IdentiFaceStartCase")]["inputs"] |= {"steps": 60, "seed": 1234}
    assert embedded.run(long, interrupt=True).status == "interrupted"
    assert embedded.queue_empties()
    long[found(long, "IdentiFaceStartCase")]["inputs"]["steps"] = 2
    finished(embedded, long)


def graph_id(graph: Graph, title: str) -> str:
    return next(name for name, one in graph.items() if one.get("_meta", {}).get("title") == title)
