"""How weight files of other projects are known: by the names and shapes of their tensors, never by their own name.

Each rule takes all names and shapes and gives what it knows, or None. No false negatives for the files that the projects
publish; a file made to look like another can be taken for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from identiface_core.weights.layout import Shapes
from identiface_core.weights.pixart import PREFIXES, shape_of
from identiface_core.weights.released import OFFICIAL, released_of

Fact = str | int | bool


@dataclass(frozen=True)
class Recognised:
    """What a weight file is."""

    kind: str
    """One of `recognise.KINDS`, or the kind in the header of a file of ours."""
    title: str
    """What a sentence calls it: "an SDXL checkpoint"."""
    facts: Mapping[str, Fact]
    """What else names and shapes tell, such as depth, width and whose names they are."""


Rule = Callable[[Shapes], Recognised | None]

_FAMILIES = {
    768: ("sd15", "a Stable Diffusion 1.5"),
    1024: ("sd2", "a Stable Diffusion 2"),
    1280: ("sdxl-refiner", "an SDXL refiner"),
    2048: ("sdxl", "an SDXL"),
}
"""Families of U-Nets by the width of the text that they read."""
_CLIP = {768: "CLIP-L", 1024: "OpenCLIP-H", 1280: "OpenCLIP-bigG"}
_LORA = re.compile(r"\.(lora_(down|up|A|B)(\.default)?\.weight|lora\.(down|up)\.weight|hada_w1_a|lokr_w1)$")


def lora(shapes: Shapes) -> Recognised | None:
    """A LoRA or LoHa or LoKr; its base by the width of the text that it reads."""
    if not any(_LORA.search(name) for name in shapes):
        return None
    text = [
        s[1]
        for name, s in shapes.items()
        if re.search(r"attn2[._]to_k\.(lora_down|lora_A|lora\.down)", name) and len(s) > 1
    ]
    kind, title = _FAMILIES.get(text[0] if text else 0, ("", ""))
    facts: dict[str, Fact] = {"base": kind} if kind else {}
    return Recognised("lora", f"a LoRA for {title.split(maxsplit=1)[1]}" if kind else "a LoRA", facts)


def released(shapes: Shapes) -> Recognised | None:
    """What the authors' code saves, and PixArt's ControlNets, which are wired alike but fuse nothing."""
    found = released_of(shapes)
    if found is None:
        if any(".transformer_block.attn1." in name and "controlnet_blocks." in name for name in shapes):
            return Recognised("pixart-controlnet", "a PixArt ControlNet", {"names": "diffusers"})
        return None
    facts: dict[str, Fact] = {"copies": found.copies, "width": found.width, "base": found.base is not None}
    if found.base is not None:
        facts["depth"] = found.base.depth
    if not found.fused:
        title = "a PixArt ControlNet without frequency fusion"
        return Recognised("pixart-controlnet", title, {**facts, "names": "authors"})
    title = (
        "the released IdentiFace checkpoint"
        if found.base
        else "a released IdentiFace control without its base"
    )
    return Recognised(OFFICIAL, title, facts)


def pixart(shapes: Shapes) -> Recognised | None:
    """A PixArt transformer."""
    for prefix in PREFIXES:
        found = shape_of(_below(shapes, prefix))
        if found is not None:
            facts: dict[str, Fact] = {key: value for key, value in asdict(found).items() if value is not None}
            return Recognised("pixart", "a PixArt transformer", facts)
    return None


def controlnet(shapes: Shapes) -> Recognised | None:
    """A ControlNet of a U-Net."""
    bare = _below(shapes, "control_model.") or shapes
    if "input_hint_block.0.weight" in bare and "zero_convs.0.0.weight" in bare:
        names = "ldm"
    elif "controlnet_cond_embedding.conv_in.weight" in shapes:
        names = "diffusers"
    else:
        return None
    return _unet_like(bare, "controlnet", "ControlNet", {"names": names})


def unet(shapes: Shapes) -> Recognised | None:
    """A U-Net of Stable Diffusion, alone or with text encoder and autoencoder in one checkpoint."""
    for prefix in ("model.diffusion_model.", "diffusion_model.", ""):
        bare = _below(shapes, prefix)
        if "input_blocks.0.0.weight" in bare and "output_blocks.0.0.in_layers.0.weight" in bare:
            whole = any(name.startswith(("cond_stage_model.", "conditioner.")) for name in shapes)
            facts: dict[str, Fact] = {"names": "ldm", "channels": _side(bare["input_blocks.0.0.weight"])}
            return _unet_like(bare, "checkpoint", "checkpoint", facts) if whole else _bare_unet(bare, facts)
    if "conv_in.weight" in shapes and "time_embedding.linear_1.weight" in shapes:
        return _bare_unet(shapes, {"names": "diffusers", "channels": _side(shapes["conv_in.weight"])})
    return None


def autoencoder(shapes: Shapes) -> Recognised | None:
    """An autoencoder of Stable Diffusion's kind."""
    for prefix in ("", "first_stage_model.", "vae."):
        bare = _below(shapes, prefix)
        facts: dict[str, Fact] = {"channels": _side(bare.get("decoder.conv_in.weight", ()))}
        if "decoder.mid.block_1.conv1.weight" in bare:
            return Recognised("vae", "an autoencoder (VAE)", {**facts, "names": "ldm"})
        if "decoder.mid_block.resnets.0.conv1.weight" in bare:
            return Recognised("vae", "an autoencoder (VAE)", {**facts, "names": "diffusers"})
    return None


