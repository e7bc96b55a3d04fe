"""Agents: a model that answers by calling tools, round by round, in two ways of asking."""
