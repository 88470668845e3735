"""Layers, networks, losses: specs of ints, strings and tuples; arrays travel beside them."""
