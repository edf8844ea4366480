"""From the traces of profile launches to what explains a speed-up."""
