"""Nodes for tests only: a small U-Net of the host's own class, a stock ControlNet for it, and what reaches the network."""

from __future__ import annotations

import sys
from typing import Any

SEEN: dict[str, list[Any]] = {}
"""What reached the network in its first call, by name: residuals of the skips, then the middle's."""
UNET: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 0],
    "transformer_depth_output": [1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "num_heads": 2,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "legacy": False,
}


def weights_of(file: str) -> Any:
    import folder_paths
    from safetensors.torch import load_file

    return load_file(folder_paths.get_full_path_or_raise("diffusion_models", file))


class TinyStable:
    """The host's U-Net with diffusers' weights from a file, as a MODEL; and words of nine and of five tokens."""

    CATEGORY, FUNCTION = "tests", "make"
    RETURN_TYPES = ("MODEL", "CONDITIONING", "CONDITIONING")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"file": ("STRING", {}), "text": ("INT", {"default": 64}), "dtype": ("STRING", {})}
        }

    def make(self, file: str, text: int, dtype: str) -> tuple[Any, ...]:
        import comfy.latent_formats
        import comfy.model_management as mm
        import comfy.model_patcher
        import comfy.ops
        import comfy.supported_models_base
        import comfy.utils
        import torch

        class Tiny(comfy.supported_models_base.BASE):
            unet_config: dict[str, Any] = {}
            unet_extra_config: dict[str, Any] = {}
            latent_format = comfy.latent_formats.SD15
            supported_inference_dtypes = [torch.float32]
            memory_usage_factor = 0.1

            def inpaint_model(self) -> bool:
                return False

        shape = {**UNET, "context_dim": text}
        stored = getattr(torch, dtype)
        config = Tiny(dict(shape))
        config.set_inference_dtype(stored, None if stored == torch.float32 else torch.float32)
        if stored != torch.float32:
            config.custom_operations = comfy.ops.manual_cast
        model = config.get_model({}, device=mm.unet_offload_device())
        if text == 64:
            names = comfy.utils.unet_to_diffusers(shape)
            state = {names[name]: one.to(stored) for name, one in weights_of(file).items()}
            model.diffusion_model.load_state_dict(state)
        patcher = comfy.model_patcher.ModelPatcher(
            model, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
        )
        words = torch.randn(2, 9, text, generator=torch.Generator().manual_seed(1))
        return patcher, [[words[:1], {}]], [[words[1:, :5], {}]]


class TinyControlNet:
    """The host's own ControlNet class around a network of one convolution."""

    CATEGORY, FUNCTION = "tests", "make"
    RETURN_TYPES = ("CONTROL_NET",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def make(self) -> tuple[Any, ...]:
        import comfy.controlnet
        import comfy.model_management as mm
        import torch

        class Net(torch.nn.Module):
            dtype = torch.float32

            def __init__(self) -> None:
                super().__init__()
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(6)
                    self.convolution = torch.nn.Conv2d(4, 64, 3, padding=1)

            def forward(self, x: Any, hint: Any, timesteps: Any, context: Any, **_: Any) -> Any:
                wide = self.convolution(x) * hint.mean()
                low = torch.nn.functional.avg_pool2d(wide, 2)
                skips = [wide[:, :32].clone(), wide[:, 32:].clone(), low[:, :32].clone(), low.clone()]
                return {"output": skips, "middle": [low * 2]}

        return (comfy.controlnet.ControlNet(Net(), load_device=mm.get_torch_device()),)


class Watch:
    """MODEL that notes under a name what residuals reach its network first."""

    CATEGORY, FUNCTION = "tests", "watch"
    RETURN_TYPES = ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "name": ("STRING", {})}}

    def watch(self, model: Any, name: str) -> tuple[Any, ...]:
        from comfy.patcher_extension import WrappersMP

        SEEN.pop(name, None)

        def noted(
            executor: Any, x: Any, t: Any, context: Any, y: Any, control: Any, *args: Any, **more: Any
        ) -> Any:
            if name not in SEEN:
                given = control or {"output": [], "middle": []}
                SEEN[name] = [one.clone() for one in (*given["output"], *given["middle"])]
            return executor(x, t, context, y, control, *args, **more)

        watched = model.clone()
        watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", noted)
        return (watched,)


class CompareSums:
    """Tells how far what two controls gave together is from the sum of what each gave alone."""

    CATEGORY, FUNCTION, OUTPUT_NODE = "tests", "compare", True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"one": ("LATENT",), "other": ("LATENT",), "both": ("LATENT",)}}

    def compare(self, one: Any, other: Any, both: Any) -> dict[str, Any]:
        rows = list(zip(SEEN["one"], SEEN["other"], SEEN["both"], strict=True))
        found = {
            "rows": len(rows),
            "difference": max(float((a + b - c).abs().max()) for a, b, c in rows),
            "least": min(float(x.abs().max()) for row in rows for x in row),
        }
        return {"ui": {"found": [found]}}


class CompareWithCore:
    """Runs the host's network and diffusers' with the same weights and control, and tells the largest differences."""

    CATEGORY, FUNCTION, OUTPUT_NODE = "tests", "compare", True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "control": ("IDENTIFACE_CONTROL",), "file": ("STRING", {})}}

    def compare(self, model: Any, control: Any, file: str) -> dict[str, Any]:
        import json

        import folder_paths
        import torch
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from safetensors import safe_open

        from identiface_core.diffusion.stable import LatentControl, forward_controlled_unet

        merged = sys.modules[type(control).__module__].merged
        with safe_open(folder_paths.get_full_path_or_raise("diffusion_models", file), "pt") as opened:
            unet = UNet2DConditionModel(**json.loads(opened.metadata()["config"])).eval()
        unet.load_state_dict(weights_of(file))
        g = torch.Generator().manual_seed(9)
        x, words = torch.randn(2, 4, 16, 16, generator=g), torch.randn(2, 7, 64, generator=g)
        clues = torch.randn(2, 1, 4, 16, 16, generator=g)
        t = torch.tensor([801.0, 22.5])
        asked = LatentControl.of(control.branch, *clues)
        network = model.model.diffusion_model
        with torch.no_grad():
            ours = merged(None, asked.residuals(x, t, words))
            pairs = {
                "plain": (network(x, t, context=words), forward_controlled_unet(unet, x, t, words)),
                "controlled": (
                    network(x, t, context=words, control=ours),
                    forward_controlled_unet(unet, x, t, words, asked),
                ),
            }
        found = {name: float((one - other).abs().max()) for name, (one, other) in pairs.items()}
        found["effect"] = float((pairs["controlled"][1] - pairs["plain"][1]).abs().max())
        return {"ui": {"found": [found]}}


NODE_CLASS_MAPPINGS = {
    "TinyStable": TinyStable,
    "TinyControlNet": TinyControlNet,
    "WatchControl": Watch,
    "CompareSums": CompareSums,
    "CompareWithCore": CompareWithCore,
}
