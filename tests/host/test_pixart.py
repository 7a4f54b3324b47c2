"""The released control branch on the host's own PixArt network: same values, no trace, clear refusals."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from identiface_core.weights.released import import_control
from tests.host.graphs import node
from tests.host.server import PACK, Graph, Server, why_not

pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]
REFERENCE = PACK / "tests" / "core" / "data" / "reference"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with tiny networks, and a converted control among its files."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Server({"tiny": Path(__file__).parent / "packs" / "tiny"}) as running:
        folder = running.base / "models" / "controlnet"
        folder.mkdir(parents=True, exist_ok=True)
        import_control(
            REFERENCE / "identiface-tiny-weights.safetensors",
            folder / "identiface.safetensors",
            heads=4,
            half=False,
        )
        shutil.copy(
            PACK / "identiface_core" / "embedded" / "autoencoder.safetensors", folder / "other.safetensors"
        )
        running.get("/object_info")
        yield running


def graph(*, strength: float = 1.0, dtype: str = "float32", batch: int = 1, **more: Any) -> Graph:
    """KSampler on tiny PixArt without ("k") and with ("k2") control, their latents saved."""
    sampler = {
        "seed": 5,
        "steps": 3,
        "cfg": 4.5,
        "sampler_name": "dpmpp_2m",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    made = {
        "pixart": node("TinyPixArt", width=48, dtype=dtype),
        "embedded": node("IdentiFaceLoadEmbeddedModel"),
        "control": node("IdentiFaceLoadControl", file="identiface.safetensors", vae=["embedded", 2]),
        "example": node("IdentiFaceExampleCase"),
        "sketch": node("IdentiFaceSketch", image=["example", 1], kind="drawing"),
        "empty": node("EmptyLatentImage", width=512, height=512, batch_size=batch),
        "apply": node(
            "IdentiFaceApplyControl", model=["pixart", 0], control=["control", 0], evidence=["sketch", 0],
            latent=["empty", 0], strength=strength, **{"start": 0.0, "end": 1.0, **more},
        ),
        "k": node(
            "KSampler", model=["pixart", 0], positive=["pixart", 1], negative=["pixart", 2], latent_image=["empty", 0], **sampler
        ),
        "k2": node(
            "KSampler", model=["apply", 0], positive=["pixart", 1], negative=["pixart", 2], latent_image=["empty", 0], **sampler
        ),
    }  # fmt: skip
    for name in ("k", "k2"):
        made[f"save-{name}"] = node("SaveLatent", samples=[name, 0], filename_prefix=f"pixart-{name}")
    return made


def sampled(server: Server, wanted: Graph, *names: str) -> list[np.ndarray[Any, Any]]:
    run = server.run(wanted)
    assert run.status == "success", f"{run.message}\n{server.tail()}"
    saved = [run.outputs[f"save-{name}"]["latents"][0] for name in names or ("k", "k2")]
    folder = server.base / "output"
    return [load_file(folder / one["subfolder"] / one["filename"])["latent_tensor"] for one in saved]


def close(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Equal but for rounding: random networks leave latents of thousands."""
    return bool(np.abs(one - other).max() < 1e-5 * np.abs(other).max())


def test_the_released_values_on_the_hosts_network(tiny: Server) -> None:
    wanted = {name: one for name, one in graph().items() if name in ("pixart", "embedded", "control")}
    wanted["compare"] = node("CompareWithReference", model=["pixart", 0], control=["control", 0])
    run = tiny.run(wanted)
    assert run.status == "success", f"{run.message}\n{tiny.tail()}"
    found = run.outputs["compare"]["found"][0]
    assert max(found["base"], found["controlled"], found["fused"]) < 1e-4, found
    assert found["left"] == 0, "hooks stayed after the call"


def test_strength_zero_is_bit_identical_and_control_leaves_no_trace(tiny: Server) -> None:
    before, zero = sampled(tiny, graph(strength=0.0))
    assert (before == zero).all()
    plain, steered = sampled(tiny, graph())
    assert (plain == before).all() and np.abs(steered - plain).max() > 1e-3
    tiny.post("/free", {"free_memory": True, "unload_models": True})
    again, _ = sampled(tiny, graph(strength=0.5))
    assert (again == before).all()


def test_a_second_control_takes_the_place_of_the_first(tiny: Server) -> None:
    _, once = sampled(tiny, graph())
    wanted = graph()
    wanted["again"] = {**wanted["apply"], "inputs": {**wanted["apply"]["inputs"], "model": ["apply", 0]}}
    wanted["k2"]["inputs"]["model"] = ["again", 0]
    _, twice = sampled(tiny, wanted)
    assert (once == twice).all()


def test_outside_of_its_window_it_does_nothing(tiny: Server) -> None:
    plain, steered = sampled(tiny, graph(start=0.98, end=0.99))
    assert (plain == steered).all()


def test_a_batch_and_prompts_of_unequal_length(tiny: Server) -> None:
    """The positive prompt has nine tokens, the negative five; the first of a batch is the one drawn alone."""
    _, alone = sampled(tiny, graph())
    _, both = sampled(tiny, graph(batch=2))
    assert both.shape[0] == 2
    assert close(both[:1], alone)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn"])
def test_base_weights_of_other_types(tiny: Server, dtype: str) -> None:
    plain, steered = sampled(tiny, graph(dtype=dtype))
    assert np.isfinite(steered).all() and np.abs(steered - plain).max() > 1e-3


