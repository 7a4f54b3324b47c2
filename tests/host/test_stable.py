"""A control of ours on the host's own Stable Diffusion network: the core's values, beside stock ControlNets, without a trace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from identiface_core.diffusion.stable import StableControl
from identiface_core.weights.files import save_module
from tests.core.stable_fakes import UNET, awake, tiny_unet
from tests.host.graphs import node
from tests.host.server import Graph, Server, why_not

pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]
SHAPE = {**UNET, "norm_num_groups": 32}
"""The host's networks always have 32 groups."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with tiny networks, and a control with random weights among its files."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    packs = {name: Path(__file__).parent / "packs" / name for name in ("tiny", "stable")}
    with Server(packs) as running:
        controls, models = (running.base / "models" / name for name in ("controlnet", "diffusion_models"))
        for folder in (controls, models):
            folder.mkdir(parents=True, exist_ok=True)
        unet = tiny_unet(**SHAPE)
        save_file(unet.state_dict(), models / "unet.safetensors", {"config": json.dumps(SHAPE)})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            control = awake(StableControl.from_unet(unet))
        save_module(controls / "control.safetensors", control, half=False)
        shutil.copy(models / "unet.safetensors", controls / "other.safetensors")
        running.get("/object_info")
        yield running


def graph(
    *, strength: float = 1.0, dtype: str = "float32", batch: int = 1, side: int = 128, **more: Any
) -> Graph:
    """KSampler on a tiny Stable Diffusion without ("k") and with ("k2") control, their latents saved."""
    made = {
        "stable": node("TinyStable", file="unet.safetensors", text=64, dtype=dtype),
        "embedded": node("IdentiFaceLoadEmbeddedModel"),
        "control": node("IdentiFaceLoadControl", file="control.safetensors", vae=["embedded", 2]),
        "example": node("IdentiFaceExampleCase"),
        "sketch": node("IdentiFaceSketch", image=["example", 1], kind="drawing"),
        "photo": node(
            "IdentiFaceLQPhoto", image=["example", 0], face="whole picture", number=0, box=""
        ),
        "both": node("IdentiFaceEvidence", lq_photo=["photo", 0], sketch=["sketch", 0]),
        "empty": node("EmptyLatentImage", width=side, height=side, batch_size=batch),
        "apply": node(
            "IdentiFaceApplyControl", model=["stable", 0], control=["control", 0], evidence=["sketch", 0],
            strength=strength, **{"start": 0.0, "end": 1.0, **more},
        ),
    }  # fmt: skip
    return {**made, **sampling("k", "stable"), **sampling("k2", "apply")}


def sampling(name: str, model: str, *, positive: str = "stable", latent: str = "empty") -> Graph:
    """A KSampler and what saves its latents."""
    return {
        name: node(
            "KSampler", model=[model, 0], positive=[positive, 0 if positive != "stable" else 1], negative=["stable", 2],
            latent_image=[latent, 0], seed=5, steps=3, cfg=4.5, sampler_name="dpmpp_2m", scheduler="normal", denoise=1.0,
        ),
        f"save-{name}": node("SaveLatent", samples=[name, 0], filename_prefix=f"stable-{name}"),
    }  # fmt: skip


def sampled(server: Server, wanted: Graph, *names: str) -> list[np.ndarray[Any, Any]]:
    run = server.run(wanted)
    assert run.status == "success", f"{run.message}\n{server.tail()}"
    saved = [run.outputs[f"save-{name}"]["latents"][0] for name in names or ("k", "k2")]
    folder = server.base / "output"
    return [load_file(folder / one["subfolder"] / one["filename"])["latent_tensor"] for one in saved]


