"""The iteration: plan, sample, search, score, choose, stop. It decides from evidence and the witness alone
(no truth here)."""