def test_custom_samplers_take_it(tiny: Server) -> None:
    wanted = graph()
    wanted |= {
        "guider": node("CFGGuider", model=["apply", 0], positive=["pixart", 1], negative=["pixart", 2], cfg=4.5),
        "noise": node("RandomNoise", noise_seed=5),
        "sampler": node("KSamplerSelect", sampler_name="dpmpp_2m"),
        "sigmas": node("BasicScheduler", model=["pixart", 0], scheduler="normal", steps=3, denoise=1.0),
        "custom": node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["sampler", 0], sigmas=["sigmas", 0],
            latent_image=["empty", 0],
        ),
        "save-custom": node("SaveLatent", samples=["custom", 0], filename_prefix="pixart-custom"),
    }  # fmt: skip
    steered, custom = sampled(tiny, wanted, "k2", "custom")
    assert close(custom, steered)


def test_the_published_way_runs(tiny: Server) -> None:
    """Its noise levels end above 0; its null text is PixArt's own table, as long as the prompt."""
    wanted = graph()
    wanted |= {
        "null": node("IdentiFaceNullText", model=["pixart", 0], positive=["pixart", 1]),
        "guider": node("CFGGuider", model=["apply", 0], positive=["pixart", 1], negative=["null", 0], cfg=4.5),
        "noise": node("RandomNoise", noise_seed=5),
        "sampler": node("KSamplerSelect", sampler_name="dpmpp_2m"),
        "sigmas": node("IdentiFacePublishedSigmas", steps=4),
        "custom": node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["sampler", 0], sigmas=["sigmas", 0],
            latent_image=["empty", 0],
        ),
        "save-custom": node("SaveLatent", samples=["custom", 0], filename_prefix="pixart-custom"),
    }  # fmt: skip
    (published,) = sampled(tiny, wanted, "custom")
    assert np.isfinite(published).all()
    wrong = {**wanted, "null": node("IdentiFaceNullText", model=["embedded", 0], positive=["pixart", 1])}
    del wrong["save-k"], wrong["save-k2"]
    run = tiny.run(wrong)
    assert run.status == "error" and "HostTransformer, which has no learned null text" in run.message


def test_two_models_in_one_graph_do_not_mix(tiny: Server) -> None:
    _, once = sampled(tiny, graph())
    wanted = graph()
    wanted["apply2"] = {**wanted["apply"], "inputs": {**wanted["apply"]["inputs"], "strength": 0.3}}
    wanted["k3"] = {**wanted["k2"], "inputs": {**wanted["k2"]["inputs"], "model": ["apply2", 0]}}
    wanted["save-k3"] = node("SaveLatent", samples=["k3", 0], filename_prefix="pixart-k3")
    strong, weak = sampled(tiny, wanted, "k2", "k3")
    assert (strong == once).all() and np.abs(weak - strong).max() > 1e-3


def test_a_lora_on_the_base_counts_before_and_after(tiny: Server) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    folder = tiny.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    g = torch.Generator().manual_seed(1)
    stem = "diffusion_model.blocks.2.mlp.fc1"
    lora = {
        f"{stem}.lora_down.weight": torch.randn(4, 48, generator=g),
        f"{stem}.lora_up.weight": torch.randn(192, 4, generator=g),
    }
    save_file(lora, folder / "tiny.safetensors")
    _, without = sampled(tiny, graph())
    results = []
    for order in ("before", "after"):
        wanted = graph()
        source = "pixart" if order == "before" else "apply"
        wanted["lora"] = node(
            "LoraLoaderModelOnly", model=[source, 0], lora_name="tiny.safetensors", strength_model=1.0
        )
        if order == "before":
            wanted["apply"]["inputs"]["model"] = ["lora", 0]
        else:
            wanted["k2"]["inputs"]["model"] = ["lora", 0]
        results += sampled(tiny, wanted, "k2")
    assert (results[0] == results[1]).all() and np.abs(results[0] - without).max() > 1e-3


def refused(server: Server, wanted: Graph) -> str:
    run = server.run(
        {name: one for name, one in wanted.items() if not name.startswith("save-k") or name == "save-k2"}
    )
    assert run.status == "error"
    return run.message


def test_what_does_not_fit_says_what_it_is(tiny: Server) -> None:
    wrong = graph()
    wrong["control"]["inputs"]["file"] = "other.safetensors"
    assert "this is an IdentiFace file of kind 'autoencoder'" in refused(tiny, wrong)
    gone = graph()
    gone["control"]["inputs"]["file"] = "nowhere.safetensors"
    message = refused(tiny, gone)
    assert "no file 'nowhere.safetensors' in" in message and "weights import" in message
    wide = graph()
    wide["pixart"]["inputs"]["width"] = 96
    assert "3 blocks of width 48, the MODEL 6 of width 96" in refused(tiny, wide)
    other = graph()
    other["apply"]["inputs"]["model"] = ["embedded", 0]
    assert "steers PixArt, but the MODEL is a HostTransformer" in refused(tiny, other)
    swapped = graph()
    swapped["apply"]["inputs"]["control"] = ["embedded", 3]
    assert "belongs to the embedded MODEL, but the MODEL is a PixArtMS" in refused(tiny, swapped)
    size = graph()
    del size["apply"]["inputs"]["latent"]
    assert "encoded for 1024 x 1024 px, but 512 x 512 px are sampled" in refused(tiny, size)


def test_many_runs_do_not_grow_memory(tiny: Server) -> None:
    """Resident memory after ten runs, and after forty more."""

    def run(seed: int) -> None:
        wanted = graph()
        wanted["k2"]["inputs"]["seed"] = seed
        sampled(tiny, {name: one for name, one in wanted.items() if name not in ("k", "save-k")}, "k2")

    for seed in range(10):
        run(seed)
    before = tiny.resident()
    for seed in range(10, 50):
        run(seed)
    assert tiny.resident() - before < 60, "MiB after forty further runs"
