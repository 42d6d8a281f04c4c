"""Learning rates: the range test, the rules that read it, and schedules."""
