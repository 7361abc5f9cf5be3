"""What comes before and beside a training: checks, importers, extraction, conversion."""
