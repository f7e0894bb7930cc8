# SPDX-License-Identifier: Apache-2.0
"""The command line: the stored session, and whether a deployment is set up correctly."""
