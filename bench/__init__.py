"""The replica simulator, load, and reports: what measures Triolet from outside."""
