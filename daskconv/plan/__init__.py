"""Plans and Programs: how a network's training step is cut into segments and exchanges."""
