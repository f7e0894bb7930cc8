# SPDX-License-Identifier: Apache-2.0
"""Apache Airflow provider for Intergiro: one self-renewing session, shared by every task.

This module holds the version and nothing else: Airflow reads the provider info while it is still starting,
so importing this package must not import Airflow, or anything else that costs time.
"""

__version__ = "0.1.0"
