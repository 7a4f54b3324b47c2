"""Stage: conditioning. Words to CONDITIONING; photo and sketch to a patch on MODEL."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import sockets

CATEGORY = "IdentiFace/conditioning"
EVERYTHING = "everything"


def choices() -> tuple[str, ...]:
    """All words at once, or one part."""
    from identiface_core.parts import PARTS

    return (EVERYTHING, *PARTS)


class EncodeDescription(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceEncodeDescription",
            display_name="Encode Description",
            category=CATEGORY,
            description="A description as CONDITIONING for any sampler: all of it, or the opening and one "
            "part.",
            inputs=[
                io.Clip.Input(
                    "clip", tooltip="Of Load Embedded Model; another model's CLIP works with that model."
                ),
                sockets.Description.Input("description", tooltip="From Description."),
                io.Combo.Input(
                    "part",
                    options=list(choices()),
                    default=EVERYTHING,
                    tooltip="everything: all words at once, for a whole face. A part: the opening and that "
                    "part's words, for a round.",
                ),
                io.Boolean.Input(
                    "published_cleaning",
                    default=False,
                    optional=True,
                    tooltip="Clean the text as IdentiFace's released code does before its T5 reads it: lower case, no brackets. "
                    "For PixArt-alpha; the embedded model does not need it.",
                ),
            ],
            outputs=[
                sockets.out(io.Conditioning, "conditioning"),
                sockets.out(io.String, "prompt", tooltip="The text that was encoded."),
            ],
        )

    @classmethod
    def execute(
        cls, clip: Any, description: Any, part: str, published_cleaning: bool = False
    ) -> io.NodeOutput:
        from identiface_core.evidence.cleaning import clean_caption

        sockets.one_of(part, choices(), "Encode Description: part")
        prompt = description.full_prompt() if part == EVERYTHING else description.prompt(part)
        prompt = clean_caption(prompt) if published_cleaning else prompt
        return io.NodeOutput(clip.encode_from_tokens_scheduled(clip.tokenize(prompt)), prompt)


class ApplyControl(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceApplyControl",
            display_name="Apply Control",
            category=CATEGORY,
            description="Lets photo and sketch steer the model: their latents, fused by frequency, enter "
            "through the control branch.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The MODEL that the control belongs to: the embedded one, PixArt-alpha, or Stable Diffusion 1.5. It "
                    "stays as it is, a patched copy is returned.",
                ),
                sockets.Control.Input(
                    "control",
                    tooltip="Of Load Embedded Model, or of Load IdentiFace Control for PixArt-alpha and Stable Diffusion 1.5.",
                ),
                sockets.Evidence.Input(
                    "evidence", tooltip="Photo, sketch or both. Words do not matter here."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How much the evidence steers. 0 is exactly the model without control.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the sampling at which the control sets in.",
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the sampling at which the control ends.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="The LATENT that is sampled. To draw a part anew, with its mask (Set Latent Noise Mask): the "
                    "embedded branch then sees what surrounds the part. With PixArt-alpha it tells the size, else 1024 x 1024.",
                ),
                sockets.Embedding.Input(
                    "estimate",
                    optional=True,
                    tooltip="An identity to draw whole faces towards: the query of Embed Evidence.",
                ),
            ],
            outputs=[sockets.out(io.Model, "model")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        control: Any,
        evidence: Any,
        strength: float,
        start: float,
        end: float,
        latent: Any = None,
        estimate: Any = None,
    ) -> io.NodeOutput:
        from identiface_core.embedded import MATCHER_A
        from identiface_core.errors import InputError

        known = cells = None
        if estimate is not None and estimate.embedding.matcher != MATCHER_A:
            raise InputError(
                f"Apply Control: the estimate must be an embedding of {MATCHER_A}, such as Embed Evidence gives, "
                f"not of {estimate.embedding.matcher}"
            )
        if latent is not None and latent.get("noise_mask") is not None:
            known, cells = latent["samples"], latent_cells(latent)
        return io.NodeOutput(
            control.apply(
                model,
                evidence,
                strength=strength,
                start=start,
                end=end,
                known=known,
                cells=cells,
                size=None if latent is None else tuple(latent["samples"].shape[-2:]),
                estimate=None if estimate is None else estimate.embedding.vector,
            )
        )


class NullText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceNullText",
            display_name="Null Text",
            category=CATEGORY,
            description="What IdentiFace's released code takes for no words: PixArt's own learned table, as long as the prompt. "
            "Use it as the negative; an empty T5 text gives other pictures.",
            inputs=[
                io.Model.Input("model", tooltip="A PixArt-alpha MODEL: the table is in it."),
                io.Conditioning.Input("positive", tooltip="The prompt, whose length it takes."),
            ],
            outputs=[sockets.out(io.Conditioning, "negative")],
        )

    @classmethod
    def execute(cls, model: Any, positive: Any) -> io.NodeOutput:
        from identiface_core.diffusion.published import null_text
        from identiface_core.errors import InputError

        network = model.model.diffusion_model
        table = getattr(getattr(network, "y_embedder", None), "y_embedding", None)
        if table is None:
            raise InputError(
                f"Null Text: the MODEL is a {type(network).__name__}, which has no learned null text: load a PixArt-alpha "
                "checkpoint, or encode an empty text"
            )
        rows = table.detach().float().cpu()
        return io.NodeOutput(
            [[null_text(rows, tokens.shape[1])[None], dict(options)] for tokens, options in positive]
        )


def latent_cells(latent: Any) -> Any:
    """Cells of a masked LATENT that are drawn anew, (B or 1, 1, h, w) binary; the mask may have any size."""
    import torch.nn.functional as F

    from identiface_core.diffusion.autoencoder import FACTOR
    from identiface_core.diffusion.masking import latent_mask

    height, width = latent["samples"].shape[-2:]
    mask = latent["noise_mask"].reshape(-1, 1, *latent["noise_mask"].shape[-2:]).float()
    return latent_mask(F.interpolate(mask, (FACTOR * height, FACTOR * width)))


NODES = [EncodeDescription, ApplyControl, NullText]
