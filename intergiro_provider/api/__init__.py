# SPDX-License-Identifier: Apache-2.0
"""The Intergiro API over ``requests``: settings, authentication, retries and errors."""
