"""Cards: one job or one batch, live."""
