"""The resources of the API, one module each: bodies, views, handlers and examples. The domain decides the rules."""
