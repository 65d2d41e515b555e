"""`wvsctl demo`: a workspace's life on real files, every step with its proof."""
