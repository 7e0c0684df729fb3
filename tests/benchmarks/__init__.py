"""The project measured beside Orthanc on the same generated data: ``python -m tests.benchmarks``."""
