# SPDX-License-Identifier: Apache-2.0
"""How a list of the bank becomes files: pages, bounds, parts, and the manifest that publishes them.

Nothing in here knows Airflow or HTTP: pages come from a function that is handed in, files go to an fsspec
file system.
"""
