"""`scripts/bench engine`: what the workflow engine costs, beside graphon and beside no engine."""
