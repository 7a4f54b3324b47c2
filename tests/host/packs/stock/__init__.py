"""Nodes for tests only: the host's own networks of Stable Diffusion, tiny and with random weights."""

from __future__ import annotations

from typing import Any

WIDTH = 64
POOLED = 32
NETWORK = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "channel_mult": [1, 2],
    "num_res_blocks": [1, 1], "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1, "context_dim": WIDTH, "use_spatial_transformer": True,
    "use_linear_in_transformer": False, "legacy": False, "use_checkpoint": False,
}  # fmt: skip
SDXL = {"num_classes": "sequential", "adm_in_channels": POOLED + 6 * 256, "use_linear_in_transformer": True}


def network_of(family: str) -> dict[str, Any]:
    return {**NETWORK, **(SDXL if family == "sdxl" else {})}


def fill(network: Any) -> None:
    """Random weights: the host's layers leave theirs as they find them in memory. No zero convolutions: all acts."""
    import torch

    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.5 * weight[0].numel() ** -0.5)
        else:
            torch.nn.init.constant_(weight, float(name.endswith("weight")))


class Words:
    """A tokenizer that leaves the text whole."""

    def __init__(self, **_: Any) -> None:
        pass

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, Any]:
        return {"words": [[(text, 1.0)]]}

    def state_dict(self) -> dict[str, Any]:
        return {}


def text_encoder(width: int = WIDTH) -> Any:
    import zlib

    import comfy.sd
    import comfy.supported_models_base
    import torch

    class Encoder(torch.nn.Module):
        """A few random rows per text, always the same for the same text; one per word."""

        dtypes = {torch.float32}

        def set_clip_options(self, options: Any) -> None:
            pass

        def reset_clip_options(self) -> None:
            pass

        def encode_token_weights(self, tokens: Any) -> Any:
            text = " ".join(str(piece[0]) for piece in tokens["words"][0])
            noise = torch.Generator().manual_seed(zlib.crc32(text.encode()))
            return torch.randn(1, 2 + len(text.split()), width, generator=noise), torch.randn(
                1, POOLED, generator=noise
            )

        def load_sd(self, sd: Any) -> Any:
            return self.load_state_dict(sd, strict=False)

    def build(device: Any = None, dtype: Any = None, model_options: Any = None) -> Any:
        return Encoder()

    return comfy.sd.CLIP(comfy.supported_models_base.ClipTarget(Words, build))


class TinyCheckpoint:
    """Stands for CheckpointLoaderSimple: MODEL, CLIP and VAE of a family."""

    CATEGORY, FUNCTION = "tests", "make"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"family": (["sd15", "sdxl"],), "seed": ("INT", {"default": 0})}}

    def make(self, family: str, seed: int) -> tuple[Any, ...]:
        import comfy.latent_formats
        import comfy.model_base
        import comfy.model_management as mm
        import comfy.model_patcher
        import comfy.supported_models_base
        import torch

        from nodes import NODE_CLASS_MAPPINGS

        class Tiny(comfy.supported_models_base.BASE):
            unet_config: dict[str, Any] = {}
            unet_extra_config = {"num_heads": -1, "num_head_channels": 32}
            latent_format = comfy.latent_formats.SD15 if family == "sd15" else comfy.latent_formats.SDXL
            supported_inference_dtypes = [torch.float32]
            memory_usage_factor = 0.1

            def inpaint_model(self) -> bool:
                return False

        torch.manual_seed(seed)
        config = Tiny(network_of(family))
        config.set_inference_dtype(torch.float32, None)
        kind = comfy.model_base.SDXL if family == "sdxl" else comfy.model_base.BaseModel
        with torch.inference_mode(False):
            model = kind(config, device=mm.unet_offload_device())
            fill(model.diffusion_model)
        patcher = comfy.model_patcher.ModelPatcher(
            model, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
        )
        embedded = NODE_CLASS_MAPPINGS["IdentiFaceLoadEmbeddedModel"].execute()
        return patcher, text_encoder(), embedded.args[2]


class TinyControlNet:
    """Stands for ControlNetLoader."""

    CATEGORY, FUNCTION = "tests", "make"
    RETURN_TYPES = ("CONTROL_NET",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"family": (["sd15", "sdxl"],), "seed": ("INT", {"default": 0})}}

    def make(self, family: str, seed: int) -> tuple[Any, ...]:
        import comfy.cldm.cldm
        import comfy.controlnet
        import comfy.model_management as mm
        import comfy.ops
        import torch

        given = {
            k: v
            for k, v in network_of(family).items()
            if k not in ("out_channels", "transformer_depth_output")
        }
        torch.manual_seed(seed)
        with torch.inference_mode(False):
            network = comfy.cldm.cldm.ControlNet(
                **given,
                hint_channels=3,
                num_head_channels=32,
                operations=comfy.ops.disable_weight_init,
                dtype=torch.float32,
            )
            fill(network)
        return (comfy.controlnet.ControlNet(network, load_device=mm.get_torch_device()),)


class TinyWords:
    """Stands for CLIPLoader: a text encoder of a given width."""

    CATEGORY, FUNCTION = "tests", "make"
    RETURN_TYPES = ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"width": ("INT", {"default": 32})}}

    def make(self, width: int) -> tuple[Any, ...]:
        return (text_encoder(width),)


NODE_CLASS_MAPPINGS = {
    "TinyCheckpoint": TinyCheckpoint,
    "TinyControlNet": TinyControlNet,
    "TinyWords": TinyWords,
}
