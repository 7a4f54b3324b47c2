"""Identity Guidance on the real host: it leads, leaves no trace, and says what does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.host.drawn import identity_guidance
from tests.host.graphs import node
from tests.host.server import Graph, Server, why_not

pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]
KNOBS = {"method": "latent", "scale": 0.1, "start": 0.0, "end": 1.0, "every_n": 2, "stop_at": 1.0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with tiny networks beside the embedded ones."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Server({"tiny": Path(__file__).parent / "packs" / "tiny"}) as running:
        running.get("/object_info")
        yield running


def drawn(name: str, model: list[Any], seed: int = 5, steps: int = 8) -> Graph:
    """A KSampler on `model`, its latents saved, and its pictures as `image-NAME`."""
    return {
        name: node(
            "KSampler", model=model, positive=["words", 0], negative=["none", 0], latent_image=["empty", 0], seed=seed,
            steps=steps, cfg=1.0, sampler_name="dpmpp_2m", scheduler="normal", denoise=1.0,
        ),
        f"save-{name}": node("SaveLatent", samples=[name, 0], filename_prefix=f"guidance-{name}"),
        f"image-{name}": node("VAEDecode", samples=[name, 0], vae=["model", 2]),
    }  # fmt: skip


def graph(**knobs: Any) -> Graph:
    """The embedded model without ("k") and with guidance ("k2") towards where the example's evidence points."""
    return {
        "model": node("IdentiFaceLoadEmbeddedModel"),
        "example": node("IdentiFaceExampleCase"),
        "sketch": node("IdentiFaceSketch", image=["example", 1], kind="drawing"),
        "words": node("CLIPTextEncode", clip=["model", 1], text="A man with short black hair and a beard."),
        "none": node("CLIPTextEncode", clip=["model", 1], text=""),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=2),
        "query": node("IdentiFaceEmbedEvidence", toolkit=["model", 8], evidence=["sketch", 0]),
        "guide": node(
            "IdentiFaceIdentityGuidance", model=["model", 0], target=["query", 0], toolkit=["model", 8], vae=["model", 2],
            matcher=["model", 4], **{**KNOBS, **knobs},
        ),
        **drawn("k", ["model", 0]),
        **drawn("k2", ["guide", 0]),
    }  # fmt: skip


def checked(wanted: Graph) -> Graph:
    """The same with a Guidance Check, whose judge looks for the person of the unguided faces."""
    judged = node("IdentiFaceEmbedFace", matcher=["model", 5], image=["image-k", 0], origin="generated")
    check = node(
        "IdentiFaceGuidanceCheck", guided=["image-k2", 0], unguided=["image-k", 0], matcher=["model", 4], target=["query", 0],
        judge=["model", 5], judge_target=["judged", 0],
    )  # fmt: skip
    return {**wanted, "judged": judged, "check": check, "text": node("PreviewAny", source=["check", 0])}


def latents(server: Server, wanted: Graph, *names: str) -> list[np.ndarray[Any, Any]]:
    run = server.run(wanted)
    assert run.status == "success", f"{run.message}\n{server.tail()}"
    saved = [run.outputs[f"save-{name}"]["latents"][0] for name in names or ("k", "k2")]
    folder = server.base / "output"
    return [load_file(folder / one["subfolder"] / one["filename"])["latent_tensor"] for one in saved]


def rises(server: Server, wanted: Graph) -> tuple[float, str]:
    """How much the guiding matcher's cosine rose, and the report."""
    run = server.run(checked(wanted))
    assert run.status == "success", f"{run.message}\n{server.tail()}"
    text = run.outputs["text"]["text"][0]
    return float(text.split("(")[1].split(")")[0]), text


def refused(server: Server, wanted: Graph) -> str:
    run = server.run({name: one for name, one in wanted.items() if name not in ("k", "save-k", "image-k")})
    assert run.status == "error"
    return run.message


