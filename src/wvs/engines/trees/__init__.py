"""Work on the content of one tree: walking, copying, linking, stamping, removing, in worker processes."""
