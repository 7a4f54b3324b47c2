"""The command line: arguments in, one function of the library called, exit code out.

Exit codes: 0 done, 2 something the user can mend (one line says what), 130 stopped by Ctrl-C.
Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from identiface_core.cli.options import build_parser
from identiface_core.errors import IdentiFaceError, InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (`sys.argv` by default) and give its exit code."""
    # Everything that is needed ships with the package; a library must not look for it elsewhere.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a name that the console cannot show must not end a case
    parser = build_parser()
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
            return gallery.enrol(
                options.folder,
                options.out,
                face=options.face,
                matchers=options.matcher,
                detector=options.detector,
                device=options.device,
            )
        if options.action == "search":
            return gallery.search_image(
                options.file,
                options.image,
                k=options.k,
                face=options.face,
                matcher=options.matcher,
                detector=options.detector,
                device=options.device,
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
    if options.command == "bench" and options.bench == "photos":
        from identiface_core.cli import photo_list

        return photo_list.photos(
            options.folder,
            options.list,
            matchers=options.matcher,
            detector=options.detector,
            sizes=options.lq,
            largest=options.largest,
            json=options.json,
            page=options.page,
        )
    if options.command == "bench":
        from identiface_core.cli import bench

        return bench.guidance(
            json=options.json,
            people=options.people,
            steps=options.steps,
            shapes=options.shapes,
            methods=options.methods,
            processes=options.processes,
            page=options.page,
            tuning=options.tune,
            keep=options.keep,
        )
    from identiface_core.cli import train

    if options.model == "control":
        return train.control(options)
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
