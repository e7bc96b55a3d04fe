"""`triolet bench`: load against an OpenAI-compatible endpoint, measured request by request."""
