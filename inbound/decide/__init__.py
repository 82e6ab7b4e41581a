"""Stage 3: which rules apply, and what comes next."""
