# SPDX-License-Identifier: Apache-2.0
"""The Intergiro API over ``requests``: where it is, who we are, what may be tried again, what an error means."""
