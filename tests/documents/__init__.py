"""The README, the documents, the benchmarks and the golden datasets."""
