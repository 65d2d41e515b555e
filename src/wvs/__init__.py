"""WVS, the Workspace Versioning Service: provably consistent snapshots of agents' working directories."""

__version__ = "0.1.0"
