"""What a Program costs on a machine: its price, a simulated run of it, and the plan that costs least."""
