"""What every room uses: errors, whole files, draws, weights, distributed, tables."""
