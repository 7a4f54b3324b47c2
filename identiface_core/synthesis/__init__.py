"""Synthetic portraits: people as numbers, drawn by rays on a head-shaped map."""
