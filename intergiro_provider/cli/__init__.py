# SPDX-License-Identifier: Apache-2.0
"""The command line: what lives, and whether a deployment is set up soundly."""
