# SPDX-License-Identifier: Apache-2.0
"""Triggers: what waits in Airflow's triggerer."""
