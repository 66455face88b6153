"""From the runs' frame to the rows of the benchmark: numbers, ranks, and what sets rows apart."""