def close(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    return bool(np.abs(one - other).max() < 1e-5 * np.abs(other).max())


def found(server: Server, wanted: Graph, name: str) -> dict[str, float]:
    run = server.run(wanted)
    assert run.status == "success", f"{run.message}\n{server.tail()}"
    return dict(run.outputs[name]["found"][0])


def test_the_cores_values_on_the_hosts_network(tiny: Server) -> None:
    wanted = {name: one for name, one in graph().items() if name in ("stable", "embedded", "control")}
    wanted["compare"] = node(
        "CompareWithCore", model=["stable", 0], control=["control", 0], file="unet.safetensors"
    )
    values = found(tiny, wanted, "compare")
    assert values["plain"] < 1e-4 and values["controlled"] < 1e-4 and values["effect"] > 1e-2, values


def test_strength_zero_is_bit_identical_and_control_leaves_no_trace(tiny: Server) -> None:
    before, zero = sampled(tiny, graph(strength=0.0))
    assert (before == zero).all()
    plain, steered = sampled(tiny, graph())
    assert (plain == before).all() and np.abs(steered - plain).max() > 1e-3
    tiny.post("/free", {"free_memory": True, "unload_models": True})
    again, half = sampled(tiny, graph(strength=0.5))
    assert (again == before).all() and np.abs(half - steered).max() > 1e-3


def test_outside_of_its_window_it_does_nothing(tiny: Server) -> None:
    plain, steered = sampled(tiny, graph(start=0.98, end=0.99))
    assert (plain == steered).all()


def test_each_kind_of_evidence_steers_its_own_way(tiny: Server) -> None:
    results = []
    for evidence in ("sketch", "photo", "both"):
        wanted = graph()
        wanted["apply"]["inputs"]["evidence"] = [evidence, 0]
        results.append(sampled(tiny, wanted, "k2")[0])
    for place, one in enumerate(results):
        assert all(np.abs(one - other).max() > 1e-3 for other in results[place + 1 :])


def test_a_batch_and_prompts_of_unequal_length(tiny: Server) -> None:
    """The positive prompt has nine tokens, the negative five; each of a batch is what it is alone."""
    _, both = sampled(tiny, graph(batch=2))
    for index in (0, 1):
        wanted = graph(batch=2)
        wanted["single"] = node("LatentFromBatch", samples=["empty", 0], batch_index=index, length=1)
        wanted |= sampling("k3", "apply", latent="single")
        (alone,) = sampled(tiny, wanted, "k3")
        assert close(both[index : index + 1], alone)


def test_two_models_in_one_graph_do_not_mix_and_a_second_control_replaces_the_first(tiny: Server) -> None:
    _, once = sampled(tiny, graph())
    wanted = graph()
    weak = {**wanted["apply"]["inputs"], "strength": 0.3}
    wanted["apply2"] = node("IdentiFaceApplyControl", **weak)
    wanted["over"] = node("IdentiFaceApplyControl", **{**weak, "model": ["apply", 0]})
    wanted |= {**sampling("k3", "apply2"), **sampling("k4", "over")}
    strong, other, over = sampled(tiny, wanted, "k2", "k3", "k4")
    assert (strong == once).all() and np.abs(other - strong).max() > 1e-3
    assert (over == other).all()


def test_any_size_without_being_told(tiny: Server) -> None:
    told = graph(latent=["empty", 0])
    wanted = graph()
    wanted["large"] = node("EmptyLatentImage", width=192, height=64, batch_size=1)
    wanted |= sampling("k3", "apply", latent="large")
    small, large = sampled(tiny, wanted, "k2", "k3")
    assert large.shape[-2:] == (8, 24) and np.isfinite(large).all()
    assert (sampled(tiny, told, "k2")[0] == small).all()


def test_residuals_of_stock_controlnets_and_ours_add_up(tiny: Server) -> None:
    wanted = graph()
    wanted |= {
        "net": node("TinyControlNet"),
        "stock": node(
            "ControlNetApplyAdvanced", positive=["stable", 1], negative=["stable", 2], control_net=["net", 0],
            image=["example", 1], strength=0.7, start_percent=0.0, end_percent=1.0,
        ),
        "one": node("WatchControl", model=["apply", 0], name="one"),
        "other": node("WatchControl", model=["stable", 0], name="other"),
        "both-watched": node("WatchControl", model=["apply", 0], name="both"),
    }  # fmt: skip
    wanted |= {**sampling("ka", "one"), **sampling("kb", "other", positive="stock")}
    wanted |= sampling("kc", "both-watched", positive="stock")
    for name in ("kb", "kc"):
        wanted[name]["inputs"]["negative"] = ["stock", 1]
    wanted["compare"] = node("CompareSums", one=["ka", 0], other=["kb", 0], both=["kc", 0])
    values = found(tiny, wanted, "compare")
    assert values["rows"] == 5 and values["difference"] < 1e-6 and values["least"] > 1e-3, values
    plain, ours, stock, together = sampled(tiny, wanted, "k", "ka", "kb", "kc")
    assert all(np.abs(one - together).max() > 1e-3 for one in (plain, ours, stock))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn"])
def test_base_weights_of_other_types(tiny: Server, dtype: str) -> None:
    plain, steered = sampled(tiny, graph(dtype=dtype))
    assert np.isfinite(steered).all() and np.abs(steered - plain).max() > 1e-3


def refused(server: Server, wanted: Graph) -> str:
    del wanted["save-k"]
    run = server.run(wanted)
    assert run.status == "error"
    return run.message


def test_what_does_not_belong_together_is_refused(tiny: Server) -> None:
    wrong = graph()
    wrong["control"]["inputs"]["file"] = "other.safetensors"
    assert "this is an unknown diffusion model's U-Net" in refused(tiny, wrong)
    larger = graph()
    larger["stable"]["inputs"]["text"] = 2048
    message = refused(tiny, larger)
    assert "the MODEL is an SDXL" in message and "width 2048, the branch 64" in message
    for model, kind in (("pixart", "PixArtMS"), ("embedded", "HostTransformer")):
        other = graph()
        other["pixart"] = node("TinyPixArt", width=48, dtype="float32")
        other["apply"]["inputs"]["model"] = [model, 0]
        assert f"the MODEL is a {kind}" in refused(tiny, other)
    swapped = graph()
    swapped["apply"]["inputs"]["control"] = ["embedded", 3]
    assert "belongs to the embedded MODEL, but the MODEL is a UNetModel" in refused(tiny, swapped)
