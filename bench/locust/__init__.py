"""A load script for Locust: chat sessions over SSE, with first byte, first text and end apart."""