def test_scale_zero_is_bit_identical_and_guidance_leaves_no_trace(tiny: Server) -> None:
    before, zero = latents(tiny, graph(scale=0.0))
    assert (before == zero).all()
    plain, guided = latents(tiny, graph())
    assert (plain == before).all() and np.abs(guided - plain).max() > 1e-2
    tiny.post("/free", {"free_memory": True, "unload_models": True})
    again, outside = latents(tiny, graph(start=0.5, end=0.5, scale=0.2))
    assert (again == before).all() and (outside == before).all()


@pytest.mark.parametrize("method", ["latent", "decoded", "search"])
def test_every_method_leads_to_the_target_and_the_check_tells(tiny: Server, method: str) -> None:
    rise, text = rises(tiny, graph(method=method, every_n=4 if method == "search" else 2))
    assert rise > (0.01 if method == "search" else 0.1), text
    assert "judge B" in text and "gap A - B" in text
    assert "but judge B" in text, (
        "who guides away from the unguided faces is not followed by a judge that wants those"
    )


def test_two_guided_models_in_one_graph_do_not_mix(tiny: Server) -> None:
    _, once = latents(tiny, graph())
    wanted = graph()
    wanted["guide2"] = {
        **wanted["guide"],
        "inputs": {**wanted["guide"]["inputs"], "scale": 0.03, "every_n": 1},
    }
    wanted["both"] = {**wanted["guide2"], "inputs": {**wanted["guide2"]["inputs"], "model": ["guide", 0]}}
    wanted |= drawn("k3", ["guide2", 0]) | drawn("k4", ["both", 0])
    strong, weak, both = latents(tiny, wanted, "k2", "k3", "k4")
    assert (strong == once).all()
    assert min(np.abs(weak - strong).max(), np.abs(both - strong).max(), np.abs(both - weak).max()) > 1e-3


def test_a_batch_is_its_items(tiny: Server) -> None:
    _, both = latents(tiny, graph())
    alone = graph()
    alone["empty"]["inputs"]["batch_size"] = 1
    (one,) = latents(tiny, {k: v for k, v in alone.items() if k not in ("k", "save-k", "image-k")}, "k2")
    assert np.abs(both[:1] - one).max() < 1e-3


def sampled(wanted: Graph, model: list[Any]) -> Graph:
    """The graph with guided faces "k2" drawn by the guide's own sampler, in as many steps."""
    wanted["levels"] = node("BasicScheduler", model=["model", 0], scheduler="normal", steps=8, denoise=1.0)
    wanted["k2"] = node(
        "SamplerCustom", model=model, add_noise=True, noise_seed=5, cfg=1.0, positive=["words", 0], negative=["none", 0],
        sampler=["guide", 1], sigmas=["levels", 0], latent_image=["empty", 0],
    )  # fmt: skip
    return wanted


@pytest.mark.parametrize("method", ["latent", "search"])
def test_the_guides_own_steps_as_a_sampler(tiny: Server, method: str) -> None:
    rise, text = rises(tiny, sampled(graph(method=method, scale=0.04), ["model", 0]))
    assert rise > (0.01 if method == "search" else 0.1), text
    assert "guides by itself: link the MODEL from before" in refused(tiny, sampled(graph(), ["guide", 0]))


def test_its_sampler_moves_only_what_the_mask_leaves_free(tiny: Server) -> None:
    wanted = sampled(graph(scale=0.04), ["model", 0])
    wanted["mask"] = node("SolidMask", value=0.0, width=128, height=128)
    wanted["part"] = node("SolidMask", value=1.0, width=64, height=128)
    wanted["half"] = node(
        "MaskComposite", destination=["mask", 0], source=["part", 0], x=0, y=0, operation="add"
    )
    wanted["masked"] = node("SetLatentNoiseMask", samples=["k", 0], mask=["half", 0])
    wanted["k2"]["inputs"]["latent_image"] = ["masked", 0]
    before, made = latents(tiny, wanted)
    assert np.abs(made[..., 9:] - before[..., 9:]).max() < 1e-4 and np.abs(made - before).max() > 0.1


