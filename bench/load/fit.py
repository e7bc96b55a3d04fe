"""Least squares for a handful of numbers that cannot be negative. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import sqrt

__all__ = ["nonnegative_fit", "solve"]

Rows = Sequence[Sequence[float]]


def nonnegative_fit(
    rows: Rows, targets: Sequence[float], sizes: Sequence[float]
) -> tuple[list[float], float]:
    """Coefficients, none below 0, with which the rows come nearest to the targets; and the root
    mean square of what is then left.

    Errors count relative to `sizes` (all above 0): 1 ms of 10 matters as 10 ms of 100 do. Every
    choice of coefficients that are 0 is tried, so there should be few.
    """
    width = len(rows[0])
    weighted = [[cell / size for cell in row] for row, size in zip(rows, sizes, strict=True)]
    aims = [target / size for target, size in zip(targets, sizes, strict=True)]
    best = [0.0] * width
    least = _error(weighted, aims, best)
    for count in range(1, width + 1):
        for used in combinations(range(width), count):
            found = _fit([[row[at] for at in used] for row in weighted], aims)
            values = [found[used.index(at)] if at in used else 0.0 for at in range(width)]
            error = _error(weighted, aims, values)
            if min(found) >= 0 and error < least * (1 - 1e-9):
                best, least = values, error
    return best, least


def _error(rows: Rows, aims: Sequence[float], values: Sequence[float]) -> float:
    misses = [_dot(row, values) - aim for row, aim in zip(rows, aims, strict=True)]
    return sqrt(_dot(misses, misses) / len(misses))


def _fit(rows: Rows, aims: Sequence[float]) -> list[float]:
    """Least squares by the normal equations, with columns brought to one size."""
    scales = [max(abs(cell) for cell in column) or 1.0 for column in zip(*rows, strict=True)]
    sized = [[cell / scale for cell, scale in zip(row, scales, strict=True)] for row in rows]
    columns = list(zip(*sized, strict=True))
    matrix = [[_dot(one, other) for other in columns] for one in columns]
    found = solve(matrix, [_dot(column, aims) for column in columns])
    return [value / scale for value, scale in zip(found, scales, strict=True)]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def solve(matrix: Rows, right: Sequence[float]) -> list[float]:
    """The solution of a small linear system, by elimination with pivots; 0 for what the system
    does not determine."""
    table = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(table)
    largest = max((abs(cell) for row in matrix for cell in row), default=0.0)
    for at in range(size):
        pivot = max(range(at, size), key=lambda row: abs(table[row][at]))
        table[at], table[pivot] = table[pivot], table[at]
        if abs(table[at][at]) <= 1e-12 * largest:
            table[at] = [0.0] * at + [1.0] + [0.0] * (size - at)
        for row in range(at + 1, size):
            factor = table[row][at] / table[at][at]
            table[row] = [
                cell - factor * above for cell, above in zip(table[row], table[at], strict=True)
            ]
    values = [0.0] * size
    for at in reversed(range(size)):
        known = sum(table[at][other] * values[other] for other in range(at + 1, size))
        values[at] = (table[at][size] - known) / table[at][at]
    return values
