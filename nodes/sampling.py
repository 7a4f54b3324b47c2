"""Stage: sampling. Where a part is, and one round that draws a part anew."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from . import sockets
from .images import to_core, to_host

CATEGORY = "IdentiFace/sampling"
PARTS = ("overview", "eyes", "brows", "mouth", "nose", "ears", "hair", "glasses", "beard", "skin")


class PartMask(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFacePartMask",
            display_name="Part Mask",
            category=CATEGORY,
            description="Where a part of the face is: for Set Latent Noise Mask, or for any node that "
            "takes a mask.",
            inputs=[
                sockets.Parts.Input(
                    "parts",
                    tooltip="Of Load Embedded Model for drawn faces, of Load Face Parts for real ones.",
                ),
                io.Image.Input(
                    "image",
                    tooltip="Portraits of any size, such as generated faces or those of Align Face; the mask has their size.",
                ),
                io.Combo.Input(
                    "part", options=list(PARTS[1:]), default="hair", tooltip="The part that the mask covers."
                ),
                io.Combo.Input(
                    "unseen",
                    options=["template", "error"],
                    default="template",
                    tooltip="A part that cannot be seen (glasses, a beard, hair): where it would be, or an "
                    "error.",
                ),
                io.Custom("FACE_LANDMARKS").Input(
                    "landmarks",
                    optional=True,
                    tooltip="Points on these portraits from the host's own face landmarker: used in place of parts.",
                ),
                io.Mask.Input(
                    "painted",
                    optional=True,
                    tooltip="A mask painted by hand: used as it is, in place of all.",
                ),
            ],
            outputs=[sockets.out(io.Mask, "mask")],
        )

    @classmethod
    def execute(
        cls, parts: Any, image: Any, part: str, unseen: str, landmarks: Any = None, painted: Any = None
    ) -> io.NodeOutput:
        import torch

        from identiface_core.errors import InputError
        from identiface_core.faces.host_landmarks import points_of_host
        from identiface_core.faces.landmarks import parts_from_landmarks
        from identiface_core.faces.segmenter import part_mask, part_template
        from identiface_core.imaging import resize

        sockets.one_of(part, PARTS[1:], "Part Mask: part")
        count, height, width = image.shape[:3]
        if painted is not None:
            mask = resize(painted.reshape(-1, 1, *painted.shape[-2:]).float().cpu(), height, width)
            if len(mask) not in (1, count):
                raise InputError(
                    f"Part Mask: {len(mask)} painted masks for {count} pictures; paint one, or one for each"
                )
            return io.NodeOutput(mask.expand(count, -1, -1, -1)[:, 0])
        size = max(height, width)
        with torch.no_grad():
            if landmarks is None:
                seen = parts(resize(to_core(image), size, size))
            else:
                seen = parts_from_landmarks(points_of_host(landmarks, count, size), size)
            masks = part_mask(seen, part)
        blank = masks.amax((1, 2, 3)) < 0.5
        if bool(blank.any()) and unseen != "template":
            raise InputError(
                f"Part Mask: no {part} seen in picture {int(blank.nonzero()[0])}; use unseen = template"
            )
        masks = torch.where(blank[:, None, None, None], part_template(part, size), masks)
        return io.NodeOutput(resize(masks, height, width)[:, 0])


class PartRound(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFacePartRound",
            display_name="Part Round",
            category=CATEGORY,
            description="One round of a case: draws several faces that differ in one part, chooses by the "
            "evidence, keeps the better, searches the gallery again.",
            inputs=[
                sockets.Case.Input("case", tooltip="From Start Case or the round before."),
                io.Combo.Input(
                    "part",
                    options=["next", *PARTS],
                    default="next",
                    tooltip="next: as planned from the description (the whole face first). Or the part to "
                    "draw now.",
                ),
                io.Int.Input(
                    "pick",
                    default=-1,
                    min=-1,
                    max=63,
                    tooltip="-1: the evidence score chooses. Else the witness's choice: number of the "
                    "face, 0 is the first.",
                ),
            ],
            outputs=[
                sockets.out(sockets.Case, "case"),
                sockets.out(io.Image, "face", tooltip="The face that now stands."),
                sockets.out(io.Latent, "latent", tooltip="Its latents."),
                sockets.out(io.Image, "faces", tooltip="All faces of this round."),
            ],
        )

    @classmethod
    def execute(cls, case: Any, part: str, pick: int) -> io.NodeOutput:
        sockets.one_of(part, ("next", *PARTS), "Part Round: part")
        after, faces = case.drawn_round(None if part == "next" else part, None if pick < 0 else pick)
        standing = to_host(after.faces()[-1])
        shown = standing if faces is None else to_host(faces)
        latent = {"samples": after.path()[-1].latents}
        last = after.state.rounds[-1]
        note = f"round {last.index} ({last.part}): {last.reason}"
        if after.stopped:
            note = f"{note}; stopped: {after.state.stop_reason}"
        return io.NodeOutput(
            after,
            standing,
            latent,
            shown,
            ui={**ui.PreviewImage(shown, cls=cls).as_dict(), "text": [note]},
        )


class PublishedSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFacePublishedSigmas",
            display_name="Published Sigmas",
            category=CATEGORY,
            description="The noise levels of IdentiFace's released sampler, for SamplerCustom with PixArt-alpha and dpmpp_2m. "
            "They end a little above 0, as released.",
            inputs=[
                io.Int.Input("steps", default=20, min=1, max=200, tooltip="Sampling steps; published: 20."),
            ],
            outputs=[sockets.out(io.Sigmas, "sigmas")],
        )

    @classmethod
    def execute(cls, steps: int) -> io.NodeOutput:
        from identiface_core.diffusion.published import published_sigmas

        return io.NodeOutput(published_sigmas(steps))


NODES = [PartMask, PartRound, PublishedSigmas]
