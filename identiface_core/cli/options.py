"""What can be typed: the commands and options of `identiface`, and how their texts are read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from identiface_core import __version__

DEVICES = ("cpu", "cuda")


def build_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="identiface",
        description="A tiny blurred photo, a rough sketch and a few words in; faces and candidates out.",
        epilog="A candidate is an investigative lead, not an identification.",
    )
    made.add_argument("--version", action="version", version=f"identiface {__version__}")
    commands = made.add_subparsers(dest="command", metavar="COMMAND")

    run = commands.add_parser("run", help="run a case of your own", description="Run the case in CASE.toml.")
    run.add_argument("case", type=Path, metavar="CASE.toml", help="what is known: pictures, words, gallery")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    _case_options(run)

    demo = commands.add_parser("demo", help="run the shipped example case")
    demo.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="default: demo-out")
    _case_options(demo)

    gallery = commands.add_parser("gallery", help="enrol people, search for a face")
    actions = gallery.add_subparsers(dest="action", metavar="ACTION", required=True)
    enrol = actions.add_parser("enrol", help="make a gallery from a folder of pictures")
    enrol.add_argument("folder", type=Path, metavar="FOLDER", help="one picture or one sub-folder per person")
    enrol.add_argument("--out", type=Path, required=True, metavar="FILE", help="gallery file to write")
    search = actions.add_parser("search", help="who in a gallery is most like the face in a picture")
    search.add_argument("file", metavar="FILE", help='gallery file, or "embedded" for the shipped one')
    search.add_argument("image", type=Path, metavar="IMAGE", help="picture with the face to look for")
    search.add_argument("-k", type=int, default=10, metavar="N", help="length of the candidate list (10)")
    for action in (enrol, search):
        action.add_argument(
            "--face",
            type=_face,
            metavar="WHICH",
            help="which face of a picture with several: its number (0 is the first), a box x0,y0,x1,y1 around it, or largest; "
            "whole for pictures that are cropped faces already",
        )
        action.add_argument(
            "--detector",
            type=Path,
            metavar="FILE",
            help="finds faces in photographs: SCRFD, YuNet, or a NAME of `weights list` (the embedded one, for drawn people)",
        )
        _device(action)
    enrol.add_argument(
        "--matcher",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="compares photographs: ONNX, safetensors, an InsightFace pack, or a NAME of `weights list`; two may enrol together "
        "(the embedded two, which know drawn people)",
    )
    search.add_argument(
        "--matcher",
        type=Path,
        metavar="FILE",
        help="one that the gallery was enrolled with, see `gallery info` (the embedded)",
    )
    info = actions.add_parser("info", help="what a gallery file holds")
    info.add_argument("file", metavar="FILE", help='gallery file, or "embedded" for the shipped one')

    _weights_options(commands.add_parser("weights", help="get, check and find files of other models"))

    parity = commands.add_parser("parity", help="compare imported weights with reference tensors")
    parity.add_argument("--weights", type=Path, required=True, metavar="W", help="imported weights")
    parity.add_argument("--case", type=Path, required=True, metavar="C", help="inputs and reference outputs")
    parity.add_argument("--json", action="store_true", help="print the figures as JSON")

    evaluate = commands.add_parser(
        "evaluate",
        help="measure what the model finds",
        description="Search for people nobody was trained on, with honest rivals beside it.",
    )
    evaluate.add_argument("--suite", default="embedded", metavar="SUITE", help="which benchmark (embedded)")
    evaluate.add_argument("--quick", action="store_true", help="fewer probes and systems: some minutes")
    evaluate.add_argument("--json", metavar="FILE", help="write all figures there; - prints nothing else")
    evaluate.add_argument(
        "--page", type=Path, metavar="FILE", help="write the report there, pictures beside it"
    )
    evaluate.add_argument(
        "--levels",
        type=_names,
        default=(),
        metavar="LEVEL,...",
        help="witnesses: careful, middle, poor (all)",
    )
    evaluate.add_argument(
        "--only", type=_names, default=(), metavar="NAME,...", help="only these systems, or part_words (all)"
    )
    evaluate.add_argument("--probes", type=int, metavar="N", help="so many with a mate, and so many without")
    evaluate.add_argument(
        "--people", type=int, default=1000, metavar="N", help="size of the gallery: 1000 or 10000 (1000)"
    )
    evaluate.add_argument("--processes", type=int, default=2, metavar="N", help="worker processes (2)")
    evaluate.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="keep every finished search there, and go on from what it holds",
    )
    evaluate.add_argument(
        "--trainings",
        type=Path,
        metavar="DIR",
        help="also measure the trainings for comparison in this folder of `identiface train`",
    )

    _bench_options(commands.add_parser("bench", help="measure a method, or a matcher of your own"))

    train = commands.add_parser(
        "train", help="make the embedded model again, or a control for your own model"
    )
    models = train.add_subparsers(dest="model", metavar="MODEL", required=True)
    embedded = models.add_parser("embedded", help="the networks that ship with the package")
    embedded.add_argument("--stage", default="all", metavar="STAGE", help="one stage, or all in their order")
    embedded.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/embedded"),
        metavar="DIR",
        help="drawn portraits, checkpoints and curves; a run found there goes on",
    )
    embedded.add_argument("--minutes", type=_minutes, metavar="M", help="end a stage after so many minutes")
    _device(embedded)
    _control_options(
        models.add_parser(
            "control", help="a control for a Stable Diffusion 1.5 of yours, from a folder of photos"
        )
    )
    return made


def _control_options(parser: argparse.ArgumentParser) -> None:
    path: dict[str, Any] = {"type": Path, "required": True}
    parser.add_argument("--base", metavar="PATH", help="diffusers folder, or .safetensors checkpoint", **path)
    parser.add_argument(
        "--photos", metavar="DIR", help="portraits, and what is said of NAME.png in NAME.txt", **path
    )
    parser.add_argument("--out", metavar="DIR", help="for the control; a run found there goes on", **path)
    parser.add_argument("--steps", type=int, default=20000, metavar="N", help="optimiser steps (20000)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="photos a step (4)")
    parser.add_argument("--side", type=int, default=512, metavar="PX", help="side of the pictures (512)")
    parser.add_argument("--lr", type=float, default=1e-5, metavar="RATE", help="largest learning rate (1e-5)")
    parser.add_argument(
        "--minutes", type=_minutes, metavar="M", help="end after so many minutes of the whole run"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="CLIP's vocab.json and merges.txt, for a checkpoint file",
    )
    parser.add_argument("--checkpointing", action="store_true", help="less memory, a third more time")
    _device(parser)


def _weights_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="what there is, and under which licence")
    listed.add_argument("--role", metavar="ROLE", help="only files of this role, such as matcher")
    listed.add_argument("--json", action="store_true", help="print everything that is known, as JSON")
    listed.add_argument("--markdown", action="store_true", help="print the table of docs/weights.md")
    get = actions.add_parser("get", help="download files, after showing their licences")
    get.add_argument("names", nargs="+", metavar="NAME", help="as `weights list` calls it")
    get.add_argument("--yes", action="store_true", help="agree to the licences without being asked")
    get.add_argument("--mirror", metavar="URL", help="fetch from there, with the same paths behind it")
    verify = actions.add_parser("verify", help="read the files that are here through again")
    verify.add_argument("names", nargs="*", metavar="NAME", help="only these (all)")
    where = actions.add_parser("where", help="where a file was looked for, and what was found there")
    where.add_argument("name", metavar="NAME", help="as `weights list` calls it")
    for action in (get, verify, where):
        action.add_argument(
            "--models",
            type=Path,
            metavar="DIR",
            help="ComfyUI's models folder (that of COMFYUI_PATH, else one of our own)",
        )
    brought = actions.add_parser("import", help="convert published weights, pickles too, into a file of ours")
    brought.add_argument("kind", metavar="KIND", help="what they are: identiface-official, hed, lineart ...")
    brought.add_argument("source", type=Path, metavar="SOURCE", help="the published file")
    brought.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    brought.add_argument("--base", type=Path, metavar="FILE", help="the base model they were trained on")
    brought.add_argument("--full", action="store_true", help="keep float32 (float16)")
    brought.add_argument("--heads", type=int, metavar="N", help="attention heads, where shapes cannot tell")


def _bench_options(parser: argparse.ArgumentParser) -> None:
    benches = parser.add_subparsers(dest="bench", metavar="BENCH", required=True)
    guidance = benches.add_parser(
        "guidance",
        help="sampling guided by identity",
        description="Every method on the same people and seeds, judged by the matcher that never guides. All of it takes about "
        "half an hour on two cores; --people and --methods make it shorter.",
    )
    guidance.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    guidance.add_argument("--page", type=Path, metavar="FILE", help="write the report there")
    guidance.add_argument(
        "--keep",
        action="store_true",
        help="keep what the JSON file holds of methods and shapes not measured now",
    )
    guidance.add_argument("--people", type=int, default=100, metavar="N", help="so many people (100)")
    guidance.add_argument("--steps", type=int, default=20, metavar="N", help="sampling steps (20)")
    guidance.add_argument(
        "--shapes",
        type=_names,
        default=("embedded",),
        metavar="SHAPE,...",
        help="embedded, or only the cost at the shapes of pixart-xl, sdxl or sd15 (embedded)",
    )
    guidance.add_argument(
        "--methods", type=_names, default=(), metavar="NAME,...", help="only these methods (all)"
    )
    guidance.add_argument("--processes", type=int, default=2, metavar="N", help="worker processes (2)")
    guidance.add_argument(
        "--tune", action="store_true", help="try scales on the validation people instead of measuring"
    )
    photos = benches.add_parser(
        "photos",
        help="does a matcher separate the people of a folder",
        description="Every face found, cut out and embedded; all pairs compared: error rates, and a threshold.",
    )
    photos.add_argument("folder", type=Path, metavar="FOLDER", help="photographs, one sub-folder per person")
    photos.add_argument(
        "--matcher",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="one or more: ONNX, safetensors, an InsightFace pack, or a NAME of `weights list`",
    )
    photos.add_argument(
        "--detector", type=Path, metavar="FILE", help="SCRFD or YuNet as ONNX, or a NAME of `weights list`"
    )
    photos.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="take the photos, and without --matcher and --detector the networks too, that this list tells of by sha256, "
        "from wherever in FOLDER they lie",
    )
    photos.add_argument(
        "--lq",
        type=int,
        nargs="+",
        default=(),
        metavar="PX",
        help="also make portraits of so many pixels of the faces, and compare these with the other photos",
    )
    photos.add_argument("--largest", action="store_true", help="of several faces take the largest")
    photos.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    photos.add_argument("--page", type=Path, metavar="FILE", help="with --list: write the report there")


def _case_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="go on with the case that was stopped in DIR")
    _device(parser)


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where the networks run (cpu)")


def _face(text: str) -> int | tuple[float, ...] | str:
    if text in ("largest", "whole"):
        return text
    if text.isdecimal():
        return int(text)
    try:
        box = tuple(float(side) for side in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise argparse.ArgumentTypeError(
            f"wanted a number (0 is the first), a box x0,y0,x1,y1, largest or whole, got {text!r}"
        )
    return box


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0.0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"wanted a number of minutes above 0, got {text!r}")
    return minutes
