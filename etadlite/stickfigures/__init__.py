"""Generated videos: stick figures in eight classes that differ by motion only."""
