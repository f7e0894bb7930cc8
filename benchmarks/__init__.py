# SPDX-License-Identifier: Apache-2.0
"""Compare our pull with other tools: ``python -m benchmarks``, or ``make benchmarks``."""
