# SPDX-License-Identifier: Apache-2.0
"""One bank session, shared by every task: renewed once, stored once, never overwritten by an older one."""
