"""The transports of one Program: local (this process), dask (tasks of a cluster), mpi (one long task a worker)."""
