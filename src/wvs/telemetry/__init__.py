"""Logs and metrics: what every process of WVS tells about itself."""
