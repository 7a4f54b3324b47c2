"""A weight file is known by what is in it, whatever it is called, and nothing of it but its header is read."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from identiface_core.diffusion.control import ControlBranch
from identiface_core.errors import WeightsError
from identiface_core.matchers.network import FaceNet
from identiface_core.weights.files import save_module
from identiface_core.weights.names import to_diffusers
from identiface_core.weights.recognise import KINDS, expected, recognise
from identiface_core.weights.released import import_control
from tests.core import official

Shapes = Mapping[str, tuple[int, ...]]


def hollow(path: Path, shapes: Shapes, metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file with a true header and nothing stored: its tensors take no room on the disk."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    return path


def of(module: nn.Module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    return {prefix + name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def ldm_unet(text: int, prefix: str = "model.diffusion_model.", channels: int = 4) -> Shapes:
    inner = {
        "time_embed.0.weight": (1280, 320),
        "input_blocks.0.0.weight": (320, channels, 3, 3),
        "input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight": (320, 320),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, text),
        "output_blocks.0.0.in_layers.0.weight": (2560,),
    }
    return {prefix + name: shape for name, shape in inner.items()}


LDM_VAE = {
    "encoder.down.0.block.0.conv1.weight": (128, 128, 3, 3),
    "decoder.conv_in.weight": (512, 4, 3, 3),
    "decoder.mid.block_1.conv1.weight": (512, 512, 3, 3),
}
CLIP_L = {
    "text_model.embeddings.token_embedding.weight": (49408, 768),
    "text_model.encoder.layers.0.self_attn.q_proj.weight": (768, 768),
}
BIG_G = {"token_embedding.weight": (49408, 1280), "transformer.resblocks.0.attn.in_proj_weight": (3840, 1280)}
T5 = {
    "shared.weight": (32128, 4096),
    "encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096),
}
LDM_CONTROL = {
    "input_hint_block.0.weight": (16, 3, 3, 3),
    "zero_convs.0.0.weight": (320, 320, 1, 1),
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
}
INSIGHTFACE = {
    "conv1.weight": (64, 3, 3, 3),
    "prelu.weight": (64,),
    "layer1.0.bn1.weight": (64,),
    "fc.weight": (512, 25088),
}
ADAFACE = {
    "model.input_layer.0.weight": (64, 3, 3, 3),
    "model.body.0.res_layer.0.weight": (64,),
    "model.output_layer.3.weight": (512, 25088),
}


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def diffusers_shapes(name: str) -> Shapes:
    """Names and shapes of diffusers' own classes."""
    from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel

    wide = {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "cross_attention_dim": 2048,
    }
    with torch.device("meta"):
        if name == "vae":
            return of(AutoencoderKL())
        if name == "taesd":
            return of(AutoencoderTiny())
        if name == "sd15-controlnet":
            return of(ControlNetModel(cross_attention_dim=768))
        if name == "sdxl-controlnet":
            return of(ControlNetModel(**wide))
        if name == "sd2-unet":
            return of(UNet2DConditionModel(cross_attention_dim=1024))
        if name == "sdxl-unet":
            up = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
            return of(UNet2DConditionModel(up_block_types=up, **wide))
        return of(UNet2DConditionModel(cross_attention_dim=768))


def full(text: int, encoder: str) -> Shapes:
    return {**ldm_unet(text), **under("first_stage_model.", LDM_VAE), f"{encoder}.weight": (1, 1)}


def xl(*roles: str) -> Shapes:
    return {one["key"]: tuple(one["shape"]) for one in official.KEYS if one["role"] in roles}


def bare_xl() -> Shapes:
    return {name.removeprefix("base_model."): shape for name, shape in xl("base").items()}


def diffusers_xl() -> Shapes:
    from identiface_core.weights.foreign import in_memory

    with torch.device("meta"):
        return to_diffusers(in_memory({name: torch.empty(s) for name, s in bare_xl().items()})).shapes


