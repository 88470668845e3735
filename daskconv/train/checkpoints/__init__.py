"""Checkpoints: a folder of them that is written beside the training, verified when read, and never half there."""
