"""What several commands do: one invocation, asynchronous writes, waiting, lists."""
