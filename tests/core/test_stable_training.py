"""Training a control on somebody's Stable Diffusion: it learns, goes on to the bit after a kill, and leaves the base alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from identiface_core.cli import main
from identiface_core.diffusion.stable import StableControl, config_of
from identiface_core.diffusion.stable_base import CONFIGS, StableBase, clean_of, load_base, wanted_of
from identiface_core.errors import InputError, WeightsError
from identiface_core.training.loop import run_stage
from identiface_core.training.losses import IdentityLoss
from identiface_core.training.stable import (
    CONTROL_FILE,
    DecodedIdentity,
    StableControlStage,
)
from identiface_core.training.stable_photos import DEFAULT_TEXT, EncodedPhotos, encode_photos, find_photos
from identiface_core.weights.files import load_module, read_header
from tests.core.ldm_names import checkpoint
from tests.core.stable_fakes import tiny_unet, write_base, write_photos

SIDE = 64


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> StableBase:
    return load_base(write_base(tmp_path_factory.mktemp("sd") / "base"))


@pytest.fixture(scope="module")
def encoded(base: StableBase, tmp_path_factory: pytest.TempPathFactory) -> EncodedPhotos:
    folder = tmp_path_factory.mktemp("photos")
    return encode_photos(find_photos(write_photos(folder)), base, folder / "encoded", side=SIDE)


def stage_of(encoded: EncodedPhotos, **more: Any) -> StableControlStage:
    return StableControlStage(tiny_unet(), encoded, **{"steps": 6, "batch": 2, "lr": 1e-3, **more})


def test_photos_and_their_words(base: StableBase, encoded: EncodedPhotos, tmp_path: Path) -> None:
    photos = find_photos(write_photos(tmp_path))
    assert [one.texts[0] for one in photos] == [
        DEFAULT_TEXT,
        "A face with a beard.",
        "A young man. A long nose. Short dark hair.",
        DEFAULT_TEXT,
    ]
    assert photos[2].texts[1:] == ("A young man. A long nose.", "A young man. Short dark hair.")
    found = encoded.photo(2)
    assert found["photo"].shape == (2, 4, 8, 8) and found["lq"].shape == found["sketch"].shape == (
        2,
        2,
        4,
        8,
        8,
    )
    assert not torch.equal(found["photo"][0], found["photo"][1])
    assert torch.equal(encoded.context(2, 1), base.context(["A young man. A long nose."])[0].half().float())
    assert torch.equal(encoded.silence, base.context([""])[0].half().float())
    with pytest.raises(InputError, match="no photos to train on"):
        find_photos(tmp_path / "empty")
    (tmp_path / "3.txt").write_text("A man. ['tail'] Long.")
    with pytest.raises(InputError, match=r"3\.txt.*tail"):
        find_photos(tmp_path)


def test_photos_are_encoded_once(base: StableBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path, 2)
    first = encode_photos(find_photos(tmp_path), base, tmp_path / "encoded", side=SIDE)
    before = [path.stat().st_mtime_ns for path in first.files]
    calls = []
    encode = StableBase.encode
    monkeypatch.setattr(StableBase, "encode", lambda self, x: calls.append(1) or encode(self, x))
    again = encode_photos(find_photos(tmp_path), base, tmp_path / "encoded", side=SIDE)
    assert again.files == first.files and not calls
    assert [path.stat().st_mtime_ns for path in again.files] == before
    write_photos(tmp_path, 3)  # a new photo, and two written again
    third = encode_photos(find_photos(tmp_path), base, tmp_path / "encoded", side=SIDE)
    assert len(calls) == 3 * 10 and len(third) == 3
    with pytest.raises(InputError, match="--side 60"):
        encode_photos(find_photos(tmp_path), base, tmp_path / "encoded", side=60)


def test_loss_falls_on_a_fixed_batch(encoded: EncodedPhotos) -> None:
    stage = stage_of(encoded)
    before = {name: one.clone() for name, one in stage.unet.state_dict().items()}
    batch = stage.draw(encoded, 4, torch.Generator().manual_seed(0))
    batch.present.fill_(1)
    optimiser = torch.optim.AdamW(stage.control.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        loss = stage.errors(batch)[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0], losses
    plain = stage.errors(batch, steered=False)[0].mean()
    assert float(plain) == pytest.approx(losses[0], abs=1e-6), "a fresh control changes nothing"
    after = stage.unet.state_dict()
    assert all(torch.equal(one, after[name]) for name, one in before.items())
    assert not any(one.requires_grad for one in stage.unet.parameters())


def test_bfloat16_as_on_a_gpu(
    encoded: EncodedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frozen base in bfloat16, autocast around branch and base; the branch itself stays float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    stage = stage_of(encoded, steps=2, checkpointing=True)
    stage.autocast = True
    stage.unet.to(torch.bfloat16)
    plain = stage_of(encoded).validate()["loss_none"]
    outcome = run_stage(stage, tmp_path, log_every=1)
    assert outcome.validation["loss_none"] == pytest.approx(plain, rel=0.02)
    assert {one.dtype for one in stage.control.parameters()} == {torch.float32}
    assert (stage.control.controlnet.controlnet_mid_block.weight != 0).any()


def test_each_clue_is_missing_in_a_third_and_never_both(encoded: EncodedPhotos) -> None:
    stage = stage_of(encoded)
    batch = stage.draw(encoded, 300, torch.Generator().manual_seed(0))
    assert (batch.present.mean(0) - 2 / 3).abs().max() < 0.1 and (batch.present.amax(1) == 1).all()
    silent = (batch.context == encoded.silence).all((1, 2)).float().mean()
    assert 0.2 < float(silent) < 0.4
    assert 300 < float(batch.timestep.float().mean()) < 700


def test_a_resumed_run_is_the_run_to_the_last_bit(encoded: EncodedPhotos, tmp_path: Path) -> None:
    whole = stage_of(encoded)
    run_stage(whole, tmp_path / "whole", log_every=2)

    class Killed(Exception):
        pass

    class Dying(StableControlStage):
        def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
            if step == 3:
                raise Killed
            return super().loss(step, generator)

    dying = Dying(tiny_unet(), encoded, steps=6, batch=2, lr=1e-3)
    with pytest.raises(Killed):
        run_stage(dying, tmp_path / "parts", log_every=2, checkpoint_every_s=0)
    rest = stage_of(encoded, seed=0)
    outcome = run_stage(rest, tmp_path / "parts", log_every=2)
    assert outcome.step == 6
    mine, theirs = whole.modules.state_dict(), rest.modules.state_dict()
    assert all(torch.equal(one, theirs[name]) for name, one in mine.items())


def test_the_two_predictions_agree_on_what_is_clean() -> None:
    g = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 8, 8, generator=g), torch.randn(2, 4, 8, 8, generator=g)
    sigma = torch.tensor([0.5, 9.0]).view(-1, 1, 1, 1)
    for prediction in ("epsilon", "v_prediction"):
        made = wanted_of(prediction, clean, noise, sigma)
        assert torch.allclose(clean_of(prediction, clean + sigma * noise, made, sigma), clean, atol=1e-4)


def test_an_identity_loss_joins_below_its_timestep(base: StableBase, encoded: EncodedPhotos) -> None:
    """Any differentiable function of pictures serves as a matcher; its gradient reaches the control through the decoder."""
    seen = []

    def decode(latents: Tensor) -> Tensor:
        return base.decode(latents) * 1.5 - 0.2  # overshoots, as decoders of predictions do

    def embed(pictures: Tensor) -> Tensor:
        assert 0 <= pictures.detach().min() <= pictures.detach().max() <= 1
        seen.append(pictures.shape)
        return pictures.flatten(2).std(2)

    rule = IdentityLoss(every=1, warmup=0, ramp=0, below=1000)
    stage = stage_of(encoded, identity=DecodedIdentity(decode, embed, rule, most=1))
    values = stage.loss(0, torch.Generator().manual_seed(0))
    assert "identity" in values and seen == [(1, 3, SIDE, SIDE)] * 2
    values["identity"].backward()
    assert stage.control.controlnet.controlnet_mid_block.weight.grad.abs().max() > 0
    closed = stage_of(encoded, identity=DecodedIdentity(base.decode, embed, IdentityLoss(warmup=10)))
    assert "identity" not in closed.loss(0, torch.Generator().manual_seed(0))


def test_the_command_trains_and_writes_a_control(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, photos, out = write_base(tmp_path / "base"), write_photos(tmp_path / "photos"), tmp_path / "out"
    before = (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    command = ["train", "control", "--base", str(folder), "--photos", str(photos), "--out", str(out)]
    assert main([*command, "--steps", "3", "--batch", "2", "--side", str(SIDE), "--checkpointing"]) == 0
    assert "control.safetensors: written" in capsys.readouterr().out
    header = read_header(out / CONTROL_FILE)
    assert header.kind == "stable-control" and header.extra["step"] == 3 and header.extra["photos"] == 4
    assert header.config["widths"] == [32, 64] and set(header.extra["validation"]) > {
        "loss_none",
        "loss_both",
    }
    loaded = load_module(out / CONTROL_FILE, StableControl)
    assert any(one.any() for one in loaded.controlnet.controlnet_mid_block.parameters())
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == before
    assert main([*command, "--steps", "0"]) == 2
    assert "at least one step" in capsys.readouterr().err


def test_a_checkpoint_file_is_the_same_base(tmp_path: Path) -> None:
    """In the names of CompVis; its sizes come from configuration files, which for Stable Diffusion 1.5 ship with us."""
    folder = load_base(write_base(tmp_path / "base", width=768, cross_attention_dim=768))
    text = load_file(tmp_path / "base" / "text_encoder" / "model.safetensors")
    tensors = checkpoint(folder.unet.state_dict(), folder.vae.state_dict(), text, layers=1, levels=4)
    save_file(tensors, tmp_path / "file.safetensors")
    loaded = load_base(
        tmp_path / "file.safetensors", tokenizer=tmp_path / "base" / "tokenizer", configs=tmp_path / "base"
    )
    for one, other in ((folder.unet, loaded.unet), (folder.vae, loaded.vae), (folder.text, loaded.text)):
        theirs = other.state_dict()
        assert theirs.keys() == one.state_dict().keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())
    with pytest.raises(InputError, match="holds no tokenizer"):
        load_base(tmp_path / "file.safetensors")


def test_the_shipped_sizes_are_stable_diffusions() -> None:
    config = json.loads((CONFIGS / "unet" / "config.json").read_text())
    vae = json.loads((CONFIGS / "vae" / "config.json").read_text())
    with torch.device("meta"):
        unet, coder = UNet2DConditionModel.from_config(config), AutoencoderKL.from_config(vae)
        control = StableControl()
    assert sum(one.numel() for one in unet.parameters()) == 859_520_964
    assert sum(one.numel() for one in coder.parameters()) == 83_653_863
    assert {**control.config, **config_of(unet)} == control.config


def test_wrong_bases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="unet/config.json"):
        load_base(tmp_path)
    broken: tuple[tuple[str, Callable[[Path], object], str], ...] = (
        (
            "pickled",
            lambda base: (base / "vae" / "diffusion_pytorch_model.safetensors").unlink(),
            "holds no .safetensors",
        ),
        ("words", lambda base: (base / "tokenizer" / "merges.txt").unlink(), "merges.txt: cannot be read"),
        ("flow", lambda base: _predicts(base, "flow"), "predicts 'flow'"),
    )
    for name, spoil, message in broken:
        folder = write_base(tmp_path / name)
        spoil(folder)
        with pytest.raises(WeightsError, match=message):
            load_base(folder)
    wide = write_base(tmp_path / "wide", cross_attention_dim=32)
    with pytest.raises(WeightsError, match="reads text of width 32, its CLIP gives 64"):
        load_base(wide)
    with pytest.raises(
        WeightsError, match="Training a control needs a Stable Diffusion 1.5 checkpoint; this is"
    ):
        load_base(folder / "unet" / "diffusion_pytorch_model.safetensors")


def _predicts(base: Path, kind: str) -> None:
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": kind}))
