"""Networks of others that draw the lines of a photo: converted once from their pickles, found by content, never downloaded.

The originals are PyTorch archives. `identiface weights import NAME FILE --out OUT` makes a safetensors file of ours from
one; only those are read here. They lie in a folder `identiface_annotators` of a models folder, under any name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from identiface_core.catalogue.places import places
from identiface_core.errors import WeightsError
from identiface_core.weights.files import load_tensors, read_header, save_tensors
from identiface_core.weights.foreign import open_tensors
from identiface_core.weights.layout import Shapes

KIND = "line-annotator"
FOLDER = "identiface_annotators"
"""Folder below a models folder in which converted files are looked for."""


@dataclass(frozen=True)
class Annotator:
    """One published file, as the weight manifest calls it."""

    network: str
    """Which network it is for: "hed", "lineart" or "pidinet"."""
    original: str
    """What its publisher calls the file."""


ANNOTATORS: Mapping[str, Annotator] = {
    "hed": Annotator("hed", "ControlNetHED.pth"),
    "lineart": Annotator("lineart", "sk_model.pth"),
    "lineart-coarse": Annotator("lineart", "sk_model2.pth"),
    "pidinet": Annotator("pidinet", "table5_pidinet.pth"),
}
"""By their names in the manifest."""

_SIGNS: Mapping[str, Shapes] = {
    "hed": {"norm": (1, 3, 1, 1), "block5.projection.weight": (1, 512, 1, 1)},
    "lineart": {"model0.1.weight": (64, 3, 7, 7), "model4.1.weight": (1, 64, 7, 7)},
    "pidinet": {"init_block.weight": (60, 3, 3, 3), "classifier.weight": (1, 4, 1, 1)},
}
"""Tensors that tell the networks apart."""


def network_of(shapes: Shapes) -> str | None:
    """Which of the networks tensors of these names and shapes are for; None for none of them."""
    for network, signs in _SIGNS.items():
        if all(shapes.get(name) == shape for name, shape in signs.items()):
            return network
    return None


def import_annotator(name: str, source: str | Path, out: str | Path) -> int:
    """Convert the published file `source` of the annotator `name` into `out`; gives the number of its tensors.

    Offline, from a PyTorch archive (opened without running anything) or safetensors. Fine and coarse lineart have the same
    structure: which it is, is taken from `name`. Raises WeightsError for a file of another structure, OutputError for `out`.
    """
    wanted = ANNOTATORS[name]
    tensors = open_tensors(source, pickles=True)
    if len(tensors) and all(one.startswith("module.") for one in tensors):
        tensors = tensors.below("module.")
    found = network_of(tensors.shapes)
    if found != wanted.network:
        what = "no annotator that is known" if found is None else f"a file for {found}"
        raise WeightsError(
            f"{source}: '{name}' is a file for {wanted.network} (its publisher calls it {wanted.original}); this is {what}. "
            "Choose another file."
        )
    state = {one: tensors[one].float().contiguous() for one in tensors}
    save_tensors(out, state, KIND, {"name": name, "network": wanted.network})
    return len(state)


def find_annotator(name: str, folders: Iterable[str | Path] = ()) -> Path:
    """Where the converted file of the annotator `name` is, by its content.

    folders: models folders to search before those of `catalogue.places`. Raises WeightsError that says where was looked, and
    how to get the file.
    """
    looked = list(dict.fromkeys(Path(folder) / FOLDER for folder in (*map(Path, folders), *places().folders)))
    for folder in looked:
        for path in sorted(folder.rglob("*.safetensors")) if folder.is_dir() else ():
            if _is(path, name):
                return path
    target = looked[0] / f"{name}.safetensors"
    raise WeightsError(
        f"the weights of '{name}' are not here: no file converted from {ANNOTATORS[name].original} in "
        f"{', '.join(map(str, looked))}. Get it with `identiface weights get {name}`, then convert it once: "
        f"`identiface weights import {name} {ANNOTATORS[name].original} --out {target}`"
    )


def load_annotator(path: str | Path, name: str) -> dict[str, Tensor]:
    """The tensors of a converted file. WeightsError if it is damaged, or of another annotator."""
    tensors, config = load_tensors(path, KIND)
    if config.get("name") != name:
        raise WeightsError(f"{path}: wanted the annotator '{name}', this is '{config.get('name')}'")
    return tensors


def _is(path: Path, name: str) -> bool:
    try:
        header = read_header(path)
    except WeightsError:
        return False  # somebody else's file
    return header.kind == KIND and header.config.get("name") == name
