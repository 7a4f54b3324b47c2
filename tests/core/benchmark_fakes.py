"""A benchmark run of nobody, for tests of the page."""

from __future__ import annotations

from typing import Any

import torch

from identiface_core.evaluation.metrics import LIST_LENGTH, difference, identification
from identiface_core.evaluation.report.questions import QUESTIONS

PROBES, GALLERY = 120, 1000
SKILL = {
    "true_photo": 3.2, "raw_lq": -2.0, "evidence_encoder": 1.2, "evidence_encoder/lq+sketch": 1.0,
    "evidence_encoder/lq+words": 0.7, "evidence_encoder/sketch+words": -0.2, "evidence_encoder/lq": 0.1,
    "evidence_encoder/sketch": -1.3, "evidence_encoder/words": -1.6, "text": -2.2, "sketch": -2.0, "lq": -0.9,
    "lq_sketch": 0.0, "lq_text": -0.4, "sketch_text": -1.1, "one_shot_unguided": 0.0, "one_shot": 0.4,
    "consensus_4": 0.7, "consensus_8_unguided": 0.5, "consensus_8": 0.9, "reference": 1.0, "rounds": 0.8,
    "rounds_right_words": 1.3, "everything": 1.5, "everything_right_words": 1.7, "oracle": 2.4,
}  # fmt: skip
WITNESS = {"careful": 0.6, "middle": 0.0, "poor": -0.8}
AGES, TONES = ("young", "adult", "middle-aged", "old"), ("fair", "tan", "brown", "dark")


def made_up() -> dict[str, Any]:
    """A run of nobody: people of differing difficulty, searched for by systems of differing skill."""
    g = torch.Generator().manual_seed(3)
    hard = torch.randn(PROBES, generator=g) * 0.8
    found: dict[str, Any] = {
        "suite": "embedded", "gallery": GALLERY, "probes": PROBES, "unmated": 200, "quick": True,
        "levels": {}, "pairs": {}, "cmc": {}, "records": {},
        "versions": {"identiface": "0.1.0", "renderer": "1", "matcher_a.safetensors": "ab" * 32},
        "people": [
            {"sex": ("man", "woman")[i % 2], "age": AGES[i // 2 % 4], "skin tone": TONES[min(i // 36, 3)]}
            for i in range(PROBES)
        ],
    }  # fmt: skip
    for level, shift in WITNESS.items():
        rows, lists, kept = {}, {}, {}
        for name, skill in SKILL.items():
            unsure = 0.4 * torch.randn(PROBES, generator=g)
            good = skill + (shift if name != "true_photo" else 0) + hard + unsure
            ranks = (1 + torch.exp(2.2 - 1.9 * good)).long().clamp(max=GALLERY)
            first, ten, fifty = (identification(ranks, k) for k in (1, 10, 50))
            draws = "encoder" not in name and name not in ("true_photo", "raw_lq")
            rows[name] = {
                "rank1": first.value, "rank1_ci": [first.low, first.high],
                "rank10": ten.value, "rank10_ci": [ten.low, ten.high], "rank50": fifty.value,
                "fnir_at_fpir_0.01": 1 - first.value * 0.8, "fnir_at_fpir_0.003": None,
                "judge_cosine": 0.5 + 0.05 * skill, "judge_rank1": first.value * 0.9 if draws else None,
                "psnr": 20 + skill if draws else None, "ms_ssim": 0.7 + 0.02 * skill if draws else None,
                "fid_matcher_b": 9 - skill if draws else None, "rounds": 7.0 if "rounds" in name else None,
                "seconds": 0.4, "fpir_calibrated": 0.015,
            }  # fmt: skip
            lists[name] = [float((ranks <= k).double().mean()) for k in range(1, LIST_LENGTH + 1)]
            others = 0.45 + 0.06 * torch.randn(PROBES, generator=g)
            kept[name] = [
                {"person": i, "rank": int(ranks[i]), "score": float(others[i] + 0.05 * good[i]),
                 "best_impostor": float(others[i])} for i in range(PROBES)
            ]  # fmt: skip
        found["levels"][level], found["cmc"][level], found["records"][level] = rows, lists, kept
        found["pairs"][level] = [paired(kept, a, b) for q in QUESTIONS for a, b in q.pairs]
    strangers = [float(x) for x in 0.44 + 0.06 * torch.randn(200, generator=g)]
    found["unmated_records"] = {
        level: {"everything": strangers, "true_photo": strangers} for level in WITNESS
    }
    found["unmated_people"] = [found["people"][i % PROBES] for i in range(200)]
    alarm = {"rate": 0.015, "rate_ci": [0.0, 0.04], "threshold": 0.6}
    found["unmated_alarm"] = {level: {"evidence_encoder": alarm, "everything": alarm} for level in WITNESS}
    found["notes"] = ["no calibrated threshold for raw_lq: its scores have no calibration"]
    found["look_alikes"] = {
        "gallery": 200,
        "level": "middle",
        "probes": 200,
        "families": 10,
        "family": 20,
    } | {
        name: {key: found["levels"]["middle"][name][key] * 0.5 for key in ("rank1", "rank10")}
        for name in ("true_photo", "evidence_encoder", "everything")
    }
    found["words"] = {
        name: {"from": a, "to": b, "right_way": right, "moved": moved, "outside": 0.0}
        for name, a, b, right, moved in (
            ("hair colour", "black", "blond", 0.99, 0.81), ("hair length", "very short", "long", 0.95, 0.66),
            ("glasses", "none", "glasses", 0.97, 0.55), ("beard", "none", "full", 1.0, 0.7),
            ("brow thickness", "thin", "thick", 0.91, 0.31), ("nose width", "narrow", "wide", 1.0, 0.52),
            ("nose length", "short", "long", 1.0, 0.8), ("mouth width", "narrow", "wide", 0.93, 0.2),
            ("lip colour", "pale", "red", 0.7, 0.1),
        )
    }  # fmt: skip
    parts = ("overview", "eyes", "brows", "mouth", "nose", "ears", "hair")
    found["rounds_curve"] = {
        name: [{"part": p, "rank1": 0.4 + i * up, "rank10": 0.8 + i * up / 2} for i, p in enumerate(parts)]
        for name, up in (("noisy", 0.004), ("right", 0.02), ("everything", 0.006))
    }
    ways = {word: {"right_way": 0.9, "moved": 0.5, "faces": 20} for word in ("glasses", "beard")}
    gain = {"rank1": 0.05, "rank1_ci": [0.01, 0.09], "judge_cosine": 0.021, "judge_cosine_ci": [-0.01, 0.05]}
    found["trainings"] = {
        "level": "middle", "probes": 100, "against": "fused",
        "rows": {
            name: {
                "label": "one thing different",
                "systems": {"consensus_4": {key: found["levels"]["middle"]["consensus_4"][key]
                                            for key in ("rank1", "rank1_ci", "rank10", "judge_cosine", "psnr")}},
                "gains": {} if name == "fused" else {"consensus_4": gain},
                "words": ways,
            }
            for name in ("fused", "summed")
        },
    }  # fmt: skip
    return found


def paired(kept: dict[str, list[dict[str, Any]]], a: str, b: str) -> dict[str, Any]:
    one: dict[str, Any] = {"a": a, "b": b}
    for key, k in (("rank1", 1), ("rank10", 10)):
        hits = [torch.tensor([row["rank"] <= k for row in kept[name]]).double() for name in (a, b)]
        made = difference(*hits)
        one |= {key: made.value, f"{key}_ci": [made.low, made.high]}
    return one
