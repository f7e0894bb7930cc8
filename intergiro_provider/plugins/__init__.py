# SPDX-License-Identifier: Apache-2.0
"""Pages in Airflow's UI."""
