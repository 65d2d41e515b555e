"""Actions that several commands share: sending operations, waiting for tasks, printing lists and resources."""
