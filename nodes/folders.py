"""Where the host keeps our files: galleries under its models folder, cases under its output folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths

if TYPE_CHECKING:
    from identiface_core.gallery import Gallery

GALLERIES = "identiface_galleries"
FACES = "identiface_faces"
"""Detectors, parsing and landmark networks; insightface's own folder is looked through as well."""
MATCHERS = "identiface_matchers"
CONTROLS = "controlnet"
"""The host's own folder for control networks."""
EMBEDDED = "embedded demo"
SUFFIX = ".safetensors"
EXAMPLE = Path(__file__).resolve().parents[1] / "identiface_core" / "examples" / "case" / "case.toml"


def register() -> None:
    """Tell the host about the folders of galleries and face networks; harmless when done twice."""
    folder_paths.add_model_folder_path(GALLERIES, str(Path(folder_paths.models_dir) / GALLERIES))
    known = folder_paths.folder_names_and_paths
    # A new name lists files of every suffix unless told otherwise.
    known[GALLERIES] = (known[GALLERIES][0], set(known[GALLERIES][1]) | {SUFFIX})
    for folder in (FACES, "insightface"):
        folder_paths.add_model_folder_path(FACES, str(Path(folder_paths.models_dir) / folder))
    known[FACES] = (known[FACES][0], set(known[FACES][1]) | {".onnx", SUFFIX})
    folder_paths.add_model_folder_path(MATCHERS, str(Path(folder_paths.models_dir) / MATCHERS))
    known[MATCHERS] = (known[MATCHERS][0], set(known[MATCHERS][1]) | {".onnx", SUFFIX})


def galleries() -> list[str]:
    """Names of the gallery files there are."""
    return list(folder_paths.get_filename_list(GALLERIES))


def open_gallery(name: str) -> Gallery:
    """The gallery of that name; GalleryError says where it was looked for."""
    from identiface_core.errors import GalleryError
    from identiface_core.gallery import Gallery

    if name == EMBEDDED:
        from identiface_core.embedded import load_demo_gallery

        return load_demo_gallery()
    path = folder_paths.get_full_path(GALLERIES, name)
    if path is None:
        looked = ", ".join(folder_paths.get_folder_paths(GALLERIES))
        raise GalleryError(
            f"there is no gallery {name!r} in {looked}: make one with Enrol Faces, or put the file there"
        )
    return Gallery.load(path)


def controls() -> list[str]:
    """Names of the files in the host's folder for control networks; what they are is told when one is loaded."""
    return [name for name in folder_paths.get_filename_list(CONTROLS) if name.endswith(SUFFIX)]


def control_file(name: str) -> Path:
    """Where that file is; WeightsError says where it was looked for, and how to make one."""
    from identiface_core.errors import WeightsError

    path = folder_paths.get_full_path(CONTROLS, name)
    if path is None:
        looked = ", ".join(folder_paths.get_folder_paths(CONTROLS))
        raise WeightsError(
            f"Load IdentiFace Control: there is no file {name!r} in {looked}: make one from the released checkpoint with "
            "`identiface weights import identiface-official latest.pth --out FILE`, and put it there"
        )
    return Path(path)


def state_of_control(name: str) -> Any:
    """Changes when that file does."""
    return _stamp(CONTROLS, name)


def face_files() -> list[str]:
    """Names of the files in the folders for face networks; what they are is told when one is loaded."""
    return list(folder_paths.get_filename_list(FACES))


def face_file(name: str, what: str) -> Path:
    """Where that file is; WeightsError says where it was looked for, and how to get one."""
    from identiface_core.errors import WeightsError

    path = folder_paths.get_full_path(FACES, name)
    if path is None:
        looked = ", ".join(folder_paths.get_folder_paths(FACES))
        raise WeightsError(
            f"{what}: there is no file {name!r} in {looked}: `identiface weights list` says what there is, "
            "`identiface weights get NAME` brings it"
        )
    return Path(path)


def state_of_face_file(name: str) -> Any:
    """Changes when that file does."""
    return _stamp(FACES, name)


def gallery_file(name: str) -> Path:
    """Where a gallery of that name is saved; InputError for a name that is no plain file name."""
    return Path(folder_paths.get_folder_paths(GALLERIES)[0]) / f"{plain(name)}{SUFFIX}"


def plain(name: str) -> str:
    """`name` stripped; InputError unless it is a plain file name."""
    from identiface_core.errors import InputError

    name = name.strip().removesuffix(SUFFIX)
    if (
        not name
        or Path(name).name != name
        or any(mark in name for mark in '\\/:*?"<>|')
        or name.startswith(".")
    ):
        raise InputError(f"{name!r} cannot name a file: use letters, digits, spaces, '-' and '_'")
    return name


def input_folder(folder: str) -> Path:
    """`folder`, counted from the host's input folder if it is relative; InputError when none is given."""
    from identiface_core.errors import InputError

    if not folder.strip():
        raise InputError("Enrol Faces: name a folder of pictures, for example one in ComfyUI's input folder")
    return Path(folder_paths.get_input_directory()) / folder.strip()


def state_of(gallery: str) -> Any:
    """Changes when the file of that gallery does: the host then opens it again."""
    return gallery if gallery == EMBEDDED else _stamp(GALLERIES, gallery)


def _stamp(kind: str, name: str) -> Any:
    """Name, time and size of a file in one of the host's folders; the name alone if it is not there."""
    path = folder_paths.get_full_path(kind, name)
    if path is None:
        return name
    stat = Path(path).stat()
    return name, stat.st_mtime_ns, stat.st_size


def state_of_folder(folder: str) -> Any:
    """Changes when a file in that folder does."""
    try:
        files = sorted(path for path in input_folder(folder).rglob("*") if path.is_file())
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    except Exception:
        return float("nan")  # not there: let the node run and say so
