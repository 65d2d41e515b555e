"""Work on the content of one tree: walking, copying, linking, stamping and removing, partly in worker processes."""
