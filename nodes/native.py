"""The embedded networks as ComfyUI's own MODEL, VAE and CLIP, in the care of its memory manager.

Host modules are imported here and nowhere else at top level: this file is only imported when a node runs.
"""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import torch
from torch import Tensor, nn

CONTROL_KEY = "identiface_control"


class HostTransformer(nn.Module):
    """Calls our transformer the way ComfyUI calls a diffusion model.

    `transformer_options[CONTROL_KEY]` is a function that gives the `Control`: the host deep-copies what lies
    in options whenever a MODEL is cloned, except functions, and nobody would move a copied branch.
    """

    dtype = torch.float32

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **_: Any,
    ) -> Tensor:
        from identiface_core.diffusion.transformer import forward_controlled

        given = (transformer_options or {}).get(CONTROL_KEY)
        steering = None if given is None else given(x.device)
        if steering is not None and not steering.acts_at(float(timesteps[0])):
            steering = None
        return forward_controlled(self.network, x, timesteps, context, steering)


class FaceLatents(comfy.latent_formats.LatentFormat):
    """Standardised latents, as the autoencoder gives them; the factors only serve previews."""

    scale_factor = 1.0
    latent_channels = 4

    def __init__(self, factors: list[list[float]] | None = None, bias: list[float] | None = None) -> None:
        self.latent_rgb_factors = factors
        self.latent_rgb_factors_bias = bias


class FaceModel(comfy.supported_models_base.BASE):
    """A model configuration that builds nothing itself: the network is given to `native_model`."""

    unet_extra_config: dict[str, Any] = {}
    latent_format = FaceLatents
    supported_inference_dtypes = [torch.float32]
    memory_usage_factor = 0.1

    def inpaint_model(self) -> bool:
        return False


def native_model(network: Any, latents: FaceLatents) -> comfy.model_patcher.ModelPatcher:
    """MODEL around a PixArt transformer that predicts v; its noise levels are the host's default."""
    config = FaceModel({"disable_unet_model_creation": True})
    config.latent_format = latents
    config.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.V_PREDICTION)
    model.diffusion_model = HostTransformer(network).eval().requires_grad_(False)
    return patcher(model)


def patcher(module: nn.Module) -> comfy.model_patcher.ModelPatcher:
    """`module` in the memory manager's care: on the device for a run, away when room is needed."""
    return comfy.model_patcher.ModelPatcher(
        module,
        load_device=mm.get_torch_device(),
        offload_device=mm.unet_offload_device(),
    )


def preview_colours(autoencoder: Any) -> FaceLatents:
    """The colours of flat latents, for the host's cheap previews: factor * latent + bias in [-1, 1]."""
    cells = torch.cat((torch.zeros(1, 4), torch.eye(4)))[:, :, None, None]
    with torch.no_grad():
        colours = autoencoder.decode(cells).mean((2, 3)) * 2 - 1
    return FaceLatents((colours[1:] - colours[0]).tolist(), colours[0].tolist())


def native_vae(autoencoder: Any) -> comfy.sd.VAE:
    """VAE around an autoencoder whose encode and decode take [0, 1] images and latents of an eighth."""
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
    vae.first_stage_model = autoencoder
    vae.latent_channels, vae.latent_dim, vae.output_channels = 4, 2, 3
    vae.downscale_ratio = vae.upscale_ratio = 8
    vae.working_dtypes = [torch.float32]
    vae.process_input = vae.process_output = _same
    vae.memory_used_encode = lambda shape, _dtype: shape[2] * shape[3] * 1200
    vae.memory_used_decode = lambda shape, _dtype: shape[2] * shape[3] * 64 * 1200
    vae.patcher = comfy.model_patcher.ModelPatcher(
        autoencoder,
        load_device=vae.device,
        offload_device=mm.vae_offload_device(),
    )
    return vae


def _same(image: Tensor) -> Tensor:
    return image


class WholeTexts:
    """A tokenizer that leaves the text whole: our text encoder reads words itself."""

    def __init__(self, **_: Any) -> None:
        pass

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, Any]:
        return {"identiface": [[(text, 1.0, 0) if return_word_ids else (text, 1.0)]]}

    def untokenize(self, tokens: Any) -> Any:
        return tokens

    def state_dict(self) -> dict[str, Any]:
        return {}


class HostTextEncoder(nn.Module):
    """Our text encoder as the host's CLIP calls one; it stays float32 wherever it runs."""

    dtypes = {torch.float32}

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def set_clip_options(self, options: dict[str, Any]) -> None:
        pass

    def reset_clip_options(self) -> None:
        pass

    def encode_token_weights(self, tokens: dict[str, Any]) -> tuple[Tensor, None]:
        texts = [" ".join(piece[0] for piece in chunk) for chunk in tokens["identiface"]]
        return self.encoder.context([" ".join(texts)]).to(mm.intermediate_device()), None

    def load_sd(self, sd: dict[str, Tensor]) -> Any:
        return self.encoder.load_state_dict(sd, strict=False)


def native_clip(encoder: Any) -> comfy.sd.CLIP:
    """CLIP around a text encoder with `encode(texts) -> (B, slots, width)`."""

    def build(device: Any = None, dtype: Any = None, model_options: Any = None) -> HostTextEncoder:
        return HostTextEncoder(encoder).to(device)

    return comfy.sd.CLIP(comfy.supported_models_base.ClipTarget(WholeTexts, build))