KNOWN = {
    "released": (lambda: xl("base", "control", "fusion"), "identiface-official", {"copies": 13, "depth": 28}),
    "released, no base": (lambda: xl("control", "fusion"), "identiface-official", {"base": False}),
    "hed": (lambda: xl("base", "control"), "pixart-controlnet", {"names": "authors"}),
    "hed of diffusers": (
        lambda: {"controlnet_blocks.0.transformer_block.attn1.to_q.weight": (1152, 1152)},
        "pixart-controlnet",
        {"names": "diffusers"},
    ),
    "pixart": (
        bare_xl,
        "pixart",
        {"names": "authors", "depth": 28, "width": 1152, "sizes": True, "table": 64},
    ),
    "pixart of ComfyUI": (lambda: under("model.diffusion_model.", bare_xl()), "pixart", {"names": "authors"}),
    "pixart of diffusers": (diffusers_xl, "pixart", {"names": "diffusers", "captions": 4096}),
    "sd15": (lambda: full(768, "cond_stage_model"), "sd15-checkpoint", {"text": 768, "channels": 4}),
    "sd2": (lambda: full(1024, "cond_stage_model"), "sd2-checkpoint", {"text": 1024}),
    "sdxl": (lambda: full(2048, "conditioner"), "sdxl-checkpoint", {"text": 2048}),
    "refiner": (lambda: full(1280, "conditioner"), "sdxl-refiner-checkpoint", {}),
    "inpainting": (lambda: ldm_unet(768, channels=9), "sd15-unet", {"channels": 9, "names": "ldm"}),
    "unet": (lambda: ldm_unet(2048, ""), "sdxl-unet", {}),
    "sd15-unet": (lambda: diffusers_shapes("sd15-unet"), "sd15-unet", {"names": "diffusers"}),
    "sd2-unet": (lambda: diffusers_shapes("sd2-unet"), "sd2-unet", {"channels": 4}),
    "sdxl-unet": (lambda: diffusers_shapes("sdxl-unet"), "sdxl-unet", {"names": "diffusers"}),
    "control of sd15": (lambda: under("control_model.", LDM_CONTROL), "sd15-controlnet", {"names": "ldm"}),
    "control, bare": (lambda: LDM_CONTROL, "sd15-controlnet", {}),
    "control of sd2": (
        lambda: {**LDM_CONTROL, "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)},
        "sd2-controlnet",
        {"text": 1024},
    ),
    "sd15-controlnet": (
        lambda: diffusers_shapes("sd15-controlnet"),
        "sd15-controlnet",
        {"names": "diffusers"},
    ),
    "sdxl-controlnet": (lambda: diffusers_shapes("sdxl-controlnet"), "sdxl-controlnet", {}),
    "vae": (lambda: LDM_VAE, "vae", {"names": "ldm", "channels": 4}),
    "vae of diffusers": (lambda: diffusers_shapes("vae"), "vae", {"names": "diffusers", "channels": 4}),
    "taesd": (lambda: diffusers_shapes("taesd"), "taesd", {"encoder": True, "decoder": True}),
    "taesd, half": (
        lambda: {
            "1.weight": (64, 4, 3, 3),
            "3.conv.0.weight": (64, 64, 3, 3),
            "3.conv.4.weight": (64, 64, 3, 3),
        },
        "taesd",
        {"decoder": True},
    ),
    "t5": (lambda: T5, "t5-encoder", {"width": 4096}),
    "t5 of ComfyUI": (lambda: under("t5xxl.transformer.", T5), "t5-encoder", {}),
    "clip": (lambda: CLIP_L, "clip-text", {"width": 768}),
    "open clip": (lambda: BIG_G, "clip-text", {"width": 1280}),
    "lora": (
        lambda: {
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (
                8,
                2048,
            ),
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": (640, 8),
        },
        "lora",
        {"base": "sdxl"},
    ),
    "lora of pixart": (lambda: {"blocks.0.attn.qkv.lora_A.weight": (8, 1152)}, "lora", {}),
    "arcface": (lambda: INSIGHTFACE, "arcface", {"dimension": 512}),
    "arcface, wrapped": (lambda: under("module.", INSIGHTFACE), "arcface", {"dimension": 512}),
    "adaface": (lambda: ADAFACE, "arcface", {"dimension": 512}),
    "unknown": (lambda: {"a": (2,), "b": (3, 3)}, "unknown", {"tensors": 2}),
    "empty": (dict, "unknown", {"tensors": 0}),
}


@pytest.mark.parametrize("name", KNOWN)
def test_each_kind_is_known_by_its_tensors(tmp_path: Path, name: str) -> None:
    make, kind, facts = KNOWN[name]
    found = recognise(hollow(tmp_path / "sdxl_lora_vae.safetensors", make()))
    assert found.kind == kind, found
    assert facts.items() <= found.facts.items(), found
    assert found.title.startswith(("a ", "an ", "the "))


def test_every_kind_that_can_be_asked_for_is_tested() -> None:
    graphs = {"onnx", "face-detector", "face-parsing", "face-landmarks"}  # test_faces_onnx.py
    tested = {kind for _, kind, _ in KNOWN.values()} | {"control-branch", "stable-control"} | graphs
    assert KINDS.keys() <= tested | {"edgeface", "matcher-onnx"}  # test_matchers_files.py


def test_titles_are_what_a_sentence_needs(tmp_path: Path) -> None:
    titles = {name: recognise(hollow(tmp_path / "f", KNOWN[name][0]())).title for name in KNOWN}
    assert titles["sdxl"] == "an SDXL checkpoint" and titles["sd15"] == "a Stable Diffusion 1.5 checkpoint"
    assert titles["released"] == "the released IdentiFace checkpoint"
    assert titles["lora"] == "a LoRA for SDXL" and titles["lora of pixart"] == "a LoRA"
    assert "'a', 'b'" in titles["unknown"] and titles["empty"] == "a file without tensors"


def test_gigabytes_are_not_read(tmp_path: Path) -> None:
    path = hollow(tmp_path / "f", xl("base", "control", "fusion"))
    assert path.stat().st_size > 1.8e9 > 1e7 > path.stat().st_blocks * 512
    assert recognise(path).kind == "identiface-official"


def test_checkpoints_are_looked_at_by_their_pickles(tmp_path: Path) -> None:
    path = official.save(tmp_path / "lora", official.state(fill=False))
    found = recognise(path)
    assert found.kind == "identiface-official" and found.facts["copies"] == 3
    torch.save({name: torch.zeros(1).expand(shape) for name, shape in INSIGHTFACE.items()}, tmp_path / "f")
    assert recognise(tmp_path / "f").kind == "arcface"
    torch.save({"state_dict": {"state": torch.zeros(1)}, "epoch": 3}, tmp_path / "f")
    assert recognise(tmp_path / "f").kind == "unknown"
    path.rename(tmp_path / "f.safetensors")
    with pytest.raises(
        WeightsError, match="a PyTorch checkpoint with a wrong name: rename it to end in .pth"
    ):
        recognise(tmp_path / "f.safetensors")


def test_our_own_files_say_what_they_are(tmp_path: Path) -> None:
    save_module(tmp_path / "f", ControlBranch(copies=1, heads=2, head_width=8, context_width=16))
    own = recognise(tmp_path / "f")
    assert (own.kind, own.title) == ("control-branch", "an IdentiFace control")
    assert own.facts["surroundings"] is True and own.facts["copies"] == 1 and "origin" not in own.facts
    source = official.save(tmp_path / "latest.pth", official.state())
    import_control(source, tmp_path / "f", heads=4)
    made = recognise(tmp_path / "f")
    assert made.kind == "control-branch" and made.facts["origin"] == "identiface-official"
    assert made.title == "an IdentiFace control converted from the released checkpoint"
    save_module(tmp_path / "f", FaceNet())
    assert recognise(tmp_path / "f").title == "an IdentiFace file of kind 'face-net'"


def test_onnx_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "f.safetensors").write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:" + bytes(64))
    assert recognise(tmp_path / "f.safetensors").title == "an ONNX graph"


