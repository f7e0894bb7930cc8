# SPDX-License-Identifier: Apache-2.0
"""How a payment happens once: key, plan, write-ahead record, look-up."""
