"""The audit in the console: events as sentences, verification of hash chains, and exports."""
