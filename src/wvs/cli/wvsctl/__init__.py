"""The console `wvsctl`: talks HTTP to the API and nothing else."""
