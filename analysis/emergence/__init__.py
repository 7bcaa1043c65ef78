"""What emerges with scale: shapes of ability curves, onsets, and whether a jump is in the model or in the metric."""
