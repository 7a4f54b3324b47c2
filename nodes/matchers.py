"""Stage: matchers. Networks that compare real photographs: loaded, asked about two faces, and about one photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from . import folders, sockets
from .faces import paired
from .identity import the_only_face
from .images import one, to_host

CATEGORY = "IdentiFace/identity"
PACK = "insightface: "
"""Before the name of a pack in the list of files."""
MAPS = ("features", "occlusion")
SCALES = ("automatic", "signed", "unit", "bytes")


class LoadMatcher(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceLoadMatcher",
            display_name="Load Matcher",
            category=CATEGORY,
            description="A network that compares real faces: AdaFace, EdgeFace, SFace, ArcFace, AuraFace, an InsightFace pack. "
            "What a file is, is told by its content.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=choices(),
                    tooltip=f"A file in models/{folders.MATCHERS}, a pack in models/insightface/models, or the name of weights "
                    "that are looked for in all model folders.",
                ),
                io.Combo.Input(
                    "colour",
                    options=["automatic", "rgb", "bgr"],
                    default="automatic",
                    tooltip="Order of channels that the network was trained with. Wrong, it still compares, badly. automatic: "
                    "as such files are published.",
                ),
                io.Combo.Input(
                    "scale",
                    options=list(SCALES),
                    default=SCALES[0],
                    optional=True,
                    tooltip="Values that an ONNX graph reads: signed -1 to 1, unit 0 to 1, bytes 0 to 255. Wrong, it still "
                    "compares, badly. automatic: as its first nodes tell.",
                ),
            ],
            outputs=[
                sockets.out(sockets.Matcher, "matcher"),
                sockets.out(
                    io.String, "text", tooltip="Name, size of the vectors, how pictures are read, licence."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        return True  # the file is looked for when the node runs, which can say more

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> Any:
        return state_of(file)

    @classmethod
    def execute(cls, file: str, colour: str, scale: str = SCALES[0]) -> io.NodeOutput:
        from identiface_core.matchers.load import load_matcher

        from .hosted import HostMatcher

        sockets.one_of(colour, ("automatic", "rgb", "bgr"), "Load Matcher: colour")
        sockets.one_of(scale, SCALES, "Load Matcher: scale")
        matcher = load_matcher(
            found(file),
            colour=None if colour == "automatic" else colour,
            scale=None if scale == "automatic" else scale,
        )
        read = [matcher.colour, *([matcher.scale] if hasattr(matcher, "scale") else [])]
        lines = [
            f"{matcher.name}: {matcher.dimension} values a face, crops of {matcher.side} px, {', '.join(read)}",
            *getattr(matcher, "remarks", ()),
            f"licence: {matcher.licence}",
        ]
        text = "\n".join(lines)
        return io.NodeOutput(HostMatcher(matcher), text, ui={"text": [text]})


class CompareFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceCompareFaces",
            display_name="Compare Faces",
            category=CATEGORY,
            is_output_node=True,
            description="How alike two faces are, how often strangers are as alike, and where the two agree.",
            inputs=[
                sockets.Matcher.Input("matcher", tooltip="Of Load Matcher or Load Embedded Model."),
                io.Combo.Input(
                    "map",
                    options=list(MAPS),
                    default=MAPS[0],
                    tooltip="features: place by place, what the network sees. occlusion: what is lost when a place is hidden; "
                    "slower, for every matcher.",
                ),
                io.Image.Input("image_1", optional=True, tooltip="A portrait; with a finder any picture."),
                io.Image.Input("image_2", optional=True, tooltip="The other one."),
                sockets.Embedding.Input(
                    "query_1",
                    optional=True,
                    tooltip="Instead of image_1: of Embed Face, by the same matcher.",
                ),
                sockets.Embedding.Input("query_2", optional=True, tooltip="Instead of image_2."),
                sockets.Finder.Input(
                    "finder", optional=True, tooltip="Finds the face, for pictures that are no portraits."
                ),
                sockets.Gallery.Input(
                    "gallery",
                    optional=True,
                    tooltip="Its people, who are strangers to each other, tell what the similarity means. Made by this matcher.",
                ),
                sockets.Toolkit.Input(
                    "toolkit",
                    optional=True,
                    tooltip="Of Load Embedded Model: the tables of its own matchers.",
                ),
            ],
            outputs=[
                sockets.out(io.Image, "picture", tooltip="Both faces, and where they agree."),
                sockets.out(io.Float, "similarity", tooltip="Cosine, -1 to 1."),
                sockets.out(
                    io.Float,
                    "false match rate",
                    tooltip="Share of pairs of strangers that are as alike; 1 where nobody knows.",
                ),
                sockets.out(io.String, "text", tooltip="Similarity and what it means, for Preview Any."),
            ],
        )

    @classmethod
    def execute(cls, matcher: Any, map: str, **given: Any) -> io.NodeOutput:
        import torch

        from identiface_core.matchers.agreement import agreement
        from identiface_core.matchers.picture import comparison_picture, text_picture
        from identiface_core.matchers.verdict import meaning_of

        sockets.one_of(map, MAPS, "Compare Faces: map")
        sides = [side(given, number, matcher) for number in (1, 2)]
        pictures = [picture for picture, _, _ in sides]
        queries = {name: given[name] for name in ("query_1", "query_2") if given.get(name) is not None}
        table, whose, notes = table_for(matcher, given.get("gallery"), given.get("toolkit"), queries)
        seen = None
        if all(picture is not None for picture in pictures):
            seen = agreement(matcher, *pictures, (sides[0][1], sides[1][1]), occlude=map == "occlusion")
            similarity = seen.similarity
        else:
            with torch.no_grad():
                similarity = float(torch.dot(*(vector_of(matcher, *one_side) for one_side in sides)))
        rate, meaning = meaning_of(similarity, table, whose)
        lines = [
            f"similarity {similarity:.3f} ({matcher.name})",
            meaning,
            *notes,
            *(f"{name} was {query.made}." for name, query in queries.items() if query.embedding.synthetic),
            "A lead, not an identification.",
        ]
        drawn = to_host(text_picture(lines) if seen is None else comparison_picture(seen, lines))
        text = "\n".join(lines)
        shown = {**ui.PreviewImage(drawn, cls=cls).as_dict(), "text": [text]}
        return io.NodeOutput(drawn, similarity, rate, text, ui=shown)


class Recognisability(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceRecognisability",
            display_name="Recognisability",
            category=CATEGORY,
            is_output_node=True,
            description="Whether a low-quality photo may be searched with at all: how much of a face is in its pixels.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="A small photo of a face, a portrait, or with a finder any picture."
                ),
                io.Combo.Input(
                    "face",
                    options=["automatic", "whole picture"],
                    default="automatic",
                    tooltip="automatic: up to 64 px the picture is the face, in a larger one the finder looks for it. "
                    "whole picture: it is the face already.",
                ),
                sockets.Finder.Input("finder", optional=True, tooltip="Finds the face in a larger picture."),
                sockets.Matcher.Input(
                    "matcher",
                    optional=True,
                    tooltip="What is to search. One of photographs wants more detail; some say how far they trust their own "
                    "reading of the face.",
                ),
                sockets.Faces.Input(
                    "faces",
                    optional=True,
                    tooltip="Of Detect Face, for this picture: the face that was chosen there, instead of a finder.",
                ),
            ],
            outputs=[
                sockets.out(
                    io.Float, "recognisability", tooltip="0 (nobody could tell) to 1 (64 px and more)."
                ),
                sockets.out(
                    io.Boolean, "may search", tooltip="False: what a search with it alone gives is chance."
                ),
                sockets.out(io.String, "verdict", tooltip="In words, for Preview Any."),
                sockets.out(io.Image, "picture", tooltip="The portrait, and as much detail as is in it."),
            ],
        )

    @classmethod
    def execute(
        cls, image: Any, face: str, finder: Any = None, matcher: Any = None, faces: Any = None
    ) -> io.NodeOutput:
        import torch

        from identiface_core.evidence.lq import prepare_lq
        from identiface_core.imaging import resize
        from identiface_core.matchers.aligned import AlignedMatcher
        from identiface_core.matchers.picture import detail_picture
        from identiface_core.matchers.verdict import verdict_on

        sockets.one_of(face, ("automatic", "whole picture"), "Recognisability: face")
        picture, wanted = one(image, "Recognisability"), "whole" if face == "whole picture" else None
        if faces is not None and wanted is None:
            wanted, finder = chosen_in(image, faces)
        photo = prepare_lq(picture, wanted, finder, name="Recognisability")
        quality = None
        photographs = isinstance(getattr(matcher, "matcher", matcher), AlignedMatcher)
        # Of a network whose usual length nobody knows, the length of a vector says nothing.
        if matcher is not None and not (photographs and matcher.typical is None):
            with torch.no_grad():
                quality = float(matcher.embed_with_quality(resize(photo.crop, 128, 128)[None]).quality)
        verdict = verdict_on(photo.recognisability, quality, photographs=photographs)
        lines = [verdict.sentence, verdict.advice]
        drawn = to_host(detail_picture(photo.crop, photo.recognisability, lines))
        text = "\n".join(lines)
        shown = {**ui.PreviewImage(drawn, cls=cls).as_dict(), "text": [text]}
        return io.NodeOutput(photo.recognisability, verdict.may_search, text, drawn, ui=shown)


def choices() -> list[str]:
    """Files and packs that are there, then the names of weights in the manifest."""
    from identiface_core.catalogue.manifest import read_manifest

    files = list(folder_paths.get_filename_list(folders.MATCHERS))
    packs = [PACK + one.name for root in pack_roots() for one in sorted(root.glob("*")) if graphs_in(one)]
    known = [entry.name for entry in read_manifest() if entry.role == "matcher" and entry.format != "pickle"]
    return list(dict.fromkeys([*files, *packs, *known]))


def pack_roots() -> list[Path]:
    """Folders in which InsightFace packs lie: the host's, and InsightFace's own."""
    roots = (Path(folder_paths.models_dir) / "insightface", Path.home() / ".insightface")
    return [root / "models" for root in roots]


def graphs_in(folder: Path) -> list[Path]:
    """The .onnx files in a folder, in whatever case they are written."""
    return sorted(one for one in folder.glob("*") if one.suffix.lower() == ".onnx")


def found(name: str) -> Path:
    """Where a choice of the list is; WeightsError says where it was looked for, and how to get it."""
    from identiface_core.catalogue.places import places
    from identiface_core.catalogue.store import named_file
    from identiface_core.errors import WeightsError

    path = folder_paths.get_full_path(folders.MATCHERS, name)
    if path is not None:
        return Path(path)
    looked = folder_paths.get_folder_paths(folders.MATCHERS)
    if name.startswith(PACK):
        there = [root / name.removeprefix(PACK) for root in pack_roots()]
        present = [one for one in there if one.is_dir() and one.parent in pack_roots()]
        if present:
            return present[0]
        looked = [str(one) for one in there]
    known = named_file(name, "matcher", places(folder_paths.models_dir, also=looked))
    if known is not None:
        return known
    raise WeightsError(
        f"Load Matcher: there is no {name!r} in {', '.join(looked)}: `identiface weights list` says what there is, "
        "`identiface weights get NAME` brings it; an InsightFace pack is a folder of .onnx files"
    )


def state_of(name: str) -> Any:
    """Changes when that file, or a file of that pack, does."""
    try:
        place = found(name)
        files = graphs_in(place) if place.is_dir() else [place]
        return [(str(one), one.stat().st_mtime_ns, one.stat().st_size) for one in files]
    except Exception:
        return float("nan")  # not there: let the node run and say so


def side(given: dict[str, Any], number: int, matcher: Any) -> tuple[Any, Any, Any]:
    """(picture, points, embedding) of one of two sides: a picture, or else an embedding; InputError for neither or both."""
    from identiface_core.errors import InputError

    image, query, finder = given.get(f"image_{number}"), given.get(f"query_{number}"), given.get("finder")
    if (image is None) == (query is None):
        raise InputError(
            f"Compare Faces: link either image_{number} or query_{number}, {'not both' if query is not None else 'one of them'}"
        )
    if query is not None:
        if query.embedding.matcher != matcher.name:
            raise InputError(
                f"Compare Faces: query_{number} was made by matcher '{query.embedding.matcher}', this one is '{matcher.name}': "
                "embed it with the same"
            )
        return None, None, query.embedding
    name = f"Compare Faces: image_{number}"
    picture = one(image, name)
    return picture, None if finder is None else the_only_face(picture, finder, name).points, None


def chosen_in(image: Any, faces: Any) -> tuple[Any, Any]:
    """(face, finder) for `prepare_lq`: the face that Detect Face chose, or the whole picture that it passed through."""
    from identiface_core.faces.base import KnownFaces

    ((_, selection),) = paired(image, faces, "Recognisability")
    if selection.chosen is None:
        return "whole", None
    return 0, KnownFaces((selection.faces[selection.chosen],))


def vector_of(matcher: Any, picture: Any, points: Any, embedding: Any) -> Any:
    """(D,) of one side."""
    if picture is None:
        return embedding.vector.detach().float().cpu()
    return matcher.embed(picture[None], None if points is None else points[None])[0].float().cpu()


def table_for(
    matcher: Any, gallery: Any, toolkit: Any, queries: dict[str, Any]
) -> tuple[Any, str, list[str]]:
    """What reads this matcher's scores, whose strangers it knows, and what is to be said of it.

    The people of the gallery if one is linked and they are enough, else a shipped table: that of the query which is no photo,
    if there is one; between two of those nothing was measured.
    """
    from identiface_core.errors import InputError
    from identiface_core.matchers.calibration import calibrate

    drawn = {name: query for name, query in queries.items() if query.source != "portrait"}
    notes = []
    if gallery is not None:
        templates = gallery.templates_of(
            matcher.name, dimension=matcher.dimension, fingerprint=matcher.fingerprint
        )
        try:
            table = calibrate(matcher, templates)
        except InputError as error:
            notes.append(f"The gallery gives no table: {error}.")
        else:
            notes += [f"That holds for photos, not for {name}." for name in drawn]
            return table, f" among the {len(gallery)} people of the gallery", notes
    if toolkit is None:
        return None, "", notes
    if drawn:
        (first, *others) = drawn.values()
        table = None if others else first.calibration(toolkit)
        notes += [] if table is not None else [f"No table was measured for {' and '.join(drawn)}."]
    else:
        names = {toolkit.matcher_a.name: "portrait", toolkit.matcher_b.name: "portrait-b"}
        table = toolkit.calibrations.get(names.get(matcher.name, ""))
    return table, " among drawn people" if table is not None else "", notes


NODES = [LoadMatcher, CompareFaces, Recognisability]