def test_something_else_than_expected_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = hollow(tmp_path / "control.safetensors", KNOWN["sdxl"][0]())
    assert expected(path, ("pixart", "sdxl-checkpoint"), "The loader").kind == "sdxl-checkpoint"
    with pytest.raises(WeightsError) as caught:
        expected(path, ["control-branch", "pixart"], "Load IdentiFace Control")
    assert str(caught.value) == (
        f"{path}: Load IdentiFace Control needs an IdentiFace control or a PixArt transformer; this is an SDXL "
        "checkpoint. Choose another file; `identiface weights list` says where to get what."
    )
    path = official.save(tmp_path / "latest.pth", official.state(fill=False))
    with pytest.raises(
        WeightsError, match="this is the released IdentiFace checkpoint. Convert it once: `identi"
    ):
        expected(path, "control-branch", "Load IdentiFace Control")
    with pytest.raises(WeightsError, match="needs an IdentiFace file of kind 'face-net'"):
        expected(path, "face-net", "The gallery")


class Attack:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a pickle was executed",))


def archive(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as stream:
        stream.writestr("archive/data.pkl", content)
        stream.writestr("archive/version", "3\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x00\x01", "neither safetensors, nor a PyTorch checkpoint, nor ONNX"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page, not weights.*download again"),
        (b"<html>\n<head><title>404</title></head></html>", "a web page, not weights"),
        (b"\n <HTML><body>Not found</body></html>", "a web page, not weights"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 6005271248\n",
            "a git-lfs pointer of .* bytes.*git lfs pull",
        ),
        (b"version of something else, and long" * 40, "neither safetensors"),
        (b'{"error": "Repository not found"}', "neither safetensors"),
        (pickle.dumps(Attack()), "a pickle in PyTorch's format from before version 1.6"),
        (b"GGUF\x03\x00\x00\x00" + bytes(64), "a GGUF file"),
        (struct.pack("<Q", 400) + b'{"a": {"dtype": "F32"', "truncated"),
        (struct.pack("<Q", 2) + b"{}" + b"\0" * 8, None),
        (struct.pack("<Q", 8) + b"{'a': 1}", "its header cannot be read"),
    ],
)
def test_what_is_no_weight_file_is_named(tmp_path: Path, content: bytes, message: str | None) -> None:
    (tmp_path / "weights.safetensors").write_bytes(content)
    if message is None:
        assert recognise(tmp_path / "weights.safetensors").kind == "unknown"
        return
    with pytest.raises(WeightsError, match=rf"weights.safetensors: .*{message}"):
        recognise(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2.5], "data_offsets": [0, 8]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 8]},
        {"shape": [2], "data_offsets": [0, 8]},
        [],
        5,
    ],
)
def test_damaged_entries_are_refused(tmp_path: Path, entry: object) -> None:
    text = json.dumps({"a": entry}).encode()
    (tmp_path / "f").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(WeightsError, match="f: "):
        recognise(tmp_path / "f")


