"""From prompts and evidence to faces: seeds, missing clues, part rounds; and the stages that train it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from identiface_core.diffusion.autoencoder import Autoencoder
from identiface_core.diffusion.control import ControlBranch
from identiface_core.diffusion.generator import FaceGenerator, Sample
from identiface_core.diffusion.transformer import make_transformer
from identiface_core.errors import InputError
from identiface_core.evidence.lexicon import ATTRIBUTES, SLOTS
from identiface_core.evidence.values import Evidence
from identiface_core.evidence.words import TextEncoder
from identiface_core.matchers.network import FaceNet
from identiface_core.training.critic import CriticStage, LatentCritic
from identiface_core.training.generator import (
    NO_ESTIMATE,
    BaseStage,
    GeneratorStage,
    encode_sorted,
    witness_words,
)
from identiface_core.training.identity import DecodingEye, IdentityTerm, LatentEye, WordsTerm, mirror_points
from identiface_core.training.latents import LQ_DRAWS, ROUND_PARTS, Latents, encode_world, template_cells
from identiface_core.training.loop import run_stage
from identiface_core.training.losses import IdentityLoss

WORDS = ("a", "man", "with", "hair", "red", "broad", "nose", "long")


@pytest.fixture(scope="module")
def text_encoder() -> TextEncoder:
    torch.manual_seed(3)
    return TextEncoder(vocabulary=WORDS).eval()


@pytest.fixture(scope="module")
def generator(text_encoder) -> FaceGenerator:
    """Random networks in which every clue leaves a trace."""
    torch.manual_seed(0)
    base = make_transformer(num_attention_heads=2, num_layers=3, cross_attention_dim=64)
    branch = ControlBranch.copy_of(base, copies=2, estimate=16)
    for layer in branch.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.1)
    nn.init.normal_(branch.present, std=0.5)
    autoencoder = Autoencoder(widths=(8, 16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
    autoencoder.start_from_patches(torch.rand(4, 3, 128, 128))
    return FaceGenerator(base, branch, autoencoder, text_encoder)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    g = torch.Generator().manual_seed(1)
    return Evidence(lq=torch.rand(3, 8, 8, generator=g), sketch=torch.rand(1, 128, 128, generator=g))


def test_shapes_and_progress(generator, evidence):
    seen = []
    sample = generator.sample(
        ["a man", "red hair"], evidence, [1, 2], steps=3, on_step=lambda i, n, x0: seen.append((i, n))
    )
    assert sample.images.shape == (2, 3, 128, 128) and sample.latents.shape == (2, 4, 16, 16)
    assert sample.images.min() >= 0 and sample.images.max() <= 1
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_face_depends_on_its_seed_alone(generator, evidence):
    both = generator.sample(["a man"], evidence, [1, 2], steps=2)
    second = generator.sample(["a man"], evidence, [2], steps=2)
    torch.testing.assert_close(both.latents[1:], second.latents, atol=1e-4, rtol=0)
    assert (both.latents[0] - both.latents[1]).abs().max() > 0.1
    again = generator.sample(["a man"], evidence, [1, 2], steps=2)
    assert torch.equal(both.images, again.images)


def test_the_estimate_steers_whole_faces_and_leaves_part_rounds_to_the_words(generator, evidence):
    g = torch.Generator().manual_seed(5)
    one, other = torch.nn.functional.normalize(torch.randn(2, 16, generator=g))
    for clues in (evidence, None):
        plain, towards, elsewhere = (
            generator.sample(["a man"], clues, [1], steps=2, estimate=e) for e in (None, one, other)
        )
        assert (towards.latents - plain.latents).abs().max() > 0.01
        assert (towards.latents - elsewhere.latents).abs().max() > 0.01
    start = generator.sample(["a man"], evidence, [1], steps=2)
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 40:80, 40:80] = 1
    left, right = (
        generator.sample(["red hair"], evidence, [2], steps=2, known=start, mask=mask, estimate=e)
        for e in (None, one)
    )
    assert torch.equal(left.latents, right.latents)


def test_every_clue_matters_and_any_may_be_missing(generator, evidence):
    words = SimpleNamespace(sketch=None, lq=None)
    clues = {
        "all": evidence,
        "sketch": Evidence(sketch=evidence.sketch),
        "lq": Evidence(lq=evidence.lq),
        "words": words,
    }
    made = {name: generator.sample(["a man"], clue, [7], steps=2).latents for name, clue in clues.items()}
    made["other words"] = generator.sample(["red hair"], words, [7], steps=2).latents
    names = list(made)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert (made[first] - made[second]).abs().max() > 1e-3, (first, second)
    assert torch.equal(made["words"], generator.sample(["a man"], None, [7], steps=2).latents)


def test_no_strength_is_no_control(generator, evidence):
    without = generator.sample(["a man"], None, [7], steps=2).latents
    assert torch.equal(generator.sample(["a man"], evidence, [7], steps=2, strength=0.0).latents, without)
    late = generator.sample(["a man"], evidence, [7], steps=2, start=0.4).latents
    full = generator.sample(["a man"], evidence, [7], steps=2).latents
    assert not torch.equal(late, without) and not torch.equal(late, full)


def test_guidance(generator):
    assert torch.equal(
        generator.sample([""], None, [1], steps=2, guidance_scale=4.0).latents,
        generator.sample([""], None, [1], steps=2, guidance_scale=4.0).latents,
    )
    plain = generator.sample([""], None, [1], steps=2, guidance_scale=1.0).latents
    guided = generator.sample([""], None, [1], steps=2, guidance_scale=4.0).latents
    torch.testing.assert_close(plain, guided, atol=1e-3, rtol=1e-3)  # null against null
    words = [generator.sample(["a man"], None, [1], steps=2, guidance_scale=s).latents for s in (1.0, 4.0)]
    assert (words[0] - words[1]).abs().max() > 1e-3


def test_part_round_changes_nothing_outside(generator, evidence):
    start = generator.sample(["a man"], evidence, [1, 2], steps=2)
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 50:70, 40:90] = 1
    done = generator.sample(["broad nose"], evidence, [3, 4], steps=2, known=start, mask=mask, erase=True)
    cells = torch.nn.functional.max_pool2d(mask, 8).bool().expand_as(done.latents[:, :1])
    outside = ~cells.expand_as(done.latents)
    assert torch.equal(done.latents[outside], start.latents[outside])
    assert (done.latents - start.latents)[~outside].abs().max() > 0.1
    pixels = ~torch.nn.functional.interpolate(cells.float(), scale_factor=8).bool().expand_as(done.images)
    assert torch.equal(done.images[pixels], start.images[pixels])
    assert not torch.equal(done.images, start.images)
    kept = generator.sample(["broad nose"], evidence, [3, 4], steps=2, known=start, mask=mask, erase=False)
    assert (kept.latents - done.latents).abs().max() > 1e-3, "erased clues are not seen"
    bare = generator.sample(["broad nose"], None, [3, 4], steps=2, known=start.latents, mask=mask)
    assert torch.equal(bare.latents[outside], start.latents[outside])
    assert isinstance(bare, Sample)


def test_refusals(generator, evidence):
    with pytest.raises(InputError, match="2 seeds, 3 prompts"):
        generator.sample(["a"] * 3, evidence, [1, 2])
    with pytest.raises(InputError, match="at least one seed"):
        generator.sample(["a"], evidence, [])
    with pytest.raises(InputError, match="both the faces"):
        generator.sample(["a"], evidence, [1], mask=torch.ones(1, 1, 128, 128))
    with pytest.raises(InputError, match="unknown sampler"):
        generator.sample(["a"], evidence, [1], sampler="magic")


# -- training ----------------------------------------------------------------------------------------------


def little_latents(people: int) -> Latents:
    g = torch.Generator().manual_seed(2)
    cells = torch.zeros(people, 2, len(ROUND_PARTS), 16, 16, dtype=torch.uint8)
    cells[:, :, :4, 6:9, 5:11] = 1
    return Latents(
        torch.randn(people, 2, 4, 16, 16, generator=g).half(),
        torch.randn(people, 2, 2, 4, 16, 16, generator=g).half(),
        torch.randn(people, 2, LQ_DRAWS, 4, 16, 16, generator=g).half(),
        cells,
    )


def people_values(people: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(4)
    return torch.stack([torch.randint(len(a.values), (people,), generator=g) for a in ATTRIBUTES], 1)


def small_stage(cls, text_encoder, **options):
    torch.manual_seed(0)
    base = make_transformer(num_attention_heads=2, num_layers=3, cross_attention_dim=64)
    stage = cls(
        little_latents(6),
        people_values(6),
        text_encoder,
        base,
        steps=4,
        batch=12,
        **({"copies": 2} if cls is GeneratorStage else {}),
        **options,
    )
    stage.validated = 16
    return stage


def test_batches_are_what_they_say(text_encoder):
    stage = small_stage(GeneratorStage, text_encoder)
    batch = stage.draw(stage.seen, 200, torch.Generator().manual_seed(0))
    rounds = batch.rounds.bool()
    assert 0.3 < batch.rounds.mean() < 0.5
    assert 0.5 < batch.present.mean() < 0.65, "each clue is there in 57 % of samples"
    assert (batch.mask[~rounds] == 1).all()
    share = batch.mask[rounds].mean((1, 2, 3))
    assert share.min() > 0 and share.max() < 0.9
    changed = (batch.known != batch.target).flatten(1).any(1).float().mean()
    assert 0.38 < changed < 0.62
    assert batch.sigma[rounds].log().mean() > batch.sigma[~rounds].log().mean() + 0.3
    again = stage.draw(stage.seen, 200, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(vars(batch).values(), vars(again).values(), strict=True))


def test_loss_looks_inside_the_mask_only(text_encoder):
    stage = small_stage(GeneratorStage, text_encoder, autocast=False)
    batch = stage.draw(stage.seen, 12, torch.Generator().manual_seed(0))
    perfect = torch.zeros(12)
    wrong, _ = stage.errors(batch)
    assert wrong.shape == perfect.shape and (wrong > 0).all()
    outside = type(batch)(**{**vars(batch), "target": batch.target + 3 * (1 - batch.mask)})
    torch.testing.assert_close(stage.errors(outside)[0], wrong)


@pytest.mark.parametrize("cls", [BaseStage, GeneratorStage])
def test_stages_run(cls, text_encoder, tmp_path):
    stage = small_stage(cls, text_encoder)
    before = {k: v.clone() for k, v in stage.modules.state_dict().items()}
    outcome = run_stage(stage, tmp_path, log_every=2)
    assert outcome.step == 4 and all(np.isfinite(v) for v in outcome.validation.values())
    changed = {
        k.split(".")[0] for k, v in stage.modules.state_dict().items() if not torch.equal(v, before[k])
    }
    assert changed == ({"transformer", "control"} if cls is GeneratorStage else {"transformer"})
    assert ("loss_eyes_words" in outcome.validation) == (cls is GeneratorStage)


def test_estimates_go_with_the_evidence_that_is_there(text_encoder):
    """Set k of an estimate is of the kinds of evidence in the bits of k + 1; here each holds its number."""
    numbered = torch.nn.functional.one_hot(torch.arange(7), 8).half()[None, :, None].expand(6, -1, 2, -1)
    stage = small_stage(GeneratorStage, text_encoder, estimates=numbered)
    batch = stage.draw(stage.seen, 400, torch.Generator().manual_seed(0))
    asked = batch.estimate.abs().sum(1) > 0
    rounds = batch.rounds.bool()
    assert not asked[rounds].any()
    share = 1 - NO_ESTIMATE  # fewer: some samples have no evidence at all
    assert share - 0.2 < asked[~rounds].float().mean() < share + 0.05
    kinds = batch.estimate.argmax(1) + 1
    sketch, lq = batch.present[asked].bool().T
    assert torch.equal(kinds[asked] & 1 > 0, lq) and torch.equal(kinds[asked] & 2 > 0, sketch)
    errors, made = stage.errors(batch)
    assert errors.shape == (400,) and made.shape == (400, 4, 16, 16)


def test_without_fusion_the_pictures_are_added_up(text_encoder):
    stages = [small_stage(GeneratorStage, text_encoder, autocast=False, fused=f) for f in (True, False)]
    batch = stages[0].draw(stages[0].seen, 8, torch.Generator().manual_seed(0))
    fused, summed = (stage._control(batch).latent for stage in stages)
    assert not torch.allclose(fused, summed)
    there = batch.present[:, :, None, None, None]
    wanted = batch.sketch * there[:, 0] + batch.lq * there[:, 1]
    whole = batch.rounds == 0
    assert torch.equal(summed[whole], wanted[whole])


@pytest.mark.parametrize("published", [False, True])
def test_identity_term_reaches_the_generator(text_encoder, published):
    torch.manual_seed(0)
    autoencoder = Autoencoder(widths=(8, 16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
    autoencoder.start_from_patches(torch.rand(4, 3, 128, 128))
    matcher = FaceNet(dimension=16, widths=(4, 8, 8, 8), blocks=(1, 1, 1, 1)).eval()
    points = torch.tensor([[48.0, 60], [80, 60], [64, 76], [52, 92], [76, 92]]).expand(6, -1, -1)
    targets = torch.nn.functional.normalize(torch.randn(6, 16))
    rule = IdentityLoss(every=2, warmup=0, ramp=0, each=not published, detach=not published)
    eye = DecodingEye(autoencoder, matcher, None if published else points)
    term = IdentityTerm(rule, eye, targets)
    stage = small_stage(GeneratorStage, text_encoder, autocast=False, identity=term)
    batch = stage.draw(stage.seen, 12, torch.Generator().manual_seed(0))
    clean = replace(batch, sigma=torch.full_like(batch.sigma, 0.1), rounds=torch.zeros(12))
    _, made = stage.errors(clean)
    assert term(1, clean, made) is None, "only every second step"
    loss = term(0, clean, made)
    assert loss is not None and 0 <= float(loss.detach()) <= 2 * rule.factor
    (gradient,) = torch.autograd.grad(loss, made)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    half = replace(clean, sigma=torch.where(torch.arange(12)[:, None, None, None] < 6, 0.1, 10.0))
    mixed = term(0, half, made.detach())
    assert (mixed is None) == published, "the published gate asks for the whole batch"
    noisy = replace(clean, sigma=torch.full_like(batch.sigma, 10.0))
    assert term(0, noisy, made) is None


def test_the_critic_is_a_cheap_eye(text_encoder):
    torch.manual_seed(0)
    critic = LatentCritic(widths=(8, 8), dimension=16).eval()
    logits, vectors = critic(torch.randn(3, 4, 16, 16))
    assert [x.shape[1] for x in logits] == [len(a.values) for a in ATTRIBUTES] and vectors.shape == (3, 16)
    targets = torch.randn(6, 16)
    term = IdentityTerm(IdentityLoss(every=1, warmup=0, ramp=0), LatentEye(critic), targets)
    stage = small_stage(GeneratorStage, text_encoder, autocast=False, identity=term)
    batch = stage.draw(stage.seen, 12, torch.Generator().manual_seed(0))
    made = batch.target.requires_grad_(True)
    loss = term(0, replace(batch, sigma=torch.full_like(batch.sigma, 0.1), rounds=torch.zeros(12)), made)
    (gradient,) = torch.autograd.grad(loss, made)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()

    told = IdentityTerm(term.rule, term.eye, targets, told=True)
    some = torch.zeros_like(batch.estimate)
    some[:5] = 1.0
    whole = replace(batch, sigma=torch.full_like(batch.sigma, 0.1), rounds=torch.zeros(12), estimate=some)
    (gradient,) = torch.autograd.grad(told(0, whole, made), made)
    assert ((gradient.flatten(1).norm(dim=1) > 0) == (torch.arange(12) < 5)).all()
    assert told(0, replace(whole, estimate=torch.zeros_like(some)), made) is None


def test_the_critic_sees_parts_of_others_with_their_words():
    """Half of a batch has one part of somebody else: what is said of that part is his, the rest stays."""
    latents, values = little_latents(6), people_values(6)
    stage = CriticStage(latents, values, torch.randn(6, 16), latents, values, torch.randn(6, 16), batch=12)
    people, side = torch.arange(12) % 6, torch.zeros(12, dtype=torch.long)
    seen, said = stage._one_part_swapped(people, side, torch.Generator().manual_seed(0))
    before, known = latents.portraits[people, side].float(), values[people]
    assert stage.swapped == 6
    assert torch.equal(seen[6:], before[6:]) and torch.equal(said[6:], known[6:])
    assert any(not torch.equal(seen[i], before[i]) for i in range(6))
    for i in range(6):
        changed = {ATTRIBUTES[k].part for k in torch.nonzero(said[i] != known[i])[:, 0].tolist()}
        assert len(changed) <= 1 and changed <= set(ROUND_PARTS)
    assert any((said[i] != known[i]).any() for i in range(6))
    assert torch.isfinite(stage.loss(0, torch.Generator().manual_seed(0))["loss"])


def test_the_words_loss_asks_for_what_was_said_of_the_part(text_encoder):
    """Only part rounds with words count, only inside their masks, and only the attributes of their own part."""
    torch.manual_seed(0)
    critic, values = LatentCritic(widths=(8, 8), dimension=16).eval(), people_values(6)
    term = WordsTerm(critic, values, highest=100.0)
    stage = small_stage(GeneratorStage, text_encoder, autocast=False, said=term)
    batch = stage.draw(stage.seen, 24, torch.Generator().manual_seed(0))
    made = (batch.target + torch.randn(batch.target.shape)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(term(batch, made, ROUND_PARTS), made)
    counted = (batch.rounds > 0) & (batch.spoken > 0)
    assert counted.any() and not counted.all()
    assert torch.equal(gradient.flatten(1).norm(dim=1) > 0, counted)
    assert ((gradient * (1 - batch.mask)) == 0).all()
    assert term(replace(batch, rounds=torch.zeros(24)), made, ROUND_PARTS) is None

    nose = replace(
        batch, part=torch.full((24,), ROUND_PARTS.index("nose")), spoken=torch.ones(24), rounds=torch.ones(24)
    )
    other = values.clone()
    for place, attribute in enumerate(ATTRIBUTES):
        if attribute.part != "nose":
            other[:, place] = 0
    again = WordsTerm(critic, other, highest=100.0)
    assert torch.equal(term(nose, made, ROUND_PARTS), again(nose, made, ROUND_PARTS))
    assert not torch.equal(term(batch, made, ROUND_PARTS), again(batch, made, ROUND_PARTS))
    stage.loss(0, torch.Generator().manual_seed(0))["said"].backward()


def test_points_of_a_mirrored_face():
    points = torch.tensor([[[48.0, 60], [80, 60], [64, 76], [52, 92], [76, 92]]])
    torch.testing.assert_close(mirror_points(points), points)
    torch.testing.assert_close(
        mirror_points(points + torch.tensor([3.0, 0])), points - torch.tensor([3.0, 0])
    )


def test_texts_are_encoded_in_their_order(text_encoder):
    texts = ["a man with long red hair", "", "nose", "a man", "broad nose"]
    slots = encode_sorted(text_encoder, texts, chunk=2)
    assert slots.shape == (5, SLOTS, 128)
    torch.testing.assert_close(slots, text_encoder.context(texts), atol=1e-4, rtol=0)


def test_witness_words():
    values = people_values(1)[0].tolist()
    g = torch.Generator().manual_seed(0)
    full = [witness_words(values, None, g) for _ in range(200)]
    nose = [witness_words(values, "nose", g) for _ in range(200)]
    assert 5 <= full.count("") <= 40
    assert len(set(full)) > 150
    words = [len(text.split()) for text in nose if text]
    assert sum(words) / len(words) < 0.5 * sum(len(text.split()) for text in full) / len(full)
    assert sum("nose" in text.lower() for text in nose) > 140


def test_world_encoded_once(tmp_path):
    people = 3
    g = np.random.default_rng(0)

    def pictures(*shape):
        return g.integers(0, 255, shape, dtype=np.uint8)

    points = np.array([[48, 60], [80, 60], [64, 76], [52, 92], [76, 92]], np.float32)
    labels = np.full((people, 128, 128), 8, np.uint8)
    labels[:, 58:64, 44:54] = 1
    world = SimpleNamespace(
        people=people,
        info=SimpleNamespace(views=2, sketches=2),
        identities=g.random((people, 5), np.float32),
        canonical=pictures(people, 3, 128, 128),
        canonical_labels=labels,
        views=pictures(people, 2, 3, 128, 128),
        view_points=np.tile(points, (people, 2, 1, 1)),
        sketches=pictures(people, 2, 128, 128),
    )
    torch.manual_seed(0)
    net = Autoencoder(widths=(8, 16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1)).eval()
    calls = []
    path = tmp_path / "latents.safetensors"
    first = encode_world(world, net, path, progress=lambda done, people: calls.append(done))
    assert first.portraits.shape == (3, 2, 4, 16, 16) and first.lq.shape == (3, 2, LQ_DRAWS, 4, 16, 16)
    assert first.sketches.shape == (3, 2, 2, 4, 16, 16)
    wanted = net.encode(torch.from_numpy(world.canonical).float() / 255)
    torch.testing.assert_close(first.portraits[:, 0].float(), wanted, atol=0.05, rtol=0.05)
    eyes = first.cells[:, 0, ROUND_PARTS.index("eyes")]
    assert eyes[0, 7, 5:7].all() and not eyes[0, :, 10:].any()
    assert torch.equal(first.cells[:, 1], first.cells[:, 0].flip(-1))
    assert not first.cells[:, :, ROUND_PARTS.index("nose")].any()
    second = encode_world(world, net, path, progress=lambda done, people: calls.append(done))
    assert calls == [3] and torch.equal(first.lq, second.lq)
    world.people = 2
    assert len(encode_world(world, net, path, progress=lambda done, people: calls.append(done))) == 2
    assert calls == [3, 2]


def test_templates_are_sensible():
    cells = dict(zip(ROUND_PARTS, template_cells().float(), strict=True))
    assert set(cells) == {"eyes", "brows", "mouth", "nose", "ears", "hair", "glasses", "beard", "skin"}
    for part, region in cells.items():
        assert 0.03 < region.mean() < 0.6, part
    rows = torch.arange(16.0)[:, None]
    height = {part: float((rows * region).sum() / region.sum()) for part, region in cells.items()}
    assert height["brows"] < height["eyes"] < height["nose"] < height["mouth"]
