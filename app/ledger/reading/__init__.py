"""Records, sums and figures for readers. Changes nothing."""