def test_a_galleries_people_are_a_target_and_tell_the_judge_whom_to_look_for(tiny: Server) -> None:
    wanted = graph()
    wanted["gallery"] = node("IdentiFaceOpenGallery", gallery="embedded demo")
    wanted["people"] = node(
        "IdentiFaceGalleryTarget", gallery=["gallery", 0], query=["query", 0], take="consensus", number=20, exclude="",
    )  # fmt: skip
    wanted["guide"]["inputs"]["target"] = ["people", 0]
    judged = checked(wanted)
    judged["check"]["inputs"] |= {"target": ["people", 0], "judge_target": ["people", 1]}
    judged["names"] = node("PreviewAny", source=["people", 2])
    run = tiny.run(judged)
    assert run.status == "success", f"{run.message}\n{tiny.tail()}"
    assert len(run.outputs["names"]["text"][0].splitlines()) == 20
    a, b = (float(rise) for rise in re.findall(r"\(([+-][0-9.]+)\)", run.outputs["text"]["text"][0]))
    assert a > 0.1 and b > 0.25 * a, run.outputs["text"]

    first = run.outputs["names"]["text"][0].splitlines()[0]
    judged["people"]["inputs"] |= {"take": "candidate", "number": 1, "exclude": first}
    run = tiny.run(judged)
    assert run.status == "success" and run.outputs["names"]["text"][0] != first
    judged["people"]["inputs"] |= {"take": "consensus", "number": 999}
    assert "consensus 999 needs more people than that, the gallery has 999" in tiny.run(judged).message
    judged["people"]["inputs"] |= {"take": "candidate", "number": 1000}
    assert "candidate 1000 needs as many people, the gallery has 999" in tiny.run(judged).message


def test_a_case_says_that_its_model_was_guided(tiny: Server) -> None:
    wanted = {
        name: one for name, one in graph().items() if name in ("model", "example", "sketch", "query", "guide")
    }
    wanted["gallery"] = node("IdentiFaceOpenGallery", gallery="embedded demo")
    wanted["start"] = node(
        "IdentiFaceStartCase", toolkit=["model", 8], evidence=["sketch", 0], gallery=["gallery", 0], seed=1, seeds=2, steps=2,
        guidance_scale=1.0, strength=1.0, candidates=5, exclude="", model=["guide", 0],
    )  # fmt: skip
    wanted["round"] = node("IdentiFacePartRound", case=["start", 0], part="overview", pick=0)
    wanted["keep"] = node("IdentiFaceSaveCase", case=["round", 0], name="led")
    run = tiny.run(wanted)
    assert run.status == "success", f"{run.message}\n{tiny.tail()}"
    case = json.loads((tiny.base / "output" / "identiface" / "led" / "case.json").read_text())
    assert case["models"]["identity guidance"] == "by embedded-a, scale 0.1, 0 to 1, every 2 steps"
    assert any("drawn under Identity Guidance (by embedded-a" in one for one in case["warnings"])
    wanted["start"]["inputs"]["identity_guidance"] = 0.04
    run = tiny.run(wanted)
    assert run.status == "error" and "leads the MODEL already" in run.message


def test_a_stop_a_band_and_words_can_be_kept(tiny: Server) -> None:
    free, text = rises(tiny, graph())
    unguided = float(text.split()[1]) - free
    assert 0 < rises(tiny, graph(stop_at=round(unguided + free / 2, 2)))[0] < 0.8 * free
    assert rises(tiny, graph(low=-0.9, high=unguided - 0.2))[0] < -0.03
    wanted = graph()
    wanted["said"] = node("IdentiFaceDescription", overview="A man.", parts="hair: short black hair")
    wanted["guide"]["inputs"]["keep_words"] = ["said", 0]
    wanted["guide"]["inputs"]["away_from"] = ["query", 0]
    _, kept = latents(tiny, wanted)
    assert np.isfinite(kept).all()


