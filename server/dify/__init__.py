"""Exports of Dify, and files of our own in the same format: read into apps, with a report."""
