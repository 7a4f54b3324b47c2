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
            description="A control branch: lets photo and sketch steer the host's own PixArt-alpha MODEL (the authors' release, "
            "made once with `identiface weights import`) or Stable Diffusion 1.5 (`identiface train control`).",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=folders.controls(),
                    tooltip="A file of the folder models/controlnet, as `identiface weights import` or `identiface train "
                    "control` writes it. What it is, is told by its content.",
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
        from identiface_core.weights.recognise import STABLE_CONTROL, expected
        from identiface_core.weights.released import CONTROL

        path = folders.control_file(file)
        if expected(path, (CONTROL, STABLE_CONTROL), "Load IdentiFace Control").kind == STABLE_CONTROL:
            from .stable import load_control
        else:
            from .pixart import load_control
        return io.NodeOutput(load_control(path, vae))


class ModelToolkit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        import comfy.samplers

        return io.Schema(
            node_id="IdentiFaceModelToolkit",
            display_name="Toolkit From Model",
            category="IdentiFace/model",
            description="Draws the rounds of a case with a MODEL of your own: any checkpoint, with the ControlNets, LoRAs and "
            "text encoder you gave it.",
            inputs=[
                sockets.Toolkit.Input(
                    "toolkit",
                    tooltip="Of Load Embedded Model: reads the words, and stands in for what is not linked below. It knows drawn "
                    "people only: for photographs link matcher, judge, parts and finder.",
                ),
                io.Model.Input("model", tooltip="Draws the faces."),
                io.Clip.Input("clip", tooltip="The MODEL's own text encoder."),
                io.Vae.Input("vae", tooltip="The MODEL's own."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="Its text is replaced by each round's words; all else goes along: ControlNets of sketch and photo, "
                    "applied by the stock nodes.",
                ),
                io.Conditioning.Input("negative", tooltip="Used as it is, with its ControlNets."),
                io.Latent.Input("latent", tooltip="An empty latent: its size is that of the pictures."),
                io.Int.Input("steps", default=20, min=1, max=200, tooltip="Sampling steps of every round."),
                io.Float.Input(
                    "cfg", default=5.0, min=0.0, max=30.0, step=0.1, tooltip="Weight of the words."
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=list(comfy.samplers.KSampler.SAMPLERS),
                    default="dpmpp_2m",
                    tooltip="As in KSampler.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=list(comfy.samplers.KSampler.SCHEDULERS),
                    default="karras",
                    tooltip="As in KSampler.",
                ),
                io.String.Input(
                    "prompt",
                    default="portrait photo of a person, {words}, looking at the camera, plain background",
                    multiline=True,
                    tooltip="{words} is where the witness's words go; without it they are not used.",
                ),
                sockets.Control.Input(
                    "control",
                    optional=True,
                    tooltip="A control branch of ours that fits the MODEL, if there is one.",
                ),
                sockets.Matcher.Input(
                    "matcher", optional=True, tooltip="Searches: for photographs one that knows them."
                ),
                sockets.Matcher.Input("judge", optional=True, tooltip="Judges: another than the matcher."),
                sockets.Parts.Input(
                    "parts", optional=True, tooltip="Finds eyes, nose, hair... for part rounds."
                ),
                sockets.Finder.Input("finder", optional=True, tooltip="Finds the face in what was drawn."),
            ],
            outputs=[
                sockets.out(
                    sockets.Toolkit,
                    "toolkit",
                    tooltip="For Start Case, Enrol Faces, Search Gallery. It brings its own steps and cfg.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        toolkit: Any,
        model: Any,
        clip: Any,
        vae: Any,
        positive: Any,
        negative: Any,
        latent: Any,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        prompt: str,
        control: Any = None,
        **others: Any,
    ) -> io.NodeOutput:
        import comfy.sample
        import comfy.samplers

        from identiface_core.rounds.toolkit import toolkit_around

        from .drawing import DrawingSettings, HostDrawing, traits_of

        sockets.one_of(sampler_name, comfy.samplers.KSampler.SAMPLERS, "Toolkit From Model: sampler_name")
        sockets.one_of(scheduler, comfy.samplers.KSampler.SCHEDULERS, "Toolkit From Model: scheduler")
        empty = comfy.sample.fix_empty_latent_channels(model, latent["samples"][:1])
        drawing = HostDrawing(
            model,
            clip,
            vae,
            positive,
            negative,
            others.get("finder") or toolkit.finder,
            tuple(empty.shape[1:]),
            DrawingSettings(steps, cfg, sampler_name, scheduler, prompt),
            control,
        )
        return io.NodeOutput(toolkit_around(drawing, toolkit, traits_of(model), **others))


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


NODES = [LoadEmbeddedModel, LoadControl, ModelToolkit]
