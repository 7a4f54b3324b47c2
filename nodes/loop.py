"""Stage: loop. A case from its start, round by round, until it stops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from . import sockets
from .images import to_host

CATEGORY = "IdentiFace/loop"
MAX_ROUNDS = 32


class StartCase(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceStartCase",
            display_name="Start Case",
            category=CATEGORY,
            description="Evidence and a gallery make a case: its first candidates come straight from the "
            "evidence.",
            inputs=[
                sockets.Toolkit.Input("toolkit", tooltip="Of Load Embedded Model."),
                sockets.Evidence.Input("evidence", tooltip="Any of photo, sketch and words."),
                sockets.Gallery.Input("gallery", tooltip="Whom to search; enrolled with the same matchers."),
                io.Int.Input(
                    "seed", default=42, min=0, max=2**31 - 1, tooltip="Everything random follows from it."
                ),
                io.Int.Input(
                    "seeds",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="Faces drawn per round; their consensus is searched with.",
                ),
                io.Int.Input(
                    "steps",
                    default=4,
                    min=1,
                    max=200,
                    tooltip="Sampling steps; a few are enough to search with.",
                ),
                io.Float.Input(
                    "guidance_scale",
                    default=2.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="Weight of the words; 1 is none. Whole faces that a photo steers are drawn without.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How much photo and sketch steer the drawing.",
                ),
                io.Int.Input(
                    "candidates", default=10, min=1, max=100, tooltip="Length of the candidate lists."
                ),
                io.String.Input(
                    "exclude", default="", multiline=True, tooltip="People who take no part, one name a line."
                ),
                io.Float.Input(
                    "identity_guidance",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    optional=True,
                    tooltip="How far whole faces are led to where the evidence points; 0.04 is a good value, 0 is none. For the "
                    "embedded model; before another MODEL put Identity Guidance.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="A patched MODEL (such as one with a LoRA) to draw with instead.",
                ),
            ],
            outputs=[
                sockets.out(sockets.Case, "case"),
                sockets.out(sockets.Candidates, "first", tooltip="Candidates by the evidence alone."),
            ],
        )

    @classmethod
    def execute(
        cls, toolkit: Any, evidence: Any, gallery: Any, exclude: str, model: Any = None, **settings: Any
    ) -> io.NodeOutput:
        from identiface_core.rounds.case_input import Settings

        from .cases import HostCase

        left_out = tuple(line.strip() for line in exclude.splitlines() if line.strip())
        if model is not None:
            toolkit = _drawing_with(toolkit, model, settings.get("identity_guidance", 0.0))
        case = HostCase.start(toolkit, evidence, gallery, Settings(exclude=left_out, **settings))
        return io.NodeOutput(case, case.candidates)


def _drawing_with(toolkit: Any, model: Any, scale: float) -> Any:
    """The toolkit with another MODEL; the case file will say which, and whether it is guided."""
    from identiface_core.errors import InputError
    from identiface_core.rounds.cautions import GUIDANCE

    from .drawing import traits_of

    traits = traits_of(model)
    if GUIDANCE in traits and scale > 0:
        raise InputError(
            f"Start Case: identity_guidance is {scale:g}, but Identity Guidance leads the MODEL already: use one of them"
        )
    return replace(
        toolkit, generator=toolkit.generator.with_model(model), hashes={**toolkit.hashes, **traits}
    )


class StopRule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceStopRule",
            display_name="Stop Rule",
            category=CATEGORY,
            description="When a round is kept and when a case ends. Nothing here knows the truth: only "
            "evidence scores and lists.",
            inputs=[
                sockets.Case.Input("case", tooltip="From Start Case."),
                io.Float.Input(
                    "margin",
                    default=0.01,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="A round is kept if its evidence score drops by at most this.",
                ),
                io.Int.Input(
                    "stable_top",
                    default=10,
                    min=1,
                    max=100,
                    tooltip="So many first candidates must stay the same...",
                ),
                io.Int.Input(
                    "stable_rounds",
                    default=3,
                    min=0,
                    max=32,
                    tooltip="...over so many kept rounds; 0: never stop for this.",
                ),
            ],
            outputs=[sockets.out(sockets.Case, "case")],
        )

    @classmethod
    def execute(cls, case: Any, margin: float, stable_top: int, stable_rounds: int) -> io.NodeOutput:
        from identiface_core.rounds.controller import Rules

        return io.NodeOutput(
            case.with_state(replace(case.state, rules=Rules(margin, stable_top, stable_rounds)))
        )


class Iterate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceIterate",
            display_name="Iterate",
            category=CATEGORY,
            enable_expand=True,
            description="Part Rounds, one after another, until the case stops. Each round is a node of its "
            "own: it shows its faces, and what was drawn before is not drawn again.",
            inputs=[
                sockets.Case.Input("case", tooltip="From Start Case or Stop Rule."),
                io.Int.Input(
                    "rounds",
                    default=12,
                    min=1,
                    max=MAX_ROUNDS,
                    tooltip="At most so many; the whole face counts as one.",
                ),
            ],
            outputs=[
                sockets.out(sockets.Case, "case"),
                sockets.out(io.Image, "face", tooltip="The face that stands."),
                sockets.out(io.Image, "faces", tooltip="The faces of the rounds that were kept, in order."),
                sockets.out(
                    sockets.Candidates, "candidates", tooltip="By evidence and generated faces together."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(cls, case: Any, rounds: int) -> io.NodeOutput:
        if case.stopped or rounds <= 0:
            faces = to_host(case.faces())
            return io.NodeOutput(case, faces[-1:], faces, case.candidates)
        # The link, not the value: with values the host would see every round as new and draw them all again.
        link = cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]["case"]
        graph = GraphBuilder()
        drawn = graph.node("IdentiFacePartRound", case=link, part="next", pick=-1)
        again = graph.node("IdentiFaceIterate", case=drawn.out(0), rounds=min(rounds, MAX_ROUNDS) - 1)
        return io.NodeOutput(*(again.out(i) for i in range(4)), expand=graph.finalize())


class ChooseCandidate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceChooseCandidate",
            display_name="Choose Candidate",
            category=CATEGORY,
            description="The witness says 'that one': the case ends with this candidate, a lead and no "
            "identification.",
            inputs=[
                sockets.Case.Input("case", tooltip="From Iterate or Part Round."),
                io.Int.Input(
                    "rank",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="Place of the candidate in the list; 1 is the first.",
                ),
            ],
            outputs=[
                sockets.out(sockets.Case, "case"),
                sockets.out(io.String, "person"),
                sockets.out(io.Image, "picture"),
            ],
        )

    @classmethod
    def execute(cls, case: Any, rank: int) -> io.NodeOutput:
        from identiface_core.errors import InputError

        people = case.candidates.people()
        if not 1 <= rank <= len(people):
            raise InputError(f"Choose Candidate: the list has ranks 1 to {len(people)}, not {rank}")
        person = people[rank - 1]
        chosen = case.with_state(case.state.stop(f"the witness chose {person} (rank {rank})"))
        return io.NodeOutput(chosen, person, to_host(case.prepared.gallery.thumbnail(person)))


NODES = [StartCase, StopRule, Iterate, ChooseCandidate]
