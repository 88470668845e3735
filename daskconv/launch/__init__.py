"""Start: the first line of a script, the same on a laptop, a cluster and under mpiexec."""
