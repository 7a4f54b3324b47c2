"""The gallery: known people as unit templates, enrolled, kept, and searched exactly."""

from __future__ import annotations

from .enrolment import Enrolment, Skipped, enrol, enrol_folder
from .search import search
from .store import Gallery
from .values import Candidate, Candidates

__all__ = [
    "Candidate",
    "Candidates",
    "Enrolment",
    "Gallery",
    "Skipped",
    "enrol",
    "enrol_folder",
    "search",
]
