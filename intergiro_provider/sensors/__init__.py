# SPDX-License-Identifier: Apache-2.0
"""Sensors: tasks that wait for something at Intergiro."""
