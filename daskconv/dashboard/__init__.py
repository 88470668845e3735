"""Dashboard: what happened, kept as a record, drawn as figures, and shown live beside Dask's own pages."""
