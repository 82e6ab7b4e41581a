"""Stage 5: what people run and look at."""
