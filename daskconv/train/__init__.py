"""Training: data, optimisers, schedules, the trainer and its files."""
