"""Sampling guided by identity: one guider per file, over the rule in `base`."""
