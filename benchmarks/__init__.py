# SPDX-License-Identifier: Apache-2.0
"""Our pull beside what one would otherwise pick: ``python -m benchmarks``, or ``make benchmarks``."""