def test_truncated_and_hostile_checkpoints_are_refused(tmp_path: Path) -> None:
    whole = official.save(tmp_path / "latest.pth", official.state(fill=False)).read_bytes()
    path = tmp_path / "f.pth"
    for size in (30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match="f.pth: truncated or damaged"):
            recognise(path)
    archive(path, pickle.dumps({"state_dict": Attack()}, protocol=2))
    with pytest.raises(WeightsError, match="f.pth: .*could run code.*Get the same weights as safetensors"):
        recognise(path)
    archive(path, b"nonsense")
    with pytest.raises(WeightsError, match="f.pth: "):
        recognise(path)
    with zipfile.ZipFile(path, "w") as stream:
        stream.writestr("picture.png", b"")
    with pytest.raises(WeightsError, match="f.pth: truncated or damaged, or no PyTorch checkpoint"):
        recognise(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match="without named tensors"):
        recognise(path)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nowhere: no such file"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="a folder, where a file is wanted"):
        recognise(tmp_path)


def test_a_plain_safetensors_file_is_read_tensor_by_tensor(tmp_path: Path) -> None:
    from identiface_core.weights.foreign import open_tensors

    tensors = {
        "half": torch.randn(3, 4).half(),
        "brain": torch.randn(5).bfloat16(),
        "flags": torch.tensor([True, False]),
        "one": torch.tensor(7),
        "none": torch.zeros(0, 3),
    }
    save_file(tensors, tmp_path / "f", {"note": "here"})
    opened = open_tensors(tmp_path / "f")
    assert opened.notes == {"note": "here"} and set(opened) == set(tensors)
    for name, value in tensors.items():
        assert torch.equal(opened[name], value) and opened[name].dtype == value.dtype, name
    with pytest.raises(KeyError):
        opened["other"]
