"""The HTTP side of WVS: the boundary every request passes, the problems it answers with, the server that runs it."""
