"""Programs for those who change WVS; nothing of this is installed with it."""
