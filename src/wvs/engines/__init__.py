"""The storage of workspaces: clone engines, and the volume that holds the trees."""