def test_another_models_latents(tiny: Server) -> None:
    """The host's PixArt, decoded by a VAE, with a crop; latent guidance refuses it."""
    wanted = graph(method="decoded", crop_x=128, crop_y=64, crop_side=256)
    wanted["empty"]["inputs"] |= {"width": 512, "height": 512}
    wanted["pixart"] = node("TinyPixArt", width=48, dtype="float32")
    wanted["guide"]["inputs"]["model"] = ["pixart", 0]
    for name in ("k", "k2"):
        wanted[name]["inputs"] |= {"positive": ["pixart", 1], "negative": ["pixart", 2], "steps": 3}
    wanted["k"]["inputs"]["model"] = ["pixart", 0]
    plain, guided = latents(tiny, wanted)
    assert np.isfinite(guided).all() and np.abs(guided - plain).max() > 1e-3
    wanted["guide"]["inputs"]["method"] = "latent"
    assert "the MODEL is a PixArtMS: use decoded" in refused(tiny, wanted)


def test_what_does_not_fit_says_so(tiny: Server) -> None:
    alone = graph()
    del alone["guide"]["inputs"]["toolkit"]
    assert "latent needs the toolkit" in refused(tiny, alone)
    bare = graph(method="decoded")
    del bare["guide"]["inputs"]["vae"]
    assert "decoded needs a vae and the matcher" in refused(tiny, bare)
    words = graph(method="decoded", keep_words=["said", 0])
    words["said"] = node("IdentiFaceDescription", overview="A man.", parts="")
    assert "decoded reads no words" in refused(tiny, words)
    other = graph(method="decoded")
    other["guide"]["inputs"]["matcher"] = ["model", 5]
    assert "target was made with matcher 'embedded-a', but 'embedded-b' guides" in refused(tiny, other)
    assert "method: 'magic' is unknown" in refused(tiny, graph(method="magic"))
    wanted = checked(graph())
    wanted["check"]["inputs"]["judge"] = ["model", 4]
    run = tiny.run(wanted)
    assert run.status == "error" and "a judge must be another one" in run.message


def test_the_shipped_workflow_shows_guidance_and_its_check(tiny: Server) -> None:
    """Both rows of faces, what the judge says of them, and the comparison with the best candidate."""
    run = tiny.run(identity_guidance.NAMED)
    assert run.status == "success", f"{run.message}\n{tiny.tail()}"
    shown = [
        [tiny.image(one) for one in run.outputs[name]["images"]] for name in ("plain shown", "guided shown")
    ]
    assert [len(row) for row in shown] == [4, 4] and not set(shown[0]) & set(shown[1])

    told = run.outputs["told"]["text"][0]
    a, b = (float(rise) for rise in re.findall(r"\(([+-][0-9.]+)\)", told))
    assert a > 0.05 and b > 0.25 * a and "but judge B" not in told, told

    compared = run.outputs["compare"]["text"][0]
    assert "(embedded-b)" in compared and "pairs of strangers" in compared
    assert 0.2 < float(compared.split()[1]) < 1 and run.outputs["compare"]["images"]
    assert "Do not search with this photo alone" in run.outputs["verdict"]["text"][0]
    assert len(run.outputs["search"]["candidates"]) == 1


def test_the_shipped_workflow_differs_by_guidance_alone() -> None:
    plain, guided = (dict(identity_guidance.NAMED[name]["inputs"]) for name in ("plain", "guided"))
    assert (plain.pop("model"), guided.pop("model")) == (["control", 0], ["guidance", 0])
    assert plain == guided and identity_guidance.NAMED["guidance"]["inputs"]["model"] == ["control", 0]
    assert identity_guidance.NAMED["compare"]["inputs"]["matcher"] == ["model", 5], (
        "the judge, which never guides"
    )
