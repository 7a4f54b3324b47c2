"""Stage: guidance. Sampling led towards a person, and the question whether it finds the person or fools the matcher."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from . import sockets
from .images import to_core

CATEGORY = "IdentiFace/identity"
METHODS = ("latent", "decoded", "search")
TAKES = ("consensus", "candidate")
NEVER = 1.0


class IdentityGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceIdentityGuidance",
            display_name="Identity Guidance",
            category=CATEGORY,
            description="Leads the sampling towards a person: a matcher looks at the predicted face every few steps, and the "
            "prediction is moved to where it sees the person more.",
            inputs=[
                io.Model.Input("model", tooltip="It stays as it is, a patched copy is returned."),
                sockets.Embedding.Input(
                    "target",
                    tooltip="Of Embed Evidence, where the evidence points; or of Embed Face, made with the same matcher.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="latent",
                    tooltip="latent: the embedded MODEL, almost free; needs the toolkit. decoded: any MODEL; needs vae (TAESD "
                    "is enough) and matcher. search: as decoded, for matchers without gradients; slow.",
                ),
                io.Float.Input(
                    "scale", default=0.1, min=0.0, max=1.0, step=0.005,
                    tooltip="Size of a move, as a share of the prediction. 0 is exactly the MODEL without guidance.",
                ),
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=1.0, step=0.01,
                    tooltip="Share of the sampling at which guidance sets in.",
                ),
                io.Float.Input(
                    "end", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="Share of the sampling at which it ends.",
                ),
                io.Int.Input(
                    "every_n", default=4, min=1, max=50,
                    tooltip="The matcher looks at every n-th step; the steps between repeat its last move.",
                ),
                io.Float.Input(
                    "stop_at", default=NEVER, min=0.0, max=1.0, step=0.01,
                    tooltip="Cosine that a face is to reach and not to pass, such as a matcher's threshold. 1: never.",
                ),
                sockets.Toolkit.Input("toolkit", optional=True, tooltip="Of Load Embedded Model, for latent."),
                io.Vae.Input(
                    "vae", optional=True, tooltip="Decodes predictions, for decoded and search. TAESD costs least."
                ),
                sockets.Matcher.Input(
                    "matcher",
                    optional=True,
                    tooltip="For decoded and search; the one that made the target. Keep the judge out of it.",
                ),
                sockets.Embedding.Input(
                    "away_from", optional=True, tooltip="Somebody whom the face must not look like, made with the same matcher."
                ),
                sockets.Description.Input(
                    "keep_words", optional=True, tooltip="Words that a move must not make less true. For latent."
                ),
                io.Int.Input(
                    "crop_x", default=0, min=0, max=16384, optional=True,
                    tooltip="Left edge of the face's square in the picture, in pixels.",
                ),
                io.Int.Input(
                    "crop_y", default=0, min=0, max=16384, optional=True, tooltip="Its upper edge.",
                ),
                io.Int.Input(
                    "crop_side", default=0, min=0, max=16384, optional=True,
                    tooltip="Side of that square, framed as Align Face frames a portrait. 0: the whole picture is the portrait.",
                ),
                io.Float.Input(
                    "low", default=-1.0, min=-1.0, max=1.0, step=0.01, optional=True,
                    tooltip="With high: keep the cosine to the target in a band, such as 0.3 to 0.5 for a look-alike.",
                ),
                io.Float.Input(
                    "high", default=1.0, min=-1.0, max=1.0, step=0.01, optional=True, tooltip="Upper end of that band.",
                ),
            ],
            outputs=[
                sockets.out(io.Model, "model", tooltip="For KSampler and any other sampler."),
                sockets.out(
                    io.Sampler, "sampler",
                    tooltip="Instead, for SamplerCustom with the MODEL from before this node: steps with fresh noise, in which "
                    "guidance does best. There 0.04 is a good scale.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: Any,
        target: Any,
        method: str,
        scale: float,
        start: float,
        end: float,
        every_n: int,
        stop_at: float,
        toolkit: Any = None,
        vae: Any = None,
        matcher: Any = None,
        away_from: Any = None,
        keep_words: Any = None,
        crop_x: int = 0,
        crop_y: int = 0,
        crop_side: int = 0,
        low: float = -1.0,
        high: float = 1.0,
    ) -> io.NodeOutput:
        from identiface_core.diffusion.guidance.base import Guide, Options
        from identiface_core.diffusion.guidance.search import SearchGuide
        from identiface_core.diffusion.guidance.travel import TravelGuide
        from identiface_core.errors import InputError

        from .guiding import guided, sampler_for

        sockets.one_of(method, METHODS, "Identity Guidance: method")
        options = Options(
            scale=scale,
            start=start,
            end=end,
            every_n=every_n,
            schedule="sigma",
            preserve=keep_words is not None,
            stop_at=None if stop_at >= NEVER else stop_at,
        )
        if method == "latent":
            eye, name = _latent_eye(model, toolkit)
        else:
            if keep_words is not None:
                raise InputError(
                    f"Identity Guidance: {method} reads no words, so it cannot keep any: use latent, or unlink keep_words"
                )
            eye, name = _decoded_eye(vae, matcher, method, (crop_x, crop_y, crop_side))
        goal, said = _goal(target, away_from, name, (low, high)), _said(keep_words, toolkit)
        steps = replace(options, schedule="constant")
        if method == "search":
            guide = SearchGuide(eye, goal, options)
            return io.NodeOutput(
                guided(model, guide, name), sampler_for(model, replace(guide, options=steps))
            )
        return io.NodeOutput(
            guided(model, Guide(eye, goal, options, said), name),
            sampler_for(model, TravelGuide(eye, goal, steps, said)),
        )


class GalleryTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceGalleryTarget",
            display_name="Gallery Target",
            category=CATEGORY,
            description="Somebody to guide to out of a gallery: the consensus of the people most like a query, or one of "
            "them. And the same as the judge sees it, so that Guidance Check needs no photo of the person sought.",
            inputs=[
                sockets.Gallery.Input("gallery", tooltip="Whom to search."),
                sockets.Embedding.Input("query", tooltip="From Embed Evidence or Embed Face."),
                io.Combo.Input(
                    "take",
                    options=list(TAKES),
                    default=TAKES[0],
                    tooltip="consensus: of the first so many people. candidate: the one at this rank alone, which draws a guess.",
                ),
                io.Int.Input(
                    "number", default=20, min=1, max=1000, tooltip="How many people, or the candidate's rank."
                ),
                io.String.Input(
                    "exclude", default="", multiline=True, tooltip="Names to leave out, one a line."
                ),
            ],
            outputs=[
                sockets.out(sockets.Embedding, "target", tooltip="For Identity Guidance."),
                sockets.out(sockets.Embedding, "judge_target", tooltip="For Guidance Check."),
                sockets.out(io.String, "people", tooltip="Who they are, best first."),
            ],
        )

    @classmethod
    def execute(cls, gallery: Any, query: Any, take: str, number: int, exclude: str) -> io.NodeOutput:
        from comfy_execution.graph import ExecutionBlocker

        from identiface_core.errors import InputError
        from identiface_core.gallery import search
        from identiface_core.matchers.base import Embedding
        from identiface_core.rounds.led import judge_target

        from .identity import Query

        sockets.one_of(take, TAKES, "Gallery Target: take")
        left_out = [line.strip() for line in exclude.splitlines() if line.strip()]
        found = search(gallery, query.embedding, number, exclude=left_out, source=query.source)
        consensus, own = take == TAKES[0], query.embedding.matcher
        if number > found.gallery_size - consensus:
            wanted = "more people than that" if consensus else "as many people"
            raise InputError(
                f"Gallery Target: {take} {number} needs {wanted}, the gallery has {found.gallery_size} to choose from"
            )
        people = found.people() if consensus else found.people()[-1:]

        def as_seen_by(name: str) -> Any:
            if consensus:
                sought = query.embedding.vector.float().cpu()
                vector = judge_target(gallery, own, name, sought, left_out, number)
            else:
                vector = gallery.templates[name][gallery.people.index(people[0])]
            return Query(Embedding(vector, name, synthetic=True), "portrait")

        judges = [name for name in gallery.templates if name != own]
        judged = (
            as_seen_by(judges[0])
            if judges
            else ExecutionBlocker(
                f"Gallery Target: the gallery holds templates of '{own}' alone; a judge must be another: enrol with two"
            )
        )
        return io.NodeOutput(as_seen_by(own), judged, "\n".join(people))


class GuidanceCheck(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceGuidanceCheck",
            display_name="Guidance Check",
            category=CATEGORY,
            description="Did guidance find the person, or fool the matcher that guides? Asks a judge that never guides about "
            "guided and unguided faces of the same seeds, and warns when only the guiding matcher is pleased.",
            inputs=[
                io.Image.Input("guided", tooltip="Portraits that were guided."),
                io.Image.Input("unguided", tooltip="Portraits of the same seeds without guidance."),
                sockets.Matcher.Input("matcher", tooltip="The one that guided."),
                sockets.Embedding.Input("target", tooltip="What was guided to."),
                sockets.Matcher.Input("judge", tooltip="Another one, trained apart."),
                sockets.Embedding.Input(
                    "judge_target",
                    tooltip="The person as the judge sees them: Gallery Target, or Embed Face with the judge, of a photo that "
                    "guidance did not use.",
                ),
            ],
            outputs=[
                sockets.out(
                    io.String,
                    "report",
                    tooltip="A, judge B, the gap, and a warning if there is need for one.",
                ),
                sockets.out(
                    io.Float,
                    "a",
                    tooltip="Mean cosine of guided faces to the target, by the guiding matcher.",
                ),
                sockets.out(io.Float, "b", tooltip="The same by the judge, to its own target."),
                sockets.out(io.Float, "gap", tooltip="A - B."),
                sockets.out(io.Boolean, "suspect", tooltip="Whether the warning was given."),
            ],
        )

    @classmethod
    def execute(
        cls, guided: Any, unguided: Any, matcher: Any, target: Any, judge: Any, judge_target: Any
    ) -> io.NodeOutput:
        from identiface_core.diffusion.guidance.check import Check
        from identiface_core.errors import InputError

        if matcher.name == judge.name:
            raise InputError(
                f"Guidance Check: '{judge.name}' is the matcher that guides: a judge must be another one"
            )
        check = Check(
            *(_cosine(image, one, to) for image in (guided, unguided) for one, to in ((matcher, target), (judge, judge_target)))
        )  # fmt: skip
        told = check.text()
        return io.NodeOutput(
            told, check.a, check.b, check.gap, bool(check.warning), ui=ui.PreviewText(told, cls=cls)
        )


def _latent_eye(model: Any, toolkit: Any) -> tuple[Any, str]:
    from identiface_core.diffusion.guidance.eyes import LatentEye
    from identiface_core.errors import InputError

    from .guiding import differentiable
    from .native import HostTransformer

    if toolkit is None or getattr(toolkit, "critic", None) is None:
        raise InputError(
            "Identity Guidance: latent needs the toolkit of Load Embedded Model; for another MODEL use decoded"
        )
    if not isinstance(model.model.diffusion_model, HostTransformer):
        raise InputError(
            f"Identity Guidance: latent reads the embedded MODEL's latents, but the MODEL is a "
            f"{type(model.model.diffusion_model).__name__}: use decoded, with its VAE and a matcher"
        )
    return LatentEye(differentiable(toolkit.critic)), toolkit.matcher_a.name


def _decoded_eye(vae: Any, matcher: Any, method: str, crop: tuple[int, int, int]) -> tuple[Any, str]:
    import torch

    from identiface_core.diffusion.guidance.eyes import DecodedEye
    from identiface_core.errors import InputError
    from identiface_core.faces.alignment import PORTRAIT_SIDE

    from .guiding import decoder_of, differentiable, ordinary

    if vae is None or matcher is None:
        raise InputError(f"Identity Guidance: {method} needs a vae and the matcher that made the target")
    if method == "decoded" and not getattr(matcher, "differentiable", True):
        raise InputError(
            f"Identity Guidance: no gradient goes through matcher '{matcher.name}': use search, or a matcher of safetensors"
        )
    x, y, side = crop
    frame = None
    if side:
        scale = PORTRAIT_SIDE / side
        frame = ordinary(torch.tensor([[[scale, 0.0, -x * scale], [0.0, scale, -y * scale]]]))
    seeing = differentiable(matcher) if method == "decoded" else matcher
    return DecodedEye(decoder_of(vae), seeing.embed, crop=frame), matcher.name


def _goal(target: Any, away_from: Any, name: str, band: tuple[float, float]) -> Any:
    from identiface_core.diffusion.guidance.targets import AwayFrom, Band, Both, Towards
    from identiface_core.errors import InputError

    from .guiding import ordinary

    for what, query in (("target", target), ("away_from", away_from)):
        if query is not None and query.embedding.matcher != name:
            raise InputError(
                f"Identity Guidance: {what} was made with matcher '{query.embedding.matcher}', but '{name}' guides: vectors of "
                "different matchers cannot be compared"
            )
    vector = ordinary(target.embedding.vector)
    towards = Towards(vector) if band == (-1.0, 1.0) else Band(vector, *band)
    if away_from is None:
        return towards
    return Both((towards, AwayFrom(ordinary(away_from.embedding.vector))), (1.0, 1.0))


def _said(words: Any, toolkit: Any) -> Any:
    """Value index per attribute of the lexicon, -1 unsaid."""
    if words is None:
        return None
    import torch

    from identiface_core.errors import InputError
    from identiface_core.evidence.lexicon import ATTRIBUTES

    from .guiding import ordinary

    if toolkit is None:
        raise InputError("Identity Guidance: keep_words needs the toolkit, which understands them")
    said = toolkit.text_encoder.understood(words.full_prompt())
    return ordinary(torch.tensor([a.index(said[a.name]) if a.name in said else -1 for a in ATTRIBUTES]))


def _cosine(image: Any, matcher: Any, target: Any) -> float:
    """Mean cosine of portraits to a target."""
    from identiface_core.errors import InputError

    if target.embedding.matcher != matcher.name:
        raise InputError(
            f"Guidance Check: a target made with '{target.embedding.matcher}' says nothing to matcher '{matcher.name}': make it "
            "with Embed Face and the same matcher"
        )
    vectors = matcher.embed(to_core(image)).detach().float().cpu()
    return float((vectors @ target.embedding.vector.float().cpu()).mean())


NODES = [IdentityGuidance, GalleryTarget, GuidanceCheck]
