"""Stage: model. The networks that come with the pack, as the host's own types and ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from . import folders, sockets


class LoadEmbeddedModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceLoadEmbeddedModel",
            display_name="Load Embedded Model",
            category="IdentiFace/model",
            description="The small model that comes with the pack: nothing to download, runs on a CPU, "
            "knows drawn people only. MODEL, CLIP and VAE work with the stock nodes; faces are "
            "128 x 128.",
            inputs=[],
            outputs=[
                sockets.out(io.Model, "model", tooltip="For KSampler and any other sampler."),
                sockets.out(io.Clip, "clip", tooltip="Reads what a witness says about a face."),
                sockets.out(io.Vae, "vae", tooltip="128 x 128 pixels to 16 x 16 latents and back."),
                sockets.out(
                    sockets.Control, "control", tooltip="Lets photo and sketch steer: for Apply Control."
                ),
                sockets.out(sockets.Matcher, "matcher", tooltip="Guides and searches."),
                sockets.out(
                    sockets.Matcher,
                    "judge",
                    tooltip="Trained apart from the matcher, and never used to guide.",
                ),
                sockets.out(sockets.Parts, "parts", tooltip="Finds eyes, nose, hair...: for Part Mask."),
                sockets.out(sockets.Finder, "finder", tooltip="Finds faces in pictures."),
                sockets.out(
                    sockets.Toolkit,
                    "toolkit",
                    tooltip="All of it: for Start Case, Embed Evidence, Enrol Faces, Search Gallery.",
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*host_model())


class LoadControl(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceLoadControl",
            display_name="Load IdentiFace Control",
            category="IdentiFace/model",
            description="The authors' released control branch, for the host's own PixArt-alpha MODEL: lets photo and sketch "
            "steer it. Made once from their checkpoint with `identiface weights import`.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=folders.controls(),
                    tooltip="A file of the folder models/controlnet, as `identiface weights import` writes it. What it is, is "
                    "told by its content.",
                ),
                io.Vae.Input(
                    "vae",
                    tooltip="Of Stable Diffusion 1, which PixArt-alpha uses too: encodes photo and sketch.",
                ),
            ],
            outputs=[sockets.out(sockets.Control, "control", tooltip="For Apply Control.")],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        return True  # the file is looked for when the node runs, which can say more

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> Any:
        return folders.state_of_control(file)

    @classmethod
    def execute(cls, file: str, vae: Any) -> io.NodeOutput:
        from .pixart import load_control

        return io.NodeOutput(load_control(folders.control_file(file), vae))


def host_model() -> tuple[Any, ...]:
    """The embedded model in the order of the node's outputs; WeightsError for files missing or damaged."""
    import copy

    from identiface_core.embedded import load_embedded

    from .native import native_clip, native_model, native_vae, preview_colours
    from .steering import HostControl, HostGenerator

    loaded = load_embedded()
    drawing = loaded.generator
    model = native_model(drawing.transformer, preview_colours(drawing.autoencoder))
    # The memory manager moves what it is given; evidence is read on the CPU, by a text encoder of its own.
    clip = native_clip(copy.deepcopy(loaded.text_encoder))
    vae = native_vae(drawing.autoencoder)
    control = HostControl(drawing, vae)
    toolkit = replace(loaded, generator=HostGenerator(model, clip, vae, control))
    return (
        model,
        clip,
        vae,
        control,
        loaded.matcher_a,
        loaded.matcher_b,
        loaded.segmenter,
        loaded.finder,
        toolkit,
    )


NODES = [LoadEmbeddedModel, LoadControl]