def tiny_autoencoder(shapes: Shapes) -> Recognised | None:
    """TAESD: plain stacks of small blocks, both halves in one file or each in its own."""
    blocks = [name for name in shapes if re.search(r"(^|\.)\d+\.conv\.4\.weight$", name)]
    if not blocks or any(shapes[name] != (64, 64, 3, 3) for name in blocks):
        return None
    halves = [half for half in ("encoder", "decoder") if any(half in name for name in blocks)]
    if not halves:
        halves = ["encoder"] if shapes.get("0.weight", ())[1:2] == (3,) else ["decoder"]
    return Recognised("taesd", "a tiny autoencoder (TAESD)", dict.fromkeys(halves, True))


def text_encoder(shapes: Shapes) -> Recognised | None:
    """T5's encoder, or the text half of CLIP in Hugging Face's or OpenCLIP's names."""
    for name, shape in shapes.items():
        if name.endswith("encoder.block.0.layer.0.SelfAttention.q.weight"):
            return Recognised("t5-encoder", "a T5 text encoder", {"width": _side(shape)})
        if name.endswith(("text_model.embeddings.token_embedding.weight", "token_embedding.weight")):
            layers = ("encoder.layers.0.self_attn.q_proj.weight", "resblocks.0.attn.in_proj_weight")
            if not any(one.endswith(layers) for one in shapes):
                continue
            which = _CLIP.get(_side(shape), f"width {_side(shape)}")
            return Recognised("clip-text", f"a CLIP text encoder ({which})", {"width": _side(shape)})
    return None


MATCHER_PREFIXES = ("model.net.", "net.", "model.", "")
"""What stands before the names of a face matcher's tensors. Only CVLface's files have a "net."."""


def matcher_colour(names: Iterable[str]) -> Literal["rgb", "bgr"]:
    """Order of channels that a face matcher's weights of these names are published for, in whatever kind of file.

    AdaFace's own read BGR; CVLface puts a "net." before the same names and reads RGB, as InsightFace and all others do.
    """
    own = next((name for name in names if ".res_layer." in name), None)
    return "rgb" if own is None or "net" in own.split("body.")[0].split(".") else "bgr"


def face_matcher(shapes: Shapes) -> Recognised | None:
    """The residual networks of ArcFace, InsightFace and AdaFace; `colour`: see `matcher_colour`."""
    for prefix in MATCHER_PREFIXES:
        bare = _below(shapes, prefix)
        insight = "layer1.0.bn1.weight" in bare and "prelu.weight" in bare and "fc.weight" in bare
        adaface = "input_layer.0.weight" in bare and any(".res_layer." in name for name in bare)
        if not (insight or adaface):
            continue
        last = bare.get("fc.weight" if insight else "output_layer.3.weight", ())
        facts: dict[str, Fact] = {"dimension": last[0]} if last else {}
        facts["names"] = "insightface" if insight else "adaface"
        facts["colour"] = matcher_colour(shapes)
        return Recognised("arcface", "a face matcher (ArcFace, AdaFace)", {**facts, "prefix": prefix})
    return None


def edgeface(shapes: Shapes) -> Recognised | None:
    """EdgeFace: an EdgeNeXt that gives embeddings, not the thousand classes of ImageNet."""
    for prefix in MATCHER_PREFIXES:
        bare = _below(shapes, prefix)
        last = bare.get("head.fc.linear2.weight") or bare.get("head.fc.weight") or ()
        mixed = any(name.endswith(".norm_xca.weight") for name in bare)
        if mixed and "stem.0.weight" in bare and last and last[0] != 1000:
            facts: dict[str, Fact] = {"dimension": last[0], "colour": "rgb", "prefix": prefix}
            return Recognised("edgeface", "a face matcher (EdgeFace)", facts)
    return None


RULES: tuple[Rule, ...] = (
    lora,  # before all others: it names the parts of what it changes
    released,  # before `pixart`: it holds one
    pixart,
    controlnet,  # before `unet`: it is half of one
    unet,  # before encoders and decoders: a checkpoint holds them
    autoencoder,
    tiny_autoencoder,
    text_encoder,
    face_matcher,
    edgeface,
)
"""In the order in which they are asked."""


def _bare_unet(shapes: Shapes, facts: dict[str, Fact]) -> Recognised | None:
    return _unet_like(shapes, "unet", "U-Net without text encoder and autoencoder", facts)


def _unet_like(shapes: Shapes, kind: str, what: str, facts: dict[str, Fact]) -> Recognised | None:
    text = next((_side(s) for name, s in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
    family, title = _FAMILIES.get(text, ("other", "an unknown diffusion model's"))
    return Recognised(f"{family}-{kind}", f"{title} {what}", {**facts, "text": text})


def _side(shape: tuple[int, ...]) -> int:
    """The second side of a shape: input channels."""
    return shape[1] if len(shape) > 1 else 0


def _below(shapes: Shapes, prefix: str) -> Shapes:
    return (
        {name[len(prefix) :]: s for name, s in shapes.items() if name.startswith(prefix)}
        if prefix
        else shapes
    )
