"""Nodes for tests only: small networks of the host's own families, with reference or random weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).resolve().parents[3] / "core" / "data" / "reference"


class TinyPixArt:
    """The host's PixArt network at the size of the reference weights; another width if asked for."""

    CATEGORY, FUNCTION = "tests", "make"
    RETURN_TYPES = ("MODEL", "CONDITIONING", "CONDITIONING")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"width": ("INT", {"default": 48}), "dtype": ("STRING", {"default": "float32"})}}

    def make(self, width: int, dtype: str) -> tuple[Any, ...]:
        import comfy.model_base
        import comfy.model_management as mm
        import comfy.model_patcher
        import comfy.ops
        import comfy.supported_models
        import torch
        from safetensors.torch import load_file

        network = {"hidden_size": width, "num_heads": 4, "depth": 6, "caption_channels": 32}
        network |= {"model_max_length": 12, "image_model": "pixart_alpha"}
        config = comfy.supported_models.PixArtAlpha(network)
        stored = getattr(torch, dtype)
        config.set_inference_dtype(stored, None if stored == torch.float32 else torch.float32)
        if stored != torch.float32:
            config.custom_operations = comfy.ops.manual_cast
        model = config.get_model({}, device=mm.unet_offload_device())
        if width == 48:
            weights = load_file(REFERENCE / "identiface-tiny-weights.safetensors")
            mine = {k[len("base_model.") :]: v for k, v in weights.items() if k.startswith("base_model.")}
            mine.pop("pos_embed", None)
            model.diffusion_model.load_state_dict({k: v.to(stored) for k, v in mine.items()})
        words = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
        patcher = comfy.model_patcher.ModelPatcher(
            model, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
        )
        return patcher, [[words[:1], {}]], [[words[1:, :5], {}]]


class CompareWithReference:
    """Runs the host's network once on a reference case, with and without the branch, and tells the largest differences."""

    CATEGORY, FUNCTION, OUTPUT_NODE = "tests", "compare", True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "control": ("IDENTIFACE_CONTROL",)}}

    def compare(self, model: Any, control: Any) -> dict[str, Any]:
        import torch
        from safetensors.torch import load_file

        from identiface_core.diffusion.control import Control

        steering = sys.modules[type(control).__module__].steering
        values = load_file(REFERENCE / "identiface-tiny-64x64.safetensors")
        network, branch = model.model.diffusion_model, control.branch
        lengths = values["in.mask"].reshape(len(values["in.x"]), -1).sum(1).int().tolist()
        words = values["in.y"][:, :, : lengths[0]]
        asked = {"c_size": values["in.img_hw"], "c_ar": values["in.aspect_ratio"]}
        run = lambda: network.forward_orig(values["in.x"], values["in.timestep"], words, **asked)  # noqa: E731
        with torch.no_grad():
            fused = branch.freq_fusion(values["in.c_sketch"], values["in.c_lq"])
            base = run()
            with steering(network, Control(branch, fused)):
                steered = run()
            again = run()
        found = {
            "base": float((base - values["out.out_base"]).abs().max()),
            "controlled": float((steered - values["out.out_control"]).abs().max()),
            "fused": float((fused - values["out.fused_control_latent"]).abs().max()),
            "left": float((again - base).abs().max()),
        }
        return {"ui": {"found": [found]}}


NODE_CLASS_MAPPINGS = {"TinyPixArt": TinyPixArt, "CompareWithReference": CompareWithReference}
