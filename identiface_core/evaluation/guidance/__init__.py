"""What guidance gains and what it costs: every method on the same people and seeds, judged by the matcher that never guides."""
