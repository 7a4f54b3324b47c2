"""The command line: arguments in, one function of the library called, exit code out.

Exit codes: 0 done, 2 something the user can mend (one line says what), 130 stopped by Ctrl-C.
Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from identiface_core import __version__
from identiface_core.errors import IdentiFaceError, InputError

DEVICES = ("cpu", "cuda")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (`sys.argv` by default) and give its exit code."""
    # Everything that is needed ships with the package; a library must not look for it elsewhere.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a name that the console cannot show must not end a case
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return _run(options)
    except IdentiFaceError as error:
        print(f"identiface: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("identiface_core"):
            raise
        print(f"identiface: the package '{error.name}' is missing: install it with pip", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nidentiface: stopped", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    _check_device(getattr(options, "device", "cpu"))
    if options.command in ("run", "demo"):
        from identiface_core.cli import case

        if options.command == "demo":
            return case.demo(options.out, resume=options.resume, device=options.device)
        return case.run(options.case, options.out, resume=options.resume, device=options.device)
    if options.command == "gallery":
        from identiface_core.cli import gallery

        if options.action == "enrol":
            return gallery.enrol(options.folder, options.out, face=options.face, device=options.device)
        if options.action == "search":
            return gallery.search_image(
                options.file, options.image, k=options.k, face=options.face, device=options.device
            )
        return gallery.info(options.file)
    if options.command == "weights":
        return _weights(options)
    if options.command == "parity":
        from identiface_core.cli import released

        return released.parity(options.weights, options.case, json=options.json)
    if options.command == "evaluate":
        from identiface_core.cli import evaluate

        return evaluate.evaluate(
            options.suite,
            quick=options.quick,
            json=options.json,
            levels=options.levels,
            only=options.only,
            probes=options.probes,
            people=options.people,
            processes=options.processes,
            page=options.page,
            resume=options.resume,
            trainings=options.trainings,
        )
    from identiface_core.cli import train

    return train.embedded(options.stage, options.folder, minutes=options.minutes, device=options.device)


def _weights(options: argparse.Namespace) -> int:
    if options.action == "import":
        from identiface_core.cli import released

        return released.import_released(
            options.kind,
            options.source,
            out=options.out,
            base=options.base,
            half=not options.full,
            heads=options.heads,
        )
    from identiface_core.cli import weights

    if options.action == "list":
        return weights.show(options.role, as_json=options.json, as_markdown=options.markdown)
    if options.action == "get":
        return weights.get(options.names, models=options.models, yes=options.yes, mirror=options.mirror)
    if options.action == "verify":
        return weights.verify(options.names, models=options.models)
    return weights.where(options.name, models=options.models)


def _check_device(device: str) -> None:
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise InputError(
            f"--device {device}: PyTorch {torch.__version__} finds no such device here; leave it out to run "
            "on the CPU, or install a PyTorch build for your card"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="identiface",
        description="A tiny blurred photo, a rough sketch and a few words in; faces and candidates out.",
        epilog="A candidate is an investigative lead, not an identification.",
    )
    parser.add_argument("--version", action="version", version=f"identiface {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

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
            help='which face of a picture with several: 0, 1, ... or "whole" for a cropped portrait',
        )
        _device(action)
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

    train = commands.add_parser("train", help="make the embedded model again")
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
    return parser


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
    brought.add_argument("kind", metavar="KIND", help="what they are: identiface-official")
    brought.add_argument("source", type=Path, metavar="SOURCE", help="the published file")
    brought.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    brought.add_argument("--base", type=Path, metavar="FILE", help="the base model they were trained on")
    brought.add_argument("--full", action="store_true", help="keep float32 (float16)")
    brought.add_argument("--heads", type=int, metavar="N", help="attention heads, where shapes cannot tell")


def _case_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="go on with the case that was stopped in DIR")
    _device(parser)


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where the networks run (cpu)")


def _face(text: str) -> int | str:
    if text == "whole":
        return text
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f'wanted 0, 1, ... or "whole", got {text!r}')


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
