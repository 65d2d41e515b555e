"""The logs and metrics of every process of WVS."""
